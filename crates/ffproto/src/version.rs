//! The versions of everything that nodes and masters say to each other: the range of a program, and what two programs share.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of what nodes and masters say to each other: handshake, control messages, envelopes, hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u16);

impl Version {
    /// From here on a node tells its master its release, see [`crate::control::ToMaster::Release`].
    pub const RELEASE: Self = Self(4);
    /// From here on a node answers the questions of operators, see [`crate::question`]. One that speaks an older version is said to be
    /// too old, and not asked.
    pub const QUESTIONS: Self = Self(4);
    /// From here on a node takes orders about its log, see [`crate::control::LogOrder`].
    pub const LOG_ORDERS: Self = Self(4);

    /// Whether it has what came with `other`.
    pub fn has(self, other: Self) -> bool {
        self >= other
    }
}

/// The versions that a program speaks: those of this release and of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest.
    pub min: Version,
    /// The newest.
    pub max: Version,
}

/// Why a program cannot speak a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this release speaks {} of the protocol between nodes, and not `{asked}`", Versions::OURS)]
pub struct NotSpoken {
    /// What was asked for.
    pub asked: String,
}

impl Versions {
    /// The first version that is negotiated at all. Programs before it speak one version each.
    pub const FIRST_NEGOTIATED: Version = Version(3);
    /// Those of this release.
    pub const OURS: Self = Self { min: Version(3), max: Version(4) };

    /// Those of a program that is told to speak one version only (`FF_SPEAK`): as the release before this one does.
    ///
    /// # Errors
    /// [`NotSpoken`] when this release does not speak it.
    pub fn told(asked: Option<&str>) -> Result<Self, NotSpoken> {
        let Some(asked) = asked else { return Ok(Self::OURS) };
        let version = asked.parse().map(Version).ok();
        let version = version.filter(|version| (Self::OURS.min..=Self::OURS.max).contains(version));
        let version = version.ok_or_else(|| NotSpoken { asked: asked.chars().take(20).collect() })?;
        Ok(Self { min: version, max: version })
    }

    /// The newest version of both; `None` when there is none.
    pub fn with(self, theirs: Self) -> Option<Version> {
        let both = self.max.min(theirs.max);
        (both >= self.min && both >= theirs.min).then_some(both)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min.0, self.max.0) {
            (one, other) if one == other => write!(f, "version {one}"),
            (first, last) => write!(f, "versions {first} to {last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_speaks_two_versions_or_the_one_that_it_is_told() {
        assert_eq!(Versions::told(None), Ok(Versions::OURS));
        let older = Versions::told(Some("3")).unwrap();
        assert_eq!((older.min, older.max), (Version(3), Version(3)));
        for wrong in ["2", "5", "", "x", "-3", "99999"] {
            assert!(Versions::told(Some(wrong)).is_err(), "{wrong}");
        }
        let error = Versions::told(Some("2")).unwrap_err().to_string();
        assert_eq!(error, "this release speaks versions 3 to 4 of the protocol between nodes, and not `2`");
    }
}
