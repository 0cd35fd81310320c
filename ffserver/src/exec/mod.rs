//! Runs what authors write: in order, within a deadline, with its panics caught.

pub(crate) mod affinity_sweep;
pub(crate) mod dispatch;
pub(crate) mod execution;
pub(crate) mod replicas;
pub(crate) mod verified;
