//! Handlers that nobody lists: the compiler's warning of dead code, unless other crates could list them.
#![deny(warnings)]
use ffserver::prelude::*;

#[net_handle(1)]
async fn listed() {}
#[net_handle(2)]
async fn unlisted() {} //~ function `unlisted` is never used

mod inner {
    use ffserver::prelude::*;

    #[root_handle]
    pub async fn unlisted_in_the_crate() {} //~ function `unlisted_in_the_crate` is never used
}

pub mod open {
    use ffserver::prelude::*;

    #[node_handle]
    pub async fn unlisted_for_others() {}
}

pub fn app() -> App {
    App::new("unlisted").handlers(handlers![listed])
}
