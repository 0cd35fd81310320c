//! The supervisor: one task that owns the machine, the processes, the sockets and the control connections.
//!
//! It decides nothing: every fact goes into [`machine::Machine`], and what comes out is done in order.

pub(crate) mod control;
pub(crate) mod event;
mod handle;
pub mod machine;
pub mod order;
pub(crate) mod prepare;
pub mod process;
mod shell;

pub use event::Order;
pub use handle::Handle;
pub use prepare::Source;
pub(crate) use shell::moment;

pub(crate) use shell::Shell;
