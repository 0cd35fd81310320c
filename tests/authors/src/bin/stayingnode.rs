//! `appmain` with the apps of the tests, whose clients come over a transport that seals, and does not travel.

use std::process::ExitCode;

/// The same as `appmain`'s.
#[global_allocator]
static ALLOCATOR: ffalloc::Allocator = ffalloc::Allocator;

fn main() -> ExitCode {
    appmain::main(authors::staying)
}
