//! The live view of a cluster, `master top`: looks every second, draws, and obeys keys.

mod draw;
mod keys;
mod model;
mod terminal;

use std::time::Duration;

use ratatui_core::terminal::Terminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::client::{AskError, Client};
use super::exit;
use super::screen::Screen;
use super::status::Status;
use keys::Key;
use model::Model;
use terminal::{Ansi, RawTerminal};

/// How often the master is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Shows it until `q` or Ctrl-C; a master that is gone is looked for.
pub(super) async fn show(client: &Client, screen: &Screen) -> Result<u8, AskError> {
    // Who may not look is told so in one line, before the terminal is taken.
    let mut model = Model::default();
    look(client, &mut model).await?;
    let hang_up = signal(SignalKind::hangup()).map_err(AskError::Output)?;
    let term = signal(SignalKind::terminate()).map_err(AskError::Output)?;
    let resized = signal(SignalKind::window_change()).map_err(AskError::Output)?;
    let terminal = RawTerminal::enter()?;
    let shown = run(client, model, screen, (hang_up, term, resized)).await;
    terminal.leave();
    shown
}

type Signals = (tokio::signal::unix::Signal, tokio::signal::unix::Signal, tokio::signal::unix::Signal);

async fn run(
    client: &Client,
    mut model: Model,
    screen: &Screen,
    (mut hang_up, mut term, mut resized): Signals,
) -> Result<u8, AskError> {
    let mut terminal = Terminal::new(Ansi::default()).map_err(AskError::Output)?;
    let mut keys = keys::of_stdin();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let drawn = terminal.draw(|frame| draw::draw(&mut model, screen.colours, frame.buffer_mut()));
        drawn.map_err(AskError::Output)?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(Key::Quit) => return Ok(exit::DONE),
                // Without a standard input nobody could end it.
                Some(Key::Interrupt) | None => return Ok(exit::INTERRUPTED),
                Some(key) => model.obey(key),
            },
            _ = resized.recv() => {}
            _ = hang_up.recv() => return Ok(exit::INTERRUPTED),
            _ = term.recv() => return Ok(exit::INTERRUPTED),
            looked = async { ticks.tick().await; look(client, &mut model).await } => match looked {
                Err(AskError::NoMaster { why, .. }) => model.gone(why, Instant::now()),
                looked => looked?,
            },
        }
    }
}

/// Looks at the master. Cancel-safe: what came so far is dropped.
async fn look(client: &Client, model: &mut Model) -> Result<(), AskError> {
    let status = Status::of(client).await?;
    let metrics = client.get("/metrics").await?;
    if !metrics.is_good() {
        return Err(client.refusal(&metrics));
    }
    model.seen(status, model::counters(&metrics.text), Instant::now());
    Ok(())
}
