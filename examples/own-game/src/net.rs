//! The net node: it holds the clients, answers what needs nobody else, and has the page.

use ffserver::prelude::*;
use rocket::response::content::RawHtml;

/// What the client has said, as it was.
#[net_handle(1)]
async fn echo(Body(said): Body<Bytes>) -> Bytes {
    said
}

/// The page, which plays over a WebSocket to the netport of this node.
#[rocket::get("/")]
fn page(node: &rocket::State<Node>) -> RawHtml<String> {
    let port = node.config().netport.map_or(0, |at| at.port());
    RawHtml(include_str!("../web/index.html").replace("NETPORT", &port.to_string()))
}

pub fn app() -> App {
    App::new("net").handlers(handlers![echo]).web("/", rocket::routes![page])
}
