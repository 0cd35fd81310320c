//! `appmain` with the apps of the tests beside the sample's.

use std::process::ExitCode;

/// The same as `appmain`'s.
#[global_allocator]
static ALLOCATOR: ffalloc::Allocator = ffalloc::Allocator;

fn main() -> ExitCode {
    appmain::main(testapps::all)
}
