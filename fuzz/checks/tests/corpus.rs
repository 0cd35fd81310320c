//! The committed corpus of every fuzz target, run through the target's check.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, panic};

use ffproto::control::{ControlMessage, ToMaster, ToNode};
use fuzzchecks::CHECKS;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = corpus().join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

#[test]
fn every_check_holds_for_every_file_of_its_corpus() {
    for &(target, check) in CHECKS {
        let inputs = inputs(target);
        assert!(inputs.len() >= 12, "{target} has {} files", inputs.len());
        for input in inputs {
            let bytes = fs::read(&input).unwrap();
            let held = panic::catch_unwind(|| check(&bytes));
            assert!(held.is_ok(), "{target} does not hold for {}", input.display());
        }
    }
}

#[test]
fn every_check_has_a_folder_and_a_fuzz_target_and_every_folder_a_check() {
    let checks: BTreeSet<String> = CHECKS.iter().map(|(target, _)| (*target).to_owned()).collect();
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
    };
    assert_eq!(names(&corpus()), checks);
    assert_eq!(names(&corpus().join("../fuzz_targets")), checks);
}

/// A corpus of nothing but refused inputs would test the refusals only.
#[test]
fn the_corpora_have_inputs_that_are_accepted() {
    let bytes = |target: &str| inputs(target).into_iter().map(|input| fs::read(input).unwrap());
    let frame = |data: &Vec<u8>| {
        // Without pieces, and with the constants that are zero.
        data.starts_with(&[0, 0, 0])
            && ffproto::frame::Firefly::default().read(&data[3..], 65_536).is_ok_and(|frame| frame.is_some())
    };
    assert!(bytes("client_frame").any(|data| frame(&data)));
    let frame = |data: &Vec<u8>| {
        data.starts_with(&[0, 0, 0])
            && ffproto::link::read(&data[3..], 65_536).is_ok_and(|frame| frame.is_some())
    };
    assert!(bytes("link_frame").any(|data| frame(&data)));
    let loads = |data: &Vec<u8>| {
        let text = String::from_utf8_lossy(data);
        ffconfig::parse(&text, Path::new("config.json"), &|_| Some("10001".to_owned())).is_ok()
    };
    assert!(bytes("config").filter(loads).count() >= 3);
    let version = ffproto::Version::QUESTIONS;
    let asks = |data: &Vec<u8>| {
        data.starts_with(&[0])
            && ToNode::of_bytes(&data[1..], version).is_some_and(|it| matches!(it, ToNode::Ask { .. }))
    };
    let answers = |data: &Vec<u8>| {
        data.starts_with(&[1])
            && ToMaster::of_bytes(&data[1..], version).is_some_and(|it| matches!(it, ToMaster::Answer { .. }))
    };
    assert_eq!((bytes("control").filter(asks).count(), bytes("control").filter(answers).count()), (7, 9));
    let of =
        |input: &str| fuzzchecks::converse(&fs::read(corpus().join("conversation").join(input)).unwrap());
    let used = of("a-link-that-is-used-both-ways");
    assert_eq!((used.links, used.calls, used.answered, used.served), (1, 4, 3, 4), "{used:?}");
    for (input, links) in [
        ("a-link-by-a-key-file", 1),
        ("a-link-by-the-key-before-the-rotation", 1),
        ("a-link-in-the-version-before", 1),
        ("hello-passed-on-to-the-connection-that-it-is-for", 1),
        ("everything-at-once", 1),
        ("two-links-of-one-node", 2),
        ("a-start-of-the-far-future", 0),
        ("hello-again-on-another-connection", 1),
        ("hello-for-another-node", 0),
        ("hello-for-another-connections-nonce", 0),
    ] {
        assert_eq!(of(input).links, links, "{input}");
    }
}
