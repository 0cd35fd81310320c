//! Whole clusters, tried as users try them. One file per behaviour; the harness is this package's library.

mod adoption;
mod bad_input;
mod config_errors;
mod data;
mod demo;
mod handlers;
mod health;
mod hosts;
mod layering;
mod limits;
mod outcome;
mod rollback;
mod replacement;
mod routing;
mod succession;
mod supervision;
mod websocket;
