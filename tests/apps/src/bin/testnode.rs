//! The program with the apps of the tests beside the sample's.

fn main() -> std::process::ExitCode {
    ffserver::main(testapps::all)
}
