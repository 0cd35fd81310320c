//! What a handler may take: a type that is none is named, with those that are.
use ffserver::prelude::*;

struct Score;

#[net_handle(1)]
async fn own_type(_: Score) {}
//~^ `Score` is no argument of a handler
//~| this is taken from no message
//~| arguments are: Body<Bytes | String | Json<T> | Bincode<T>>, Json<T>, Bincode<T>, Session, Caller,
//~| and types of yours that implement FromRequest
#[root_handle]
async fn second_of_two(_: Body<String>, _: u32) {}
//~^ `u32` is no argument of a handler
#[node_handle]
async fn reference(_: &str) {}
//~^ `&str` is no argument of a handler
#[remote_handle("gate")]
async fn body_of_own_type(_: Body<Score>) {}
//~^ `Score` is not read from a body
//~| bodies are: Bytes, Vec<u8>, String, Json<T>, Bincode<T>, and types of yours that implement FromBody
#[net_handle(2)]
async fn json_of_own_type(_: Json<Score>) {}
//~^ the trait bound `Score: 
#[net_handle(3)]
async fn parent_of_no_name(_: Parent<Score>) {}
//~^ the trait bound `Score: ParentName` is not satisfied
