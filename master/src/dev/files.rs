//! The files of a game, looked at for changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

/// How often the files are looked at. They are some dozens, and that way works on every file system.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Folders that have no sources: what builds and runs leave.
const PASSED_OVER: [&str; 3] = ["target", "data", "log"];
/// The file with which vim tries whether it may write into a folder.
const VIMS_TRY: &str = "4913";
/// What a browser loads for a page.
const OF_PAGES: [&str; 14] =
    ["html", "css", "js", "mjs", "wasm", "svg", "png", "jpg", "jpeg", "gif", "webp", "ico", "woff2", "mp3"];

/// Whether a browser has it of the page that it shows.
pub(super) fn is_of_page(file: &Path) -> bool {
    let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| OF_PAGES.contains(&extension.as_str()))
}

/// Whether an editor leaves a file of that name beside the one that it writes: an older version of it, or what is not saved yet.
fn is_of_editor(name: &str) -> bool {
    let between_hashes = name.starts_with('#') && name.ends_with('#');
    let endings = ["~", ".swp", ".swx", ".tmp"];
    between_hashes || name == VIMS_TRY || endings.iter().any(|ending| name.ends_with(ending))
}

/// The files of a package: when each was written last, and how long it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Files(BTreeMap<PathBuf, (Option<SystemTime>, u64)>);

impl Files {
    fn below(package: &Path) -> Self {
        let (mut files, mut folders) = (BTreeMap::new(), vec![package.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (name, Ok(metadata)) = (entry.file_name(), entry.metadata()) else { continue };
                let name = name.to_string_lossy();
                if name.starts_with('.') || PASSED_OVER.contains(&&*name) {
                    continue;
                }
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if name != "Cargo.lock" && !name.ends_with(".log") && !is_of_editor(&name) {
                    files.insert(entry.path(), (metadata.modified().ok(), metadata.len()));
                }
            }
        }
        Self(files)
    }

    /// The files that are not as they were before.
    fn changed_since(&self, before: &Self) -> BTreeSet<PathBuf> {
        let new = self.0.iter().filter(|(path, is)| before.0.get(*path) != Some(is));
        let gone = before.0.iter().filter(|(path, _)| !self.0.contains_key(*path));
        new.chain(gone).map(|(path, _)| path.clone()).collect()
    }
}

/// A package whose files are looked at.
#[derive(Debug)]
pub(super) struct Watched {
    package: PathBuf,
    files: Files,
    /// Changes after which not all files have stood still for one look: whoever saves saves several.
    changed: BTreeSet<PathBuf>,
}

impl Watched {
    pub(super) fn of(package: &Path) -> Self {
        Self { package: package.to_owned(), files: Files::below(package), changed: BTreeSet::new() }
    }

    /// Waits until a file has changed, and none changes any more; which ones, as seen from the package. Cancel-safe.
    pub(super) async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            sleep(LOOK_EVERY).await;
            let now = Files::below(&self.package);
            let changed = now.changed_since(&self.files);
            self.files = now;
            if !changed.is_empty() {
                self.changed.extend(changed);
            } else if !self.changed.is_empty() {
                let seen =
                    |path: PathBuf| path.strip_prefix(&self.package).map(Path::to_owned).unwrap_or(path);
                return std::mem::take(&mut self.changed).into_iter().map(seen).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_source_is_seen_and_what_builds_and_runs_leave_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        write("src/room.rs", "a");
        let before = Files::below(folder.path());
        let of_builds = ["target/debug/x", "data/x.sqlite", "Cargo.lock", "master.log", ".git/HEAD"];
        let of_editors =
            [".room.rs.swp", "room.rs~", "#room.rs#", ".#room.rs", "room.swp", "room.rs.tmp", "4913"];
        let of_editors = of_editors.map(|file| format!("src/{file}"));
        for file in of_builds.into_iter().chain(of_editors.iter().map(String::as_str)) {
            write(file, "left");
            assert!(Files::below(folder.path()).changed_since(&before).is_empty(), "{file}");
        }
        let changed = write("src/room.rs", "ab");
        assert_eq!(Files::below(folder.path()).changed_since(&before), [changed].into());
        let new = write("web/index.html", "");
        let now = Files::below(folder.path());
        fs::remove_file(&new).unwrap();
        assert_eq!(Files::below(folder.path()).changed_since(&now), [new].into());
    }

    #[tokio::test(start_paused = true)]
    async fn several_files_that_are_saved_are_one_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut watched = Watched::of(folder.path());
        for file in ["a.rs", "b.html"] {
            fs::write(folder.path().join(file), "a").unwrap();
        }
        let changed = watched.changed().await;
        assert_eq!(changed, [Path::new("a.rs"), Path::new("b.html")]);
        assert_eq!(changed.iter().map(|file| is_of_page(file)).collect::<Vec<_>>(), [false, true]);
        let quiet = tokio::time::timeout(Duration::from_secs(5), watched.changed());
        assert!(quiet.await.is_err(), "nothing more has changed");
    }
}
