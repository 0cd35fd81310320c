//! The handler attributes: they state the facts of a handler and leave the function as it is.
//!
//! Each attribute adds a type of the same name as the function (functions and types have separate
//! namespaces), which `handlers![…]` turns into a route. Use them through `ffserver`.

mod facts;
mod handler;

use proc_macro::TokenStream;

/// Handles a client's command: `#[net_handle(300)]`, or `#[net_handle(300, concurrent)]` to opt out of
/// the session's order.
#[proc_macro_attribute]
pub fn net_handle(facts: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(facts::net(facts.into()), item.into()).into()
}

/// Callable by the children of this node: `#[root_handle]` under the function's name, or
/// `#[root_handle("gateHandle1")]`; `concurrent` may follow.
#[proc_macro_attribute]
pub fn root_handle(facts: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(facts::root(facts.into()), item.into()).into()
}

/// Callable by one parent of this node: `#[remote_handle("gate")]` under the function's name, or
/// `#[remote_handle("gate", "game1Handle")]`; `concurrent` may follow.
#[proc_macro_attribute]
pub fn remote_handle(facts: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(facts::remote(facts.into()), item.into()).into()
}
