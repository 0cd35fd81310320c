//! A type that is listed and is no handler.
use ffserver::prelude::*;

#[net_handle(1)]
async fn one() {}

struct Score;

fn routes() -> Vec<ffserver::Route> {
    handlers![one, Score]
    //~^ `Score` is no handler
    //~| a handler is an async fn under #[net_handle(…)], #[root_handle], #[node_handle], #[remote_handle(…)] or #[admin_handle(…)]
}
