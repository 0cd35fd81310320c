//! `master new NAME`: the folder of a game of one's own, outside this repository, which builds and plays as it is.
//!
//! What it writes is `examples/own-game` of this repository, under another name: so the example is the template.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The name of the example, in texts and, as Rust writes it, in code.
const NAME: &str = "own-game";
const CRATE: &str = "own_game";
/// Where the example finds the framework.
const FRAMEWORK: &str = "path = \"../../";

/// Every file of the example.
const FILES: [(&str, &str); 14] = [
    ("Cargo.toml", include_str!("../../examples/own-game/Cargo.toml")),
    (".gitignore", include_str!("../../examples/own-game/.gitignore")),
    ("README.md", include_str!("../../examples/own-game/README.md")),
    ("config.json", include_str!("../../examples/own-game/config.json")),
    ("own-game.service", include_str!("../../examples/own-game/own-game.service")),
    ("migrations/1_score.sql", include_str!("../../examples/own-game/migrations/1_score.sql")),
    ("src/main.rs", include_str!("../../examples/own-game/src/main.rs")),
    ("src/lib.rs", include_str!("../../examples/own-game/src/lib.rs")),
    ("src/net.rs", include_str!("../../examples/own-game/src/net.rs")),
    ("src/room.rs", include_str!("../../examples/own-game/src/room.rs")),
    ("src/bin/clienttest.rs", include_str!("../../examples/own-game/src/bin/clienttest.rs")),
    ("tests/plays.rs", include_str!("../../examples/own-game/tests/plays.rs")),
    ("web/index.html", include_str!("../../examples/own-game/web/index.html")),
    (".github/workflows/ci.yml", include_str!("../../examples/own-game/.github/workflows/ci.yml")),
];

/// Names that are no names of a crate: Rust's own words and crates, those of the game's dependencies and of the program beside it, and
/// folders of cargo's, as which it makes no program.
const TAKEN: [&str; 62] = [
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "clienttest",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "ffclient",
    "ffserver",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "master",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "rocket",
    "self",
    "serde",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "tokio",
    "trait",
    "true",
    "try",
    "type",
    "unsafe",
    "use",
    "virtual",
    "where",
    "while",
];
const NAME_CHARS_MAX: usize = 64;

/// Where a game finds the framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framework {
    /// In a checkout on this machine.
    Path(PathBuf),
    /// In a repository.
    Git(String),
}

/// Why there is no new game. Nothing is left of it, and nothing of anybody's was touched.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The name is none of a crate.
    #[error("`{name}` is no name for a game: {why}")]
    Name {
        /// The name as it was given.
        name: String,
        /// What a name is.
        why: &'static str,
    },
    /// There is something of that name.
    #[error("{} is there already: a new game gets a folder of its own", .0.display())]
    Exists(PathBuf),
    /// There is no framework.
    #[error(
        "there is no checkout of the framework in {} (no ffserver/Cargo.toml): --path FOLDER or --git URL says where it is",
        .0.display()
    )]
    NoFramework(PathBuf),
    /// The folder cannot be written.
    #[error("{}", path.display())]
    Write {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Framework {
    /// The checkout that this program was built from.
    pub fn of_this_program() -> Self {
        Self::Path(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned())
    }

    /// The lock file of the framework, by which a game gets the same releases of everything below it.
    fn lock(&self) -> Option<String> {
        let Self::Path(folder) = self else { return None };
        fs::read_to_string(folder.join("Cargo.lock")).ok()
    }

    fn checked(self) -> Result<Self, NewError> {
        let Self::Path(folder) = self else { return Ok(self) };
        match folder.canonicalize() {
            Ok(folder) if folder.join("ffserver/Cargo.toml").is_file() => Ok(Self::Path(folder)),
            _ => Err(NewError::NoFramework(folder)),
        }
    }

    /// The text with its dependencies on the framework.
    fn written_in(&self, manifest: &str) -> String {
        match self {
            Self::Path(folder) => manifest
                .replace(FRAMEWORK, &format!("path = \"{}/", folder.display().to_string().escape_default())),
            Self::Git(url) => {
                let line = |line: &str| match line.split_once(FRAMEWORK) {
                    Some((before, _)) => format!("{before}git = \"{}\" }}", url.escape_default()),
                    None => line.to_owned(),
                };
                manifest.lines().map(|of| line(of) + "\n").collect()
            }
        }
    }
}

/// Makes the folder NAME in `folder`. All of it is there at the end, or nothing.
///
/// # Errors
/// [`NewError`].
pub fn create(folder: &Path, name: &str, framework: Framework) -> Result<PathBuf, NewError> {
    check(name)?;
    let framework = framework.checked()?;
    let (at, new) = (folder.join(name), folder.join(format!(".{name}.new-{}", std::process::id())));
    if at.symlink_metadata().is_ok() {
        return Err(NewError::Exists(at));
    }
    let written = write(&new, name, &framework).and_then(|()| {
        // Renaming never replaces a folder in which there is something.
        fs::rename(&new, &at).map_err(|source| NewError::Write { path: at.clone(), source })
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    written.map(|()| at)
}

fn write(folder: &Path, name: &str, framework: &Framework) -> Result<(), NewError> {
    let write = |file: &str, text: &str| {
        let path = folder.join(file);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        made.map_err(|source| NewError::Write { path, source })
    };
    for (file, text) in FILES {
        let text = match file {
            "Cargo.toml" => framework.written_in(text),
            _ => text.to_owned(),
        };
        write(&renamed(file, name), &renamed(&text, name))?;
    }
    framework.lock().map_or(Ok(()), |lock| write("Cargo.lock", &lock))
}

fn renamed(text: &str, name: &str) -> String {
    text.replace(NAME, name).replace(CRATE, &name.replace('-', "_"))
}

fn check(name: &str) -> Result<(), NewError> {
    let why = if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        "it begins with a letter from a to z"
    } else if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_') {
        "it has small letters from a to z, digits, `-` and `_` (the folder is made where you are)"
    } else if name.len() > NAME_CHARS_MAX {
        "it has at most 64 characters"
    } else if TAKEN.contains(&name) {
        "Rust, cargo, the framework or a dependency has that name"
    } else {
        return Ok(());
    };
    Err(NewError::Name { name: name.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout() -> PathBuf {
        let Framework::Path(folder) = Framework::of_this_program() else { panic!("no path") };
        folder
    }

    fn files_below(folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // What a build and a run leave there.
            if path.ends_with("target") || path.ends_with("data") || path.ends_with("Cargo.lock") {
                continue;
            }
            if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
        }
        files.sort();
        files
    }

    #[test]
    fn the_example_is_what_is_written() {
        let (folder, example) = (tempfile::tempdir().unwrap(), checkout().join("examples/own-game"));
        let made = create(folder.path(), "own-game", Framework::of_this_program()).unwrap();
        let names = |of: &Path| -> Vec<PathBuf> {
            files_below(of).iter().map(|file| file.strip_prefix(of).unwrap().to_owned()).collect()
        };
        assert_eq!(names(&made), names(&example));
        for file in names(&made) {
            let expected = fs::read_to_string(example.join(&file)).unwrap();
            let expected =
                expected.replace("path = \"../../", &format!("path = \"{}/", checkout().display()));
            assert_eq!(fs::read_to_string(made.join(&file)).unwrap(), expected, "{}", file.display());
        }
        assert!(made.join("Cargo.lock").exists());
    }

    #[test]
    fn another_name_is_everywhere_and_the_framework_may_be_in_a_repository() {
        let folder = tempfile::tempdir().unwrap();
        let git = Framework::Git("https://example.org/ff.git".into());
        let made = create(folder.path(), "space-race", git).unwrap();
        for file in files_below(&made) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(!text.contains(NAME) && !text.contains(CRATE), "{}: {text}", file.display());
        }
        let manifest = fs::read_to_string(made.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("\nffserver = { git = \"https://example.org/ff.git\" }\n"), "{manifest}");
        assert!(manifest.contains("\nffclient = { git = \"https://example.org/ff.git\" }\n"), "{manifest}");
        assert!(fs::read_to_string(made.join("src/main.rs")).unwrap().contains("space_race::apps"));
        assert!(made.join("space-race.service").exists() && !made.join("Cargo.lock").exists());
    }

    #[test]
    fn what_is_no_name_and_what_is_there_already_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let new = |name: &str| create(folder.path(), name, Framework::of_this_program());
        for name in [
            "",
            "fn",
            "self",
            "clienttest",
            "../up",
            "a/b",
            "/tmp/x",
            "Game",
            "1st",
            "-x",
            "sp ace",
            "ä",
            ".",
            "ffserver",
            "tokio",
            "build",
        ] {
            assert!(matches!(new(name), Err(NewError::Name { .. })), "{name}");
        }
        assert!(new(&"a".repeat(65)).is_err());
        fs::create_dir(folder.path().join("taken")).unwrap();
        fs::write(folder.path().join("file"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        for name in ["taken", "file", "link"] {
            assert!(matches!(new(name), Err(NewError::Exists(_))), "{name}");
        }
        assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        let nowhere = create(folder.path(), "game", Framework::Path("/nowhere".into()));
        assert!(matches!(nowhere, Err(NewError::NoFramework(_))));
    }
}
