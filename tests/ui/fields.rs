//! What a record's field may be.
use ffserver::prelude::*;

#[derive(Clone, PartialEq)]
struct Place(i32, i32);

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
struct Item {
    #[record(key)]
    id: i64,
    place: Place,
    //~^ `Place` is no field of a record
    //~| fields are: bool, i32, i64, u32, f64, String, Vec<u8>, and Option of one of these
}
