//! What has no fault: every form of the attributes, every kind of reply and error.
use ffserver::prelude::*;

parents! { Gate = "gate", Other = "other" }
databases! { Logs = "logs" }

#[net_handle(1)]
async fn number() {}
#[net_handle(2, concurrent)]
async fn number_concurrent(_: Session, _: CommandId, _: Body<Bytes>) -> Bytes {
    Bytes::new()
}
#[net_handle(default)]
async fn default_one(_: Parent<Gate>, _: Parent<Other>, _: NamedDb<Logs>) -> Vec<u8> {
    Vec::new()
}
#[root_handle]
async fn root() -> &'static str {
    ""
}
#[root_handle("other")]
async fn root_named() -> Json<u32> {
    Json(1)
}
#[root_handle(concurrent)]
async fn root_concurrent() -> Bincode<u32> {
    Bincode(1)
}
#[node_handle("far", concurrent)]
async fn node() -> Result<(), HandlerError> {
    Ok(())
}
#[remote_handle("gate")]
async fn remote() -> Result<String, CallError> {
    Ok(String::new())
}
#[remote_handle("gate", "name")]
async fn remote_named() -> Result<String, std::io::Error> {
    Ok(String::new())
}
#[remote_handle("gate", concurrent)]
async fn remote_concurrent() -> Result<String, String> {
    Err("a text".to_owned())
}
#[remote_handle("gate", "name", concurrent)]
async fn remote_named_concurrent() -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    Err("a text")?
}
#[node_handle]
async fn question_mark() -> Result<(), HandlerError> {
    Err("a text")?;
    Err(String::new())?
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item", database = "logs")]
struct Item {
    #[record(key, auto)]
    id: i64,
    #[record(owner)]
    account: String,
    #[record(column = "item_level")]
    level: Option<u32>,
}

pub fn app() -> App {
    App::new("fits")
        .table::<Item>()
        .handlers(handlers![number, number_concurrent, default_one, root, root_named, root_concurrent])
        .handlers(handlers![node, remote, remote_named, remote_concurrent, remote_named_concurrent])
        .handlers(handlers![question_mark])
}
