//! `appmain` with the apps of the tests, whose clients may speak lines.

use std::process::ExitCode;

/// The same as `appmain`'s.
#[global_allocator]
static ALLOCATOR: ffalloc::Allocator = ffalloc::Allocator;

fn main() -> ExitCode {
    appmain::main(authors::speaking_lines)
}
