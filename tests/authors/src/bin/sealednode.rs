//! `appmain` with the apps of the tests, whose clients come over a transport that seals, and travels.

use std::process::ExitCode;

/// The same as `appmain`'s.
#[global_allocator]
static ALLOCATOR: ffalloc::Allocator = ffalloc::Allocator;

fn main() -> ExitCode {
    appmain::main(authors::sealed)
}
