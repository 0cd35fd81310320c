//! The keys of a cluster: who a node is, proven. Values only, no I/O.
//!
//! * [`ClusterSecret`] — what only masters have: random bytes, or what a token is stretched to;
//! * [`ClusterKeys`] — a master's: signs starts of nodes and name keys;
//! * [`NodeKeys`] — what one start of a node has: its own key, its credential, and the public keys to check others by;
//! * [`NameKey`] — what a key file holds: makes the keys of starts of one name;
//! * [`TrustRoots`] — the public keys that credentials are checked by: the current one and, until the next rotation, the
//!   one before it;
//! * [`operator_token`] — what an operator shows at the master's webport, and its hash, which the config has;
//! * [`TokenCheck`] — by which nodes of releases before knew the cluster's token.
//!
//! A node never gets the secret, nor a key that signs for others: what is stolen from it makes nobody else.

mod cluster;
mod key;
mod name_key;
mod node;
mod operator;
mod roots;
mod secret;
mod token;

pub use cluster::ClusterKeys;
pub use key::KeyError;
pub use name_key::NameKey;
pub use node::NodeKeys;
pub use operator::{operator_hash, operator_token};
pub use roots::{CredentialFault, TrustRoots, verify};
pub use secret::{BadSecret, ClusterSecret};
pub use token::TokenCheck;
