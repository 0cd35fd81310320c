//! The framings of game clients, as functions over bytes: [`protocol`](crate::protocol) makes protocols of them.

pub mod firefly;
pub mod json;
pub mod upgrade;
pub mod websocket;

pub use firefly::{Firefly, Frame, FrameFault};
