//! The shape of a config: every key known, every value of its kind, by the table in [`crate::schema`].

use std::sync::Arc;

use ffproto::NodeName;

use crate::conf;
use crate::fields::Fields;
use crate::listen;
use crate::nearest::nearest;
use crate::report::{Place, Report, quoted};
use crate::schema::{Section, TOKEN_CHARS_MIN, ValueKind, schema};
use crate::span::Span;
use crate::tree::{Item, Json, Member};
use crate::value::{Entry, Placed, Value};

/// CPU numbers are below this: as many bits as the kernel's own default set has.
const CPUS_MAX: usize = 1024;

/// Checks a value against its kind, and everything below it.
pub(crate) fn shaped(item: Item, kind: ValueKind, mut place: Place, report: &mut Report<'_>) -> Placed {
    place.at = item.at;
    let value = match (kind, item.value) {
        (_, Json::Faulty) => Value::Faulty,
        (ValueKind::Section(section), Json::Object(members)) => {
            Value::Section(fields(members, section, &place, report))
        }
        (ValueKind::Token(section), Json::Object(members)) => {
            Value::Section(fields(members, section, &place, report))
        }
        (ValueKind::Section(section), json @ (Json::Text(_) | Json::Env(_)))
            if section.shorthand.is_some() =>
        {
            let key = section.shorthand.unwrap_or_default().to_owned();
            let member = Member { key, key_at: item.at, item: Item { at: item.at, value: json } };
            Value::Section(fields(vec![member], section, &place, report))
        }
        (ValueKind::List(kind), Json::List(items)) => {
            let items = items.into_iter().enumerate();
            Value::List(items.map(|(i, item)| shaped(item, *kind, place.element(i, 0), report)).collect())
        }
        (ValueKind::Map(kind), Json::Object(members)) => {
            let entry = |member| entry(member, *kind, &place, report);
            Value::Map(members.into_iter().map(entry).collect())
        }
        (ValueKind::Free, json @ Json::Object(_)) => {
            Value::Free(Arc::new(conf::Item::of(Item { at: item.at, value: json }, &place, report)))
        }
        (ValueKind::BoolOrNames, Json::List(items)) => {
            let items = items.into_iter().enumerate();
            let name = |(i, item)| shaped(item, ValueKind::Name, place.element(i, 0), report);
            Value::List(items.map(name).collect())
        }
        (kind, json) => leaf(kind, settled(json, kind)).unwrap_or_else(|message| {
            report.fault(&place, message);
            Value::Faulty
        }),
    };
    Placed { place, value }
}

fn entry(member: Member, kind: ValueKind, place: &Place, report: &mut Report<'_>) -> Entry {
    let key_place = place.under(&member.key, member.key_at);
    let item = shaped(member.item, kind, key_place.clone(), report);
    Entry { key: member.key, key_place, item }
}

fn fields(members: Vec<Member>, section: &'static Section, place: &Place, report: &mut Report<'_>) -> Fields {
    let mut values = Vec::with_capacity(members.len());
    let mut meant = Vec::new();
    for member in members {
        let here = place.under(&member.key, member.key_at);
        match section.key(&member.key) {
            Some(key) => values.push((key.name, shaped(member.item, key.kind, here, report))),
            None => meant.extend(unknown(&member.key, section, here, report)),
        }
    }
    // A slip of the pen is one fault: the key that was meant counts as given.
    for (name, place) in meant {
        if !values.iter().any(|(given, _)| *given == name) {
            values.push((name, Placed { place, value: Value::Faulty }));
        }
    }
    for key in section.keys.iter().filter(|key| key.required) {
        if !values.iter().any(|(name, _)| *name == key.name) {
            report.fault(place, format!("the key `{}` is missing", key.name));
        }
    }
    Fields { section, place: place.clone(), values }
}

/// Reports an unknown key, and returns the one that was meant.
fn unknown(
    key: &str,
    section: &'static Section,
    place: Place,
    report: &mut Report<'_>,
) -> Option<(&'static str, Place)> {
    let names = || section.keys.iter().map(|key| key.name);
    if let Some(nearest) = nearest(key, names()) {
        let meant = section.key(&nearest)?.name;
        report.fault_near(&place, "unknown key", Some(nearest));
        return Some((meant, place));
    }
    let elsewhere: Vec<String> =
        schema()
            .iter()
            .filter(|other| other.key(key).is_some())
            .map(|other| {
                if other.place.is_empty() { "at the top".into() } else { format!("under `{}`", other.place) }
            })
            .collect();
    if elsewhere.is_empty() {
        let known: Vec<String> = names().map(|name| format!("`{name}`")).collect();
        report.fault(&place, format!("unknown key; known here: {}", known.join(", ")));
    } else {
        report.fault(&place, format!("unknown key; `{key}` belongs {}", elsewhere.join(" or ")));
    }
    None
}

/// A text from the environment becomes the number or the bool that it reads as, where one is expected.
fn settled(json: Json, kind: ValueKind) -> Json {
    match (json, kind) {
        (Json::Env(text), ValueKind::Bool | ValueKind::BoolOrNames | ValueKind::Scalar)
            if text == "true" || text == "false" =>
        {
            Json::Bool(text == "true")
        }
        (
            Json::Env(text),
            ValueKind::Whole { .. }
            | ValueKind::Port
            | ValueKind::Cpus
            | ValueKind::Command
            | ValueKind::CommandOrCommands
            | ValueKind::Scalar,
        ) if text.parse::<u64>().is_ok() => Json::Number(text),
        (Json::Env(text), _) => Json::Text(text),
        (json, _) => json,
    }
}

fn leaf(kind: ValueKind, json: Json) -> Result<Value, String> {
    match (kind, json) {
        (ValueKind::Bool | ValueKind::BoolOrNames, Json::Bool(bool)) => Ok(Value::Bool(bool)),
        (ValueKind::Whole { min, max }, Json::Number(number)) => whole(&number, min, max).map(Value::Whole),
        (ValueKind::Port, Json::Number(number)) => {
            listen::port(&number).map(|port| Value::Whole(port.into()))
        }
        (ValueKind::Listen, Json::Number(number)) => {
            listen::port(&number).map(|port| Value::Listen(listen::on_loopback(port)))
        }
        (ValueKind::Listen, Json::Text(text)) => listen::listen(&text).map(Value::Listen),
        (ValueKind::Cpus, Json::Number(mask)) => {
            whole(&mask, 1, u64::MAX).map(|mask| Value::Cpus(cpus_of(mask)))
        }
        (ValueKind::Cpus, Json::List(items)) => cpu_list(&items).map(Value::Cpus),
        (ValueKind::Command | ValueKind::CommandOrCommands, Json::Number(number)) => {
            command(&number).map(|command| Value::Commands(Span::single(command)))
        }
        (ValueKind::Commands | ValueKind::CommandOrCommands, Json::List(ends)) => commands(ends),
        (ValueKind::Either(one, other), Json::Text(text)) if text == one || text == other => {
            Ok(Value::Text(text))
        }
        (ValueKind::OneOf(one, two, three), Json::Text(text)) if [one, two, three].contains(&&*text) => {
            Ok(Value::Text(text))
        }
        (ValueKind::Scalar, Json::Text(text) | Json::Number(text)) => Ok(Value::Text(text)),
        (ValueKind::Scalar, Json::Bool(bool)) => Ok(Value::Text(bool.to_string())),
        (ValueKind::Secret { chars_min }, Json::Text(text)) => secret(text, chars_min).map(Value::Text),
        (ValueKind::Token(_), Json::Text(text)) => secret(text, TOKEN_CHARS_MIN).map(Value::Text),
        (
            kind @ (ValueKind::Text
            | ValueKind::Name
            | ValueKind::App
            | ValueKind::HostPort
            | ValueKind::DatabaseUrl),
            Json::Text(text),
        ) => text_of(kind, text).map(Value::Text),
        (kind, json) => Err(format!("expected {}, found {}", kind, found(kind, &json))),
    }
}

fn text_of(kind: ValueKind, text: String) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("expected {}, found an empty text", kind));
    }
    if text.contains('\0') {
        return Err("a text has no zero bytes".to_owned());
    }
    let name = |text: &str| NodeName::try_from(text).map(String::from).map_err(|bad| bad.to_string());
    match kind {
        ValueKind::Name => name(&text),
        ValueKind::App => name(text.strip_prefix("app.").unwrap_or(&text)),
        ValueKind::HostPort => listen::host_port(&text).map(|()| text),
        ValueKind::DatabaseUrl => crate::database::check_url(&text).map(|()| text),
        _ => Ok(text),
    }
}

fn secret(text: String, chars_min: usize) -> Result<String, String> {
    match text.chars().count() {
        few if few < chars_min => Err(format!("it has {few} characters: at least {chars_min} are needed")),
        _ => Ok(text),
    }
}

fn whole(number: &str, min: u64, max: u64) -> Result<u64, String> {
    let shown = listen::shortened(number);
    if number.contains(['.', 'e', 'E']) {
        return Err(format!("expected {}, found {shown}", ValueKind::Whole { min, max }));
    }
    match number.parse() {
        Ok(whole) if (min..=max).contains(&whole) => Ok(whole),
        _ if max == u64::MAX => Err(format!("{shown} is out of range: at least {min}, in 64 bits")),
        _ => Err(format!("{shown} is out of range: {min} to {max}")),
    }
}

/// The CPUs whose bits are set.
fn cpus_of(mask: u64) -> Vec<usize> {
    (0..64).filter(|cpu| mask >> cpu & 1 == 1).collect()
}

fn cpu_list(items: &[Item]) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::with_capacity(items.len());
    for item in items {
        let Json::Number(number) = &item.value else {
            return Err(format!(
                "expected CPU numbers in the list, found {}",
                found(ValueKind::Cpus, &item.value)
            ));
        };
        cpus.push(whole(number, 0, CPUS_MAX as u64 - 1)? as usize);
    }
    if cpus.is_empty() {
        return Err("an empty list leaves the node no CPU".to_owned());
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

fn command(number: &str) -> Result<u32, String> {
    whole(number, 0, u32::MAX.into()).map(|command| command as u32)
}

/// `[FIRST, LAST]`.
fn commands(ends: Vec<Item>) -> Result<Value, String> {
    if ends.iter().any(|end| end.value == Json::Faulty) {
        return Ok(Value::Faulty);
    }
    let count = ends.len();
    let Ok(ends) = <[Item; 2]>::try_from(ends) else {
        return Err(format!("expected {}, found a list of {count}", ValueKind::Commands));
    };
    let [first, last] = ends.map(|end| match settled(end.value, ValueKind::Command) {
        Json::Number(number) => command(&number),
        json => {
            Err(format!("expected {}, found {} in it", ValueKind::Commands, found(ValueKind::Command, &json)))
        }
    });
    match (first?, last?) {
        (first, last) if first > last => {
            Err(format!("{first} is more than {last}: expected {}", ValueKind::Commands))
        }
        (first, last) => Ok(Value::Commands(Span { first, last })),
    }
}

fn is_secret(kind: ValueKind) -> bool {
    matches!(kind, ValueKind::Secret { .. } | ValueKind::Token(_))
}

fn found(kind: ValueKind, json: &Json) -> String {
    match json {
        Json::Null => "null".into(),
        Json::Bool(_) if is_secret(kind) => "true or false".into(),
        Json::Number(_) if is_secret(kind) => "a number".into(),
        Json::Bool(bool) => bool.to_string(),
        Json::Number(number) => format!("the number {}", listen::shortened(number)),
        Json::Text(text) | Json::Env(text) => format!("the text {}", quoted(text)),
        Json::List(_) => "a list".into(),
        Json::Object(_) => "an object".into(),
        Json::Faulty => "a fault".into(),
    }
}
