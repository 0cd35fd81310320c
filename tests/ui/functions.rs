//! What a handler's function may be. All faults of one are said at once.
use ffserver::prelude::*;

#[net_handle(1)]
fn not_async() {} //~ a handler is an async fn
#[net_handle(2)]
async fn generic<T>(_: Body<T>) {} //~ a handler has no generic parameters
#[net_handle(3)]
struct NoFunction; //~ a handler is an async fn

#[net_handle] //~ a command number is expected, as in #[net_handle(300)], or `default`
fn three_faults<T>(_: T) {}
//~^ a handler is an async fn
//~^^ a handler has no generic parameters

struct Room;

impl Room {
    #[net_handle(4)]
    async fn method(&self) {} //~ a handler is a free function: take State<T> for state
}
