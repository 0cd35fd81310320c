//! One node of own-game. The master starts it for each node of config.json.

fn main() -> std::process::ExitCode {
    ffserver::main(own_game::apps)
}
