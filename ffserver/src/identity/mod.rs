//! What a node is and how it fares: the word to stop, its counters, and the watch of its loop.

pub(crate) mod counters;
pub(crate) mod stop;
pub(crate) mod watchdog;
