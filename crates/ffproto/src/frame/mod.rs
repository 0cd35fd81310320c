//! What game clients speak. Only this module and `ffserver::net` know client framings.

pub mod firefly;

pub use firefly::{Firefly, Frame, FrameFault};
