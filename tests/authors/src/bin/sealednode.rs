//! The program with the apps of the tests, whose clients come over a transport that seals, and travels.

fn main() -> std::process::ExitCode {
    ffserver::main(authors::sealed)
}
