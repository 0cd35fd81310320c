//! The net node of firefly's demo: answers clients, itself or with what its parent `gate` answers.

use ffserver::prelude::*;
use ffserver::tracing::info;

parents! { Gate = "gate" }

#[net_handle(100)]
async fn net_handle_100(Body(data): Body<String>) -> &'static str {
    info!("netHandle_100: {data}");
    "netHandle_100 completed"
}

#[net_handle(200)]
async fn net_handle_200(gate: Parent<Gate>, Body(data): Body<String>) -> Result<Bytes, CallError> {
    info!("netHandle_200: {data} forward to gate");
    gate.call("gateHandle1", data).await
}

#[net_handle(300)]
async fn net_handle_300(gate: Parent<Gate>, Body(data): Body<String>) -> Result<Bytes, CallError> {
    info!("netHandle_300: {data} forward to gate");
    gate.call("gateHandle2", data).await
}

pub(crate) fn app() -> App {
    App::new("netserver").handlers(handlers![net_handle_100, net_handle_200, net_handle_300])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_is_an_ordinary_function() {
        assert_eq!(net_handle_100(Body("msgdata".into())).await, "netHandle_100 completed");
    }
}
