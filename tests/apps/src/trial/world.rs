//! A world that counts its requests, all of them and those of each client, and that a successor takes over.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ffserver::prelude::*;

use super::Gate;
use super::misbehaves;

/// The form in which the world is handed over.
const VERSION: u32 = 1;

#[derive(Default)]
pub(super) struct World(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: u64,
    by_client: HashMap<u64, u64>,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more request of the client whose number is in `text`: `ALL OWN NODE`.
    fn count(&self, node: &Node, text: &str) -> Result<String, HandlerError> {
        let client = text.parse()?;
        let mut counts = self.lock();
        counts.all += 1;
        let all = counts.all;
        let own = counts.by_client.entry(client).or_default();
        *own += 1;
        Ok(format!("{all} {own} {}", node.name()))
    }

    /// A line for all, and one for each client.
    fn freeze(&self) -> Vec<u8> {
        let counts = self.lock();
        let each = counts.by_client.iter().map(|(client, own)| format!("{client} {own}\n"));
        format!("{}\n{}", counts.all, each.collect::<String>()).into_bytes()
    }

    fn thaw(&self, bytes: &[u8]) -> Result<(), HandlerError> {
        let text = std::str::from_utf8(bytes)?;
        let mut lines = text.lines();
        let all = lines.next().ok_or_else(|| HandlerError::new("an empty world"))?.parse()?;
        let by_client = lines.map(|line| {
            let (client, own) = line.split_once(' ').ok_or_else(|| HandlerError::new("CLIENT OWN"))?;
            Ok((client.parse()?, own.parse()?))
        });
        let by_client = by_client.collect::<Result<_, HandlerError>>()?;
        *self.lock() = Counts { all, by_client };
        Ok(())
    }
}

fn world(node: &Node) -> Result<std::sync::Arc<World>, HandlerError> {
    node.state().ok_or_else(|| HandlerError::new("the app has no world"))
}

/// An app with a world that is handed over, and that does wrong what it is told to.
pub(super) fn with_world(app: App) -> App {
    app.state(World::default())
        .freeze(VERSION, |node| async move {
            misbehaves::at_freeze(&node).await;
            Ok(world(&node)?.freeze())
        })
        .thaw(|node, frozen| async move {
            misbehaves::at_thaw(&node)?;
            match frozen.version {
                VERSION => world(&node)?.thaw(&frozen.bytes),
                other => Err(HandlerError::new(format!("a world of version {other}"))),
            }
        })
}

/// Counted by net.
#[net_handle(17)]
pub(super) async fn counted_here(
    world: State<World>,
    node: Node,
    Body(text): Body<String>,
) -> Result<String, HandlerError> {
    world.count(&node, &text)
}

/// Counted by gate.
#[net_handle(16)]
pub(super) async fn counted_at_gate(gate: Parent<Gate>, Body(text): Body<Bytes>) -> Result<Bytes, CallError> {
    gate.call("gate_counts", text).await
}

/// Counted by a game node, through handlers.
#[net_handle(15)]
pub(super) async fn counted_through_handlers(
    gate: Parent<Gate>,
    Body(text): Body<Bytes>,
) -> Result<Bytes, CallError> {
    gate.call("gate_lets_count", text).await
}

#[root_handle]
pub(super) async fn gate_counts(
    world: State<World>,
    node: Node,
    Body(text): Body<String>,
) -> Result<String, HandlerError> {
    world.count(&node, &text)
}

/// Each client has its game node.
#[root_handle]
pub(super) async fn gate_lets_count(
    children: Children,
    Body(text): Body<String>,
) -> Result<Bytes, HandlerError> {
    let game = if text.parse::<u64>()?.is_multiple_of(2) { "game.1" } else { "game.2" };
    Ok(children.call(game, "game_counts", &text).await?)
}

#[remote_handle("gate")]
pub(super) async fn game_counts(
    world: State<World>,
    node: Node,
    Body(text): Body<String>,
) -> Result<String, HandlerError> {
    world.count(&node, &text)
}

/// Counted by a game node, forwarded.
#[net_handle(1005)]
pub(super) async fn counted(
    world: State<World>,
    node: Node,
    Body(text): Body<String>,
) -> Result<String, HandlerError> {
    world.count(&node, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_the_same_after_it_was_handed_over() {
        let world = World::default();
        {
            let mut counts = world.lock();
            counts.all = 7;
            counts.by_client = HashMap::from([(1, 4), (2, 3)]);
        }
        let successor = World::default();
        successor.thaw(&world.freeze()).unwrap();
        let counts = successor.lock();
        assert_eq!((counts.all, &counts.by_client), (7, &HashMap::from([(1, 4), (2, 3)])));
    }
}
