//! The dev notice: what the pages of a game show while it is written. The nodes serve it from a file.

use std::fs;
use std::path::{Path, PathBuf};

use ffnet::private_file;
use serde::Serialize;
use tracing::warn;

/// How much of the compiler's errors a page shows: the first ones are the causes of the others.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// What is known of a game that is written: what is wrong with it, and what is done about that.
#[derive(Debug, Default)]
pub(super) struct GameStatus {
    /// Why the program does not build.
    build: Option<String>,
    /// Why the newest program, or the config, is not live.
    reload: Option<String>,
    doing: &'static str,
    /// How often the page has changed.
    pages: u32,
    page: PageChange,
    asked: Reload,
}

/// A change of what browsers have loaded.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum PageChange {
    #[default]
    None,
    /// No reload has begun since.
    New,
    /// It comes with the reload that runs.
    OnTheWay,
}

/// The reload that was asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Reload {
    #[default]
    None,
    Runs,
    /// It runs, and another one is to follow: what was built since is newer.
    RunsBeforeAnother,
}

/// What the pages are told, as JSON; see `ffnet::launch::DEV_ENV`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Notice {
    page: String,
    title: &'static str,
    text: String,
    note: &'static str,
    doing: &'static str,
}

impl GameStatus {
    /// A file that browsers have loaded has changed.
    pub(super) fn page_has_changed(&mut self) {
        self.page = PageChange::New;
    }

    /// The build begins.
    pub(super) fn builds(&mut self) {
        self.doing = "building …";
    }

    /// The build has failed.
    pub(super) fn does_not_build(&mut self, why: String) {
        self.build = Some(why);
        self.doing = if self.asked == Reload::None { "" } else { RELOADING };
    }

    /// What was built is to go live. True when the cluster is to be asked for that now, and not after the reload that runs.
    pub(super) fn is_built(&mut self) -> bool {
        self.build = None;
        self.doing = RELOADING;
        match self.asked {
            Reload::None => {
                self.begin_reload();
                true
            }
            Reload::Runs | Reload::RunsBeforeAnother => {
                self.asked = Reload::RunsBeforeAnother;
                false
            }
        }
    }

    /// A reload is over. True when another one is to be asked for.
    pub(super) fn is_reloaded(&mut self, outcome: Result<(), String>) -> bool {
        match (&outcome, self.page) {
            (Ok(()), PageChange::OnTheWay) => {
                self.pages += 1;
                self.page = PageChange::None;
            }
            (Err(_), PageChange::OnTheWay) => self.page = PageChange::New,
            _ => {}
        }
        self.reload = outcome.err();
        if self.asked == Reload::RunsBeforeAnother {
            self.begin_reload();
            return true;
        }
        self.asked = Reload::None;
        if self.doing == RELOADING {
            self.doing = "";
        }
        false
    }

    fn begin_reload(&mut self) {
        self.asked = Reload::Runs;
        if self.page == PageChange::New {
            self.page = PageChange::OnTheWay;
        }
    }

    /// The cluster has started with what was built, or has ended: nothing of before is under way.
    pub(super) fn begins_anew(&mut self) {
        self.asked = Reload::None;
        if self.page != PageChange::None {
            self.pages += 1;
        }
        *self = Self { build: self.build.take(), pages: self.pages, ..Self::default() };
    }

    /// What pages are told; `start` is another one for each `master dev`.
    pub(super) fn notice(&self, start: &str) -> Notice {
        let page = format!("{start}-{}", self.pages);
        let doing = self.doing;
        let (title, text, note) = match (&self.build, &self.reload) {
            (Some(why), _) => ("The game does not build", why, "The last program that did build serves on."),
            (None, Some(why)) => ("The change is not live", why, "What ran before serves on."),
            (None, None) => return Notice { page, title: "", text: String::new(), note: "", doing },
        };
        let end = text.floor_char_boundary(TEXT_BYTES_MAX);
        let text = match text.get(..end) {
            Some(cut) if end < text.len() => format!("{cut}\n… the terminal has the rest"),
            _ => text.clone(),
        };
        Notice { page, title, text, note, doing }
    }
}

const RELOADING: &str = "reloading …";

/// The file of the notice, which is removed with this.
#[derive(Debug)]
pub(super) struct NoticeFile {
    path: PathBuf,
    written: Option<Notice>,
}

impl NoticeFile {
    /// In a folder of this user's own.
    pub(super) fn in_folder(folder: &Path) -> Self {
        // A second `master dev` of the same game is one too many, and does not speak for the first.
        Self { path: folder.join(format!("dev-{}.json", std::process::id())), written: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the pages. When that fails, they show what they were told before.
    pub(super) fn write(&mut self, notice: Notice) {
        if self.written.as_ref() == Some(&notice) {
            return;
        }
        let text = serde_json::to_string(&notice).unwrap_or_default();
        match private_file::replace(&self.path, &text) {
            Ok(()) => self.written = Some(notice),
            Err(error) => warn!("{}: {error}: the page of the game is not told", self.path.display()),
        }
    }
}

impl Drop for NoticeFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        // Only when nothing else is left in there.
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: &GameStatus) -> (String, &'static str, String, &'static str) {
        let Notice { page, title, text, doing, .. } = status.notice("s");
        (page, title, text, doing)
    }

    #[test]
    fn an_error_is_told_until_the_build_that_mends_it_and_its_page_is_new_when_the_reload_is_over() {
        let mut status = GameStatus::default();
        status.page_has_changed();
        status.builds();
        status.does_not_build("error: no".into());
        assert_eq!(told(&status), ("s-0".into(), "The game does not build", "error: no".into(), ""));
        status.builds();
        assert!(status.is_built());
        assert_eq!(told(&status), ("s-0".into(), "", String::new(), "reloading …"));
        assert!(!status.is_reloaded(Ok(())));
        assert_eq!(told(&status), ("s-1".into(), "", String::new(), ""));
    }

    #[test]
    fn what_is_built_while_a_reload_runs_goes_live_after_it() {
        let mut status = GameStatus::default();
        assert!(status.is_built());
        status.page_has_changed();
        assert!(!status.is_built() && !status.is_built());
        assert!(status.is_reloaded(Ok(())), "another one is asked for");
        assert_eq!(told(&status).0, "s-0", "the page comes with that one");
        assert!(!status.is_reloaded(Ok(())));
        assert_eq!(told(&status).0, "s-1");
    }

    #[test]
    fn a_reload_that_failed_is_told_until_one_does_not_and_keeps_the_page_as_it_was() {
        let mut status = GameStatus::default();
        status.page_has_changed();
        assert!(status.is_built());
        assert!(!status.is_reloaded(Err("config.json: 1 fault".into())));
        assert_eq!(
            told(&status),
            ("s-0".into(), "The change is not live", "config.json: 1 fault".into(), "")
        );
        assert!(status.is_built());
        assert_eq!(told(&status).1, "The change is not live", "it is not mended yet");
        assert!(!status.is_reloaded(Ok(())));
        assert_eq!(told(&status), ("s-1".into(), "", String::new(), ""));
    }

    #[test]
    fn a_long_error_is_cut() {
        let mut status = GameStatus::default();
        status.does_not_build("ä".repeat(TEXT_BYTES_MAX));
        let (_, _, text, _) = told(&status);
        assert!(text.len() < TEXT_BYTES_MAX + 50 && text.ends_with("… the terminal has the rest"));
    }

    #[test]
    fn the_file_is_as_pages_read_it_and_goes_with_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("run");
        fs::create_dir(&at).unwrap();
        let mut file = NoticeFile::in_folder(&at);
        let mut status = GameStatus::default();
        status.does_not_build("<b>\n".into());
        file.write(status.notice("7"));
        let read: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(file.path()).unwrap()).unwrap();
        assert_eq!((&read["page"], &read["text"]), (&"7-0".into(), &"<b>\n".into()));
        drop(file);
        assert!(!at.exists());
    }
}
