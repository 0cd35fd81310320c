//! The supervisor: one task that owns the machine, the processes, the sockets and the control connections.
//!
//! It decides nothing: every fact goes into [`machine::Machine`], and what comes out is done in order.

mod adopted;
pub(crate) mod control;
pub(crate) mod event;
pub mod feed;
mod handle;
mod keeper;
pub mod machine;
pub(crate) mod operators;
pub mod order;
pub mod plan;
pub(crate) mod prepare;
pub(crate) mod proc;
pub mod process;
pub mod program;
pub(crate) mod rotation;
mod shell;

pub use adopted::Adopted;
pub use event::Order;
pub use handle::Handle;
pub(crate) use handle::result_of;
#[cfg(test)]
pub(crate) use shell::moment;

pub(crate) use shell::{Parts, Shell, TakenOver};
