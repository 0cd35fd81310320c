//! Runs authors' code: in order, within a deadline, with its panics caught.

pub(crate) mod affinity_sweep;
pub(crate) mod app_commands;
pub(crate) mod current_tables;
pub(crate) mod deadlines;
pub(crate) mod events;
pub(crate) mod execution;
pub(crate) mod executor;
pub(crate) mod handlers;
pub(crate) mod methods;
pub(crate) mod panics;
pub(crate) mod replicas;
pub(crate) mod tables;
