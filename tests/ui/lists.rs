//! What is listed: handlers, parents, databases.
use ffserver::prelude::*;

parents! { Gate } //~ parents are written as TYPE = "name in the config": parents! { Gate = "gate" }
parents! { Gate = gate } //~ parents are written as TYPE = "name in the config": parents! { Gate = "gate" }
databases! { "logs" } //~ databases are written as TYPE = "name in the config": databases! { Logs = "logs" }

#[net_handle(1)]
async fn one() {}

fn without_comma() -> Vec<ffserver::Route> {
    handlers![one one] //~ handlers are listed by their names: handlers![login, enter]
}
