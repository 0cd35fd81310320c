//! The gate node of firefly's demo: its children call it, and it calls its child `game1`.

use ffserver::prelude::*;
use ffserver::tracing::info;

#[root_handle("gateHandle1")]
async fn gate_handle_1(Body(data): Body<String>) -> &'static str {
    info!("gateHandle: {data}");
    "gateHandle Completed"
}

#[root_handle("gateHandle2")]
async fn gate_handle_2(children: Children, Body(data): Body<String>) -> Result<Bytes, CallError> {
    info!("gateHandle2: {data} forward to game1:");
    children.call("game1", "game1Handle", data).await
}

pub(crate) fn app() -> App {
    App::new("gateserver").handlers(handlers![gate_handle_1, gate_handle_2])
}
