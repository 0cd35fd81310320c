//! The errors of sessions: why one is not changed, and why one is not moved.

use ffproto::NodeName;

use crate::error::CallError;
use crate::session::local::StateTooLarge;

/// Why a session's state was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The session has ended.
    #[error("the session is gone")]
    Gone,
    /// User and attributes would take more than `limits.session_state_bytes_max`.
    #[error("user and attributes of {bytes} bytes are above limits.session_state_bytes_max = {max}")]
    TooLarge {
        /// The bytes that they would take.
        bytes: usize,
        /// The bytes that they may take.
        max: usize,
    },
    /// The user has another session, and the config says `"second_login": "refuse_new"`.
    #[error("the user has another session")]
    UserTaken,
    /// A user without a name.
    #[error("a user's name is not empty")]
    NoName,
    /// The session is in `limits.session_groups_max` groups, or the group's name is longer than 128 bytes.
    #[error("the session is in limits.session_groups_max groups, or the name is above 128 bytes")]
    TooManyGroups,
    /// The session's net node could not be asked, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a session is not moved: everything stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// The session has ended.
    #[error("the session is gone")]
    Gone,
    /// The session's net node does not reach a node of that name now.
    #[error("no node `{0}` is reached")]
    NoNode(NodeName),
    /// No command of the session's net node goes to nodes of that kind.
    #[error("no command goes to nodes of the kind `{0}`")]
    NotRouted(String),
    /// Another move of the session is under way.
    #[error("the session is being moved already")]
    Moving,
    /// More than `limits.frame_bytes_max` shall go with it.
    #[error("{bytes} bytes shall go with the session, above limits.frame_bytes_max = {max}")]
    TooLarge {
        /// The bytes that shall go.
        bytes: usize,
        /// The bytes that may go.
        max: usize,
    },
    /// The session's net node could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<StateTooLarge> for SessionError {
    fn from(StateTooLarge { bytes, max }: StateTooLarge) -> Self {
        Self::TooLarge { bytes, max }
    }
}
