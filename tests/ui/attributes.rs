//! What may stand in the parentheses of the attributes.
use ffserver::prelude::*;

#[net_handle] //~ a command number is expected, as in #[net_handle(300)], or `default`
async fn net_without_command() {}
#[net_handle("300")] //~ a command number is expected, as in #[net_handle(300)], or `default`
async fn net_by_text() {}
#[net_handle(4294967296)] //~ a command is a number from 0 to 4294967295
async fn net_too_large() {}
#[net_handle(1, 2)] //~ only `concurrent` may stand here
async fn net_two_commands() {}
#[net_handle(1, together)] //~ only `concurrent` may stand here
async fn net_another_word() {}
#[net_handle(1 concurrent)] //~ only `concurrent` may stand here, behind a comma
async fn net_without_comma() {}
#[net_handle(default, concurrent, 3)] //~ nothing may follow `concurrent`
async fn net_too_much() {}

#[root_handle(300)] //~ only the method's name in quotes, or `concurrent`, may stand here
async fn root_by_number() {}
#[root_handle(other)] //~ only the method's name in quotes, or `concurrent`, may stand here
async fn root_without_quotes() {}
#[root_handle("")] //~ a method needs a name
async fn root_without_name() {}
#[root_handle("a", "b")] //~ only `concurrent` may stand here
async fn root_two_names() {}

#[node_handle(300)] //~ only the method's name in quotes, or `concurrent`, may stand here
async fn node_by_number() {}
#[node_handle("")] //~ a method needs a name
async fn node_without_name() {}

#[remote_handle] //~ the parent's name is expected, as in #[remote_handle("gate")]
async fn remote_without_parent() {}
#[remote_handle(gate)] //~ the parent's name is expected, as in #[remote_handle("gate")]
async fn remote_without_quotes() {}
#[remote_handle("")] //~ a parent needs a name
async fn remote_without_name() {}
#[remote_handle("gate", "")] //~ a method needs a name
async fn remote_without_method() {}
#[remote_handle("gate", 3)] //~ only the method's name in quotes, or `concurrent`, may stand here
async fn remote_by_number() {}
#[remote_handle("gate", "a", "b")] //~ only `concurrent` may stand here
async fn remote_two_names() {}

#[admin_handle(300)] //~ only the command's name in quotes may stand here, as in #[admin_handle("grant")]
async fn admin_by_number() {}
#[admin_handle("")] //~ a command's name has 1 to 64 letters, digits, `-`, `_` or `.`
async fn admin_without_name() {}
#[admin_handle("give gold")] //~ a command's name has 1 to 64 letters, digits, `-`, `_` or `.`
async fn admin_with_space() {}
#[admin_handle("grant", concurrent)] //~ nothing may follow the command's name
async fn admin_too_much() {}
