//! The handler attributes and the derive of records. The attributes state the facts of a handler and leave the function as it is.
//!
//! Each attribute adds a type of the same name as the function (functions and types have separate
//! namespaces), which `handlers![…]` turns into a route. Use them through `ffserver`.

mod facts;
mod handler;
mod record;

use proc_macro::TokenStream;

/// Handles a client's command: `#[net_handle(300)]`, or `#[net_handle(300, concurrent)]` to opt out of
/// the session's order. `#[net_handle(default)]` handles every command that has neither a handler nor a route on
/// its node; it may take the `CommandId`.
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

/// Callable by every node of the cluster, however far: `#[node_handle]` under the function's name, or
/// `#[node_handle("greet")]`; `concurrent` may follow.
#[proc_macro_attribute]
pub fn node_handle(facts: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(facts::node(facts.into()), item.into()).into()
}

/// Callable by one parent of this node: `#[remote_handle("gate")]` under the function's name, or
/// `#[remote_handle("gate", "game1Handle")]`; `concurrent` may follow.
#[proc_macro_attribute]
pub fn remote_handle(facts: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(facts::remote(facts.into()), item.into()).into()
}

/// A command of the app, which operators run by HTTP: `#[admin_handle]` under the function's name, or
/// `#[admin_handle("grant")]`. The first paragraph of the function's docs is what operators read.
#[proc_macro_attribute]
pub fn admin_handle(facts: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(facts::admin(facts.into()), item.into()).into()
}

/// Makes a struct a record of a table:
///
/// ```text
/// #[derive(Record, Clone, PartialEq)]
/// #[record(table = "item")]              // and `database = "logs"` for one of the config's `databases`
/// struct Item {
///     #[record(key, auto)]               // `auto`: the database makes the key
///     id: i64,
///     #[record(owner)]                   // whose it is: `by_owner`
///     account: String,
///     #[record(column = "item_level")]   // where the field has another name
///     level: u32,
/// }
/// ```
#[proc_macro_derive(Record, attributes(record))]
pub fn record(item: TokenStream) -> TokenStream {
    record::expand(item.into()).into()
}
