//! The public API of `ffserver` is what `ffserver/public-api.txt` lists, so that a change of it is seen by whoever reads the change;
//! and the list sees what it has to.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use layering::{Library, Source, api, changes, libraries, public_api};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn listed() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root().join("ffserver/public-api.txt"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[test]
fn the_public_api_is_the_one_that_is_listed() -> Result<()> {
    let (listed, now) = (listed()?, public_api(&libraries(&root())?)?);
    let changed = changes(&listed, &now);
    assert!(
        changed.is_empty() && listed == now,
        "the public API has changed:\n\n{}\n\nIf that is meant, its line in CHANGELOG.md says so, and so does the list:\n    \
         cargo run -p layering -- --api >public-api.new && mv public-api.new ffserver/public-api.txt\n",
        changed.join("\n")
    );
    Ok(())
}

#[test]
fn a_planted_change_is_seen_in_the_real_list_wherever_it_stands() -> Result<()> {
    let plants = [
        ("ffserver", "lib.rs", "pub fn planted() {}", "+ fn ffserver::planted()"),
        (
            "ffserver",
            "app/planted.rs",
            "impl crate::App { pub fn grown(&self) {} }",
            "+ fn ffserver::App::grown(&self)",
        ),
        (
            "ffstore",
            "db/planted.rs",
            "impl super::Db { pub fn grown(&self) {} }",
            "+ fn ffserver::Db::grown(&self)",
        ),
        ("ffserver", "lib.rs", "pub use ffproto::encrypt;", "+ mod ffserver::encrypt"),
        // In a module that nobody outside can name.
        ("ffserver", "transit/planted.rs", "pub fn planted() {}", ""),
    ];
    let (real, before) = (libraries(&root())?, listed()?);
    for (library, path, text, wanted) in plants {
        let mut libraries = real.clone();
        let sources = &mut libraries.iter_mut().find(|one| one.name == library).context(library)?.sources;
        match sources.iter_mut().find(|source| source.path == path) {
            Some(source) => source.text.push_str(&format!("\n{text}\n")),
            None => sources.push(Source { path: path.to_owned(), text: text.to_owned() }),
        }
        let changed = changes(&before, &public_api(&libraries)?);
        assert!(wanted.is_empty() || changed.iter().any(|line| line == wanted), "{text}: {changed:?}");
        assert_eq!(changed.is_empty(), wanted.is_empty(), "{text}");
    }
    Ok(())
}

fn library(name: &str, files: &[(&str, &str)]) -> Library {
    let source = |(path, text): &(&str, &str)| Source { path: (*path).to_owned(), text: (*text).to_owned() };
    Library { name: name.to_owned(), sources: files.iter().map(source).collect() }
}

/// The list of a library `game`, which re-exports of a library `wire`.
fn listed_of(lib: &str) -> Result<Vec<String>> {
    let wire = [
        (
            "lib.rs",
            "pub mod frame; mod inner; pub use inner::Hidden; pub mod all { pub use crate::inner::*; }",
        ),
        (
            "frame.rs",
            "pub struct Frame { pub size: u32, body: u8 }\nimpl Frame { pub fn read(&self) -> u32 { 0 } fn own(&self) {} }",
        ),
        (
            "inner.rs",
            "pub enum Hidden { One(u8), Two { a: u8 } }\npub(crate) struct Kept;\nuse crate::frame::Frame;",
        ),
    ];
    let game = [("lib.rs", lib), ("room.rs", "pub struct Room;\nimpl Room { pub fn enter(&self) {} }")];
    Ok(api("game", &[library("wire", &wire), library("game", &game)])?)
}

#[test]
fn an_item_of_another_library_is_listed_with_its_members_under_the_name_that_it_has_here() -> Result<()> {
    assert_eq!(
        listed_of("pub use wire::frame;")?,
        [
            "mod game::frame",
            "struct game::frame::Frame { .. }",
            "fn game::frame::Frame::read(&self) -> u32",
            "field game::frame::Frame::size: u32",
        ]
    );
    let hidden =
        ["enum game::Secret", "variant game::Secret::One(u8)", "variant game::Secret::Two { a: u8 }"];
    assert_eq!(listed_of("pub use wire::Hidden as Secret;")?, hidden);
    Ok(())
}

#[test]
fn a_further_name_is_one_line_and_a_glob_brings_what_is_public() -> Result<()> {
    assert_eq!(
        listed_of(
            "mod room; pub use room::Room; pub mod prelude { pub use crate::Room; pub use wire::all::*; }"
        )?,
        [
            "struct game::Room",
            "fn game::Room::enter(&self)",
            "mod game::prelude",
            "enum game::prelude::Hidden",
            "variant game::prelude::Hidden::One(u8)",
            "variant game::prelude::Hidden::Two { a: u8 }",
            "use game::prelude::Room = game::Room",
        ]
    );
    Ok(())
}

#[test]
fn what_is_private_hidden_of_a_test_or_in_place_of_a_feature_is_left_out() -> Result<()> {
    let lib = r#"
        mod room;
        pub(crate) fn own() {}
        #[doc(hidden)] pub fn hidden() {}
        #[cfg(test)] pub fn tested() {}
        #[cfg(not(feature = "web"))] pub fn without() {}
        #[cfg(feature = "web")] pub fn with() {}
        #[macro_export] macro_rules! made { () => {} }
        macro_rules! kept { () => {} }
        pub use bytes;
    "#;
    let listed = ["use game::bytes = bytes", "macro game::made!", r#"fn game::with() [feature = "web"]"#];
    assert_eq!(listed_of(lib)?, listed);
    Ok(())
}

#[test]
fn a_trait_says_what_it_asks_for_and_what_it_provides() -> Result<()> {
    let lib = "/// Of rooms.\npub trait Room: Send\nwhere\n    Self: Sized,\n{\n    const NAME: &'static str;\n    \
               fn enter(\n        &self,\n        who: u8, // The player.\n    ) -> bool;\n    fn leave(&self) {}\n}";
    assert_eq!(
        listed_of(lib)?,
        [
            "trait game::Room: Send where Self: Sized",
            "const game::Room::NAME: &'static str",
            "fn game::Room::enter(&self, who: u8) -> bool",
            "fn game::Room::leave(&self) (provided)",
        ]
    );
    Ok(())
}
