//! The build script: tells the crate its version, with the commit and the time of the build.

#![allow(clippy::print_stdout, missing_docs)]

#[path = "../build/version.rs"]
mod version;

fn main() {
    version::tell();
}
