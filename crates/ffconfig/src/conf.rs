//! `conf`: free values for an app, which a type of the app reads. Every value knows its place, so that a fault of it does.

use std::fmt;
use std::sync::Arc;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::finding::Finding;
use crate::nearest::nearest;
use crate::report::{Place, Report, quoted};
use crate::tree::{self, Json};

/// `conf` of a node. Equal when it says the same, wherever that stands; its `Debug` shows no values.
#[derive(Clone, PartialEq)]
pub struct Conf {
    root: Arc<Item>,
    given: bool,
}

/// A value, and where it stands: a finding without a message.
pub(crate) struct Item {
    at: Finding,
    value: Value,
}

/// A key of an object, and where it stands.
struct Member {
    at: Finding,
    key: String,
    item: Item,
}

#[derive(PartialEq)]
enum Value {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    /// From the environment, which has only texts: a number or a bool, too, where one is expected.
    Env(String),
    List(Vec<Item>),
    Object(Vec<Member>),
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        (&self.key, &self.item) == (&other.key, &other.item)
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at.path)
    }
}

impl fmt::Debug for Conf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.root.members().iter().map(|member| &member.key);
        f.debug_set().entries(keys).finish()
    }
}

impl Conf {
    pub(crate) fn given(root: Arc<Item>) -> Self {
        Self { root, given: true }
    }

    /// Of a node that has none: an empty one, at the place of the node.
    pub(crate) fn none(node: &Place, report: &Report<'_>) -> Self {
        let at = report.finding(&node.under("conf", node.at), String::new(), None);
        Self { root: Arc::new(Item { at, value: Value::Object(Vec::new()) }), given: false }
    }

    /// Whether the node has a `conf`.
    pub fn is_given(&self) -> bool {
        self.given
    }

    /// The values as a type of the app: each key is known to the type, none is missing, each value is of its type. A node without
    /// `conf` is one with an empty object.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Rules {
    ///     rounds: u32,
    /// }
    ///
    /// let config = r#"{ "master": { "rootport": 9999, "webport": 9998 },
    ///     "servers": { "hall": { "app": "hall", "conf": { "rounds": "three" } } } }"#;
    /// let cluster = ffconfig::parse(config, "config.json".as_ref(), &|_| None)?.cluster;
    /// let fault = cluster.node("hall").and_then(|hall| hall.conf.read::<Rules>().err());
    /// assert_eq!(
    ///     fault.map(|fault| fault.to_string()).as_deref(),
    ///     Some("config.json:2:63: servers.hall.conf.rounds: expected u32, found the text \"three\"")
    /// );
    /// # Ok::<(), ffconfig::LoadError>(())
    /// ```
    ///
    /// # Errors
    /// The first fault, with its place. Not all of them: a type ends at the first one, and to read on would take a value in its
    /// place, or the key away, of which a fault may come that the config does not have.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Finding> {
        T::deserialize(Reader { item: &self.root, ignored: None }).map_err(|fault| {
            let Fault { at, message, nearest } = fault;
            let at = at.map_or_else(|| self.root.at.clone(), |at| *at);
            let message = if self.given { message } else { format!("{message}: the node has no `conf`") };
            Finding { message, nearest, ..at }
        })
    }

    /// A finding at its place.
    pub fn finding(&self, message: impl Into<String>) -> Finding {
        Finding { message: message.into(), ..self.root.at.clone() }
    }
}

impl Item {
    /// A value of the tree; what was faulty has been reported.
    pub(crate) fn of(item: tree::Item, place: &Place, report: &Report<'_>) -> Self {
        let at = report.finding(&Place { at: item.at, path: place.path.clone() }, String::new(), None);
        let value = match item.value {
            Json::Null | Json::Faulty => Value::Null,
            Json::Bool(bool) => Value::Bool(bool),
            Json::Number(number) => Value::Number(number),
            Json::Text(text) => Value::Text(text),
            Json::Env(text) => Value::Env(text),
            Json::List(items) => {
                let items = items.into_iter().enumerate();
                Value::List(items.map(|(i, item)| Self::of(item, &place.element(i, 0), report)).collect())
            }
            Json::Object(members) => {
                let member = |member: tree::Member| {
                    let place = place.under(&member.key, member.key_at);
                    let at = report.finding(&place, String::new(), None);
                    Member { at, key: member.key, item: Self::of(member.item, &place, report) }
                };
                Value::Object(members.into_iter().map(member).collect())
            }
        };
        Self { at, value }
    }

    fn members(&self) -> &[Member] {
        match &self.value {
            Value::Object(members) => members,
            _ => &[],
        }
    }
}

/// Why a type does not take the values: what is wrong, as soon as it is known where.
#[derive(Debug)]
struct Fault {
    at: Option<Box<Finding>>,
    message: String,
    nearest: Option<String>,
}

impl Fault {
    fn new(message: String) -> Self {
        Self { at: None, message, nearest: None }
    }

    /// The fault at that place, unless it is known to be at one inside of that.
    fn at(mut self, at: &Finding) -> Self {
        self.at.get_or_insert_with(|| Box::new(at.clone()));
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// As the faults of other keys say it.
fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(bool) => bool.to_string(),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) => format!("the text {}", quoted(text)),
        Unexpected::Unit | Unexpected::Option => "null".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "an object".into(),
        other => other.to_string(),
    }
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

impl Error for Fault {
    /// What a type says itself; it stays on one line.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        Self::new(message.to_string().chars().map(shown).collect())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_value(unexpected, expected)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let expected = if expected.starts_with("struct ") { "an object" } else { &expected };
        Self::custom(format!("expected {expected}, found {}", found(unexpected)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {expected}, found {length} elements"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        match nearest(field, known.iter().copied()) {
            None if known.is_empty() => Self::new("unknown key; none is known here".into()),
            None => Self::new(format!("unknown key; known here: {}", listed(known))),
            nearest => Self { nearest, ..Self::new("unknown key".into()) },
        }
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let message = format!("expected one of {}, found the text {}", listed(known), quoted(variant));
        Self { nearest: nearest(variant, known.iter().copied()), ..Self::new(message) }
    }
}

/// A value on its way into a type.
struct Reader<'c> {
    item: &'c Item,
    /// Where it stands under a key that the struct around it does not know: nothing is lost in silence.
    ignored: Option<(&'c Member, &'static [&'static str])>,
}

impl Reader<'_> {
    fn number<'de, V: Visitor<'de>>(number: &str, visitor: V) -> Result<V::Value, Fault> {
        if let Ok(number) = number.parse() {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = number.parse() {
            return visitor.visit_i64(number);
        }
        match number.parse::<f64>() {
            Ok(number) if number.is_finite() => visitor.visit_f64(number),
            _ => Err(Fault::new(format!("{number} is no number"))),
        }
    }

    fn any<'de, V: Visitor<'de>>(
        &self,
        visitor: V,
        known: Option<&'static [&'static str]>,
    ) -> Result<V::Value, Fault> {
        match &self.item.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(bool) => visitor.visit_bool(*bool),
            Value::Number(number) => Self::number(number, visitor),
            Value::Text(text) | Value::Env(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Elements(items.iter())),
            Value::Object(members) => {
                visitor.visit_map(Members { members: members.iter(), now: None, known })
            }
        }
    }

    /// A number or a bool, which the environment writes as text.
    fn scalar<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Fault> {
        match &self.item.value {
            Value::Env(text) if matches!(text.as_str(), "true" | "false") => {
                visitor.visit_bool(text == "true")
            }
            Value::Env(text) if text.parse::<f64>().is_ok_and(f64::is_finite) => Self::number(text, visitor),
            _ => self.any(visitor, None),
        }
    }
}

macro_rules! scalars {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.scalar(visitor).map_err(|fault| fault.at(&self.item.at))
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    scalars! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.any(visitor, None).map_err(|fault| fault.at(&self.item.at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.item.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.any(visitor, Some(known)).map_err(|fault| fault.at(&self.item.at))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let taken = match &self.item.value {
            Value::Text(text) | Value::Env(text) => visitor.visit_enum(Variant(text)),
            Value::Object(members) => match members.as_slice() {
                [member] => visitor.visit_enum(VariantWithValues(member)),
                _ => Err(Fault::new(format!("expected an object with one of the keys {}", listed(known)))),
            },
            _ => Err(Fault::new(format!("expected one of {}", listed(known)))),
        };
        taken.map_err(|fault| fault.at(&self.item.at))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.ignored {
            Some((member, known)) => Err(Fault::unknown_field(&member.key, known).at(&member.at)),
            None => visitor.visit_unit(),
        }
    }
}

struct Elements<'c>(std::slice::Iter<'c, Item>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.0.next().map(|item| seed.deserialize(Reader { item, ignored: None })).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Members<'c> {
    members: std::slice::Iter<'c, Member>,
    now: Option<&'c Member>,
    /// The keys of the struct that takes them.
    known: Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.now = self.members.next();
        let key = |member: &Member| {
            // A map's keys may be numbers, which are texts in JSON.
            let key = Item { at: member.at.clone(), value: Value::Env(member.key.clone()) };
            seed.deserialize(Reader { item: &key, ignored: None })
        };
        self.now.map(key).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let member = self.now.take().ok_or_else(|| Fault::new("a value without a key".into()))?;
        let unknown = self.known.filter(|known| !known.contains(&member.key.as_str()));
        seed.deserialize(Reader { item: &member.item, ignored: unknown.map(|known| (member, known)) })
    }
}

/// A variant without values.
struct Variant<'c>(&'c str);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl Variant<'_> {
    fn has_values<T>(&self) -> Result<T, Fault> {
        Err(Fault::new(format!("`{}` has values: expected an object with that key", self.0)))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Fault> {
        self.has_values()
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        self.has_values()
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Fault> {
        self.has_values()
    }
}

/// A variant as the one key of an object.
struct VariantWithValues<'c>(&'c Member);

impl<'c> VariantWithValues<'c> {
    fn values(&self) -> Reader<'c> {
        Reader { item: &self.0.item, ignored: None }
    }
}

impl<'de> EnumAccess<'de> for VariantWithValues<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.key.as_str().into_deserializer();
        let variant = seed.deserialize(name).map_err(|fault| fault.at(&self.0.at))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for VariantWithValues<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        serde::Deserialize::deserialize(self.values())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.values())
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        self.values().deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.values().deserialize_struct("", known, visitor)
    }
}
