//! `appmain` with the apps that `bench` measures.

use std::process::ExitCode;

/// The same as `appmain`'s.
#[global_allocator]
static ALLOCATOR: ffalloc::Allocator = ffalloc::Allocator;

fn main() -> ExitCode {
    appmain::main(benchapps::all)
}
