//! One node of a cluster, with the apps of the sample. A program of one's own is this one with other apps.

fn main() -> std::process::ExitCode {
    ffserver::main(apps::all)
}
