//! The test kit: a cluster of an author's own apps in the test's process, handlers called as functions, a clock that the test moves.
//!
//! A match of two players, on the author's own config:
//!
//! ```
//! use ffserver::prelude::*;
//! use ffserver::testing::Cluster;
//!
//! # const CONFIG: &str = r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": {
//! #     "net": { "app": "net", "netport": 3 } } }"#;
//! #[net_handle(1)]
//! async fn greet(Body(name): Body<String>, node: Node) -> String {
//!     node.broadcasts().to_all(CommandId(10), name.as_bytes());
//!     format!("hello, {name}")
//! }
//!
//! fn apps() -> Vec<App> {
//!     vec![App::new("net").handlers(handlers![greet])]
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! // In a test: `Cluster::start("config.json", apps)`.
//! let cluster = Cluster::start_text(CONFIG, apps).await?;
//! let (mut ann, mut bob) = (cluster.client("net")?, cluster.client("net")?);
//! assert_eq!(ann.call(1, "ann").await?, "hello, ann");
//! assert_eq!(bob.push(10).await?, "ann");
//! cluster.stop().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Cluster`]: every node of a config, started, killed, cut from others and delayed by call;
//! - [`Client`]: a player, over memory: nothing of it waits for a socket;
//! - [`paused`]: a test on a clock that stands, until the test moves it;
//! - [`node`], [`session`], [`table`], [`parent`]: what handlers take, for calling them as functions;
//! - the seed: all that nodes draw by chance comes from one number, which a test prints when it fails and which `FF_SEED` replays.
//!
//! With words, and one example for each: `docs/testing.md` in the repository.

mod adapted;
mod client;
mod clock;
mod cluster;
mod error;
mod folder;
mod made;
mod seat;
mod seed;
mod transport;

pub use client::{Client, Message};
pub use clock::{PausedClock, paused};
pub use cluster::{Cluster, Setup};
pub use error::{ClientError, NodeError, StartError};
pub use made::{MadeNode, MadeParent, MadeSession, MadeTable, node, node_with, parent, session, table};
pub use seed::BadSeed;
