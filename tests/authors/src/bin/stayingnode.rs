//! The program with the apps of the tests, whose clients come over a transport that seals, and does not travel.

fn main() -> std::process::ExitCode {
    ffserver::main(authors::staying)
}
