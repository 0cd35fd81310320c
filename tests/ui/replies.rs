//! What a handler may return, and fail with.
use ffserver::prelude::*;

struct Score;

#[derive(Debug)]
struct NoScore;

#[net_handle(1)]
async fn own_type() -> Score { Score }
//~^ `Score` is no reply of a handler
//~| replies are: (), Bytes, Vec<u8>, String, &'static str, Json<T>, Bincode<T>, and Result<reply, any error>; or types of yours that implement IntoReply
#[net_handle(2)]
async fn own_type_or_error() -> Result<Score, HandlerError> { Ok(Score) }
//~^ `Score` is no reply of a handler
#[net_handle(3)]
async fn no_error() -> Result<String, NoScore> { Err(NoScore) }
//~^ `NoScore` is no error of a handler
//~| errors are: HandlerError, anyhow::Error, String, &'static str, and everything that is std::error::Error
#[net_handle(4)]
async fn question_mark() -> Result<String, HandlerError> { Err(NoScore)? }
//~^ `?` couldn't convert the error
//~| `NoScore` needs to implement
#[admin_handle("score")]
async fn own_type_of_a_command() -> Score { Score }
//~^ `Score` is no result of a command
//~| results are: (), String, &'static str, Json<T>, and Result<result, any error>
