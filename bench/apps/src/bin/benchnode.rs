//! The program with the apps that `bench` measures.

fn main() -> std::process::ExitCode {
    ffserver::main(benchapps::all)
}
