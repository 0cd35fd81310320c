//! One node of a cluster, with the apps of `apps`.

use std::process::ExitCode;

/// A handler that waits is a task, and tokio's tasks begin on cache lines: glibc takes a slow way for those
/// (docs/performance.md has what this saves). How soon memory that is free goes back to the system: `MIMALLOC_PURGE_DELAY`
/// in milliseconds, which the master sets.
#[global_allocator]
static ALLOCATOR: ffalloc::Allocator = ffalloc::Allocator;

fn main() -> ExitCode {
    appmain::main(apps::all)
}
