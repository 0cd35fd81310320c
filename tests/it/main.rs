//! Whole clusters, tried as users try them. One file per behaviour; the harness is this package's library.

mod accounts;
mod adoption;
mod bad_input;
mod coins;
mod config_errors;
mod data;
mod demo;
mod groups;
mod handlers;
mod health;
mod hosts;
mod layering;
mod limits;
mod login;
mod outage;
mod outcome;
mod records;
mod rollback;
mod replacement;
mod routing;
mod sessions;
mod succession;
mod supervision;
mod users;
mod websocket;
mod write_behind;
