//! What the derive of records asks for.
use ffserver::prelude::*;

#[derive(Record, Clone, PartialEq)]
struct WithoutTable { //~ the table is missing: #[record(table = "account")] above the struct
    #[record(key)]
    id: i64,
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
struct WithoutKey { //~ the key is missing: #[record(key)] or #[record(key, auto)] at one field
    id: i64,
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
struct TwoKeys {
    #[record(key)]
    id: i64,
    #[record(key)]
    name: String, //~ a record has one key
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
struct TwoOwners {
    #[record(key)]
    id: i64,
    #[record(owner)]
    account: String,
    #[record(owner)]
    guild: String, //~ a record has one owner
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
struct AutoWithoutKey {
    #[record(auto)] //~ only a key is `auto`
    id: i64,
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item", schema = "game")] //~ only `table` and `database` may stand here
struct AnotherFactOfTheTable {
    #[record(key)]
    id: i64,
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
struct AnotherFactOfAField {
    #[record(key, unique)] //~ only `key`, `auto`, `owner` and `column` may stand here
    id: i64,
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "the items")] //~ `the items` is no name: letters, digits and `_`, 63 at most, no digit first
struct NoNameOfATable {
    #[record(key)]
    id: i64,
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
struct OurColumn {
    #[record(key)]
    id: i64,
    version: i64, //~ the column `version` is the framework's own; choose another name
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
enum NoStruct { //~ a record is a struct
    One,
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
struct WithoutNames(i64); //~ a record is a struct with named fields

#[derive(Record, Clone, PartialEq)]
#[record(table = "item")]
struct Generic<T> { //~ a record has no generic parameters
    #[record(key)]
    id: T,
}
