//! JSON with places: a text becomes a tree in which every key and value knows its offset.

use std::collections::HashMap;

use jsonc_parser::ast;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use crate::report::{Place, Report};

/// A config is about 5 deep; the bound keeps a hostile one from overflowing the stack.
pub(crate) const NESTING_MAX: usize = 64;

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    pub(crate) at: usize,
    pub(crate) value: Json,
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    /// The whole text was one `${NAME}`: it may stand for a number or a bool too, for the environment has
    /// only texts.
    Env(String),
    List(Vec<Item>),
    Object(Vec<Member>),
    /// Its fault has been reported; it counts as given.
    Faulty,
}

/// A key and its value; no object has two of one key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) key: String,
    pub(crate) key_at: usize,
    pub(crate) item: Item,
}

/// The tree of the text; `None` when it does not parse, with the fault in the report.
pub(crate) fn tree(text: &str, report: &mut Report<'_>) -> Option<Item> {
    if let Some(at) = too_deep(text) {
        let place = Place { at, path: String::new() };
        report.fault(&place, format!("more than {NESTING_MAX} brackets inside each other"));
        return None;
    }
    match parse_to_ast(text, &CollectOptions::default(), &OPTIONS) {
        Ok(jsonc_parser::ParseResult { value: Some(value), .. }) => {
            Some(item(value, &Place::default(), report))
        }
        Ok(_) => {
            report.fault(&Place::default(), "there is nothing in it: expected an object");
            None
        }
        Err(error) => {
            let place = Place { at: error.range().start, path: String::new() };
            report.fault(&place, format!("this is no JSON: {}", decapitalized(&error.kind().to_string())));
            None
        }
    }
}

/// Comments and trailing commas; everything else as JSON has it, so that other tools read it too.
const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

fn decapitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Where the brackets become too deep; skips what stands in texts and comments.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1)) {
            (b'"', _) => at = end_of_text(bytes, at),
            (b'/', Some(b'/')) => at += text[at..].find(['\n', '\r']).unwrap_or(text.len() - at),
            (b'/', Some(b'*')) => at += text[at..].find("*/").map_or(text.len() - at, |n| n + 1),
            (b'[' | b'{', _) if depth == NESTING_MAX => return Some(at),
            (b'[' | b'{', _) => depth += 1,
            (b']' | b'}', _) => depth = depth.saturating_sub(1),
            _ => (),
        }
        at += 1;
    }
    None
}

/// The offset of the quote that ends the text which starts at `at`.
fn end_of_text(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at += 1;
        match bytes.get(at) {
            Some(b'\\') => at += 1,
            Some(b'"') | None => return at,
            Some(_) => (),
        }
    }
}

fn item(value: ast::Value<'_>, place: &Place, report: &mut Report<'_>) -> Item {
    let (at, value) = match value {
        ast::Value::NullKeyword(null) => (null.range.start, Json::Null),
        ast::Value::BooleanLit(bool) => (bool.range.start, Json::Bool(bool.value)),
        ast::Value::NumberLit(number) => (number.range.start, Json::Number(number.value.to_owned())),
        ast::Value::StringLit(text) => (text.range.start, Json::Text(text.value.into_owned())),
        ast::Value::Array(list) => (list.range.start, Json::List(elements(list, place, report))),
        ast::Value::Object(object) => (object.range.start, Json::Object(members(object, place, report))),
    };
    Item { at, value }
}

fn elements(list: ast::Array<'_>, place: &Place, report: &mut Report<'_>) -> Vec<Item> {
    let elements = list.elements.into_iter().enumerate();
    elements.map(|(index, value)| item(value, &place.element(index, 0), report)).collect()
}

/// Of two members with one key the last one counts, as in Python's JSON, which firefly used: its demo
/// has `"name"` twice.
fn members(object: ast::Object<'_>, place: &Place, report: &mut Report<'_>) -> Vec<Member> {
    let mut members: Vec<Option<Member>> = Vec::with_capacity(object.properties.len());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for property in object.properties {
        let (key_at, key) = match property.name {
            ast::ObjectPropName::String(text) => (text.range.start, text.value.into_owned()),
            ast::ObjectPropName::Word(word) => (word.range.start, word.value.to_owned()),
        };
        let here = place.under(&key, key_at);
        let item = item(property.value, &here, report);
        if let Some(earlier) = seen.insert(key.clone(), members.len()).and_then(|i| members[i].take()) {
            let line = report.line(&Place { at: earlier.key_at, path: String::new() });
            report.warn(&here, format!("given twice: this one replaces the one on line {line}"));
        }
        members.push(Some(Member { key, key_at, item }));
    }
    members.into_iter().flatten().collect()
}
