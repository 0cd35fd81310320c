//! Functions that are listed without an attribute, or are not there.
use ffserver::prelude::*;

async fn without_attribute() {}

fn routes() -> Vec<ffserver::Route> {
    handlers![
        without_attribute, //~ expected type, found function `without_attribute`
        missing,           //~ cannot find type `missing` in this scope
    ]
}
