//! The program with the apps of the tests, whose clients may speak lines.

fn main() -> std::process::ExitCode {
    ffserver::main(authors::speaking_lines)
}
