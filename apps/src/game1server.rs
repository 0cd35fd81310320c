//! The game node of firefly's demo: its parent `gate` calls it.

use ffserver::prelude::*;
use ffserver::tracing::info;

#[remote_handle("gate", "game1Handle")]
async fn game1_handle(Body(data): Body<String>) -> &'static str {
    info!("game1Handle: {data}");
    "game1Handle completed"
}

pub(crate) fn app() -> App {
    App::new("game1server").handlers(handlers![game1_handle])
}
