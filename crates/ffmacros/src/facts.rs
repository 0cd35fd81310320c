//! What stands in the parentheses of an attribute.

use proc_macro2::TokenStream;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Ident, LitInt, LitStr, Result, Token};

/// What may follow a handler's whole name.
const CONCURRENT: &str = "only `concurrent` may stand here";
/// What may stand where the name of a method may.
const METHOD_OR_CONCURRENT: &str = "only the method's name in quotes, or `concurrent`, may stand here";

/// Where a handler is listed.
pub(crate) enum Key {
    Net(LitInt),
    Default,
    Root(Option<LitStr>),
    Node(Option<LitStr>),
    Remote(LitStr, Option<LitStr>),
    Admin(Option<LitStr>),
}

pub(crate) struct Facts {
    pub(crate) key: Key,
    pub(crate) concurrent: bool,
}

pub(crate) fn net(tokens: TokenStream) -> Result<Facts> {
    let parse = |input: ParseStream<'_>| {
        if input.peek(Token![default]) {
            input.parse::<Token![default]>()?;
            return Ok(Facts { key: Key::Default, concurrent: rest(input)? });
        }
        let command: LitInt = input.parse().map_err(|e| {
            Error::new(e.span(), "a command number is expected, as in #[net_handle(300)], or `default`")
        })?;
        command
            .base10_parse::<u32>()
            .map_err(|_| Error::new(command.span(), "a command is a number from 0 to 4294967295"))?;
        Ok(Facts { key: Key::Net(command), concurrent: rest(input)? })
    };
    parse.parse2(tokens)
}

pub(crate) fn root(tokens: TokenStream) -> Result<Facts> {
    by_method(tokens, Key::Root)
}

pub(crate) fn node(tokens: TokenStream) -> Result<Facts> {
    by_method(tokens, Key::Node)
}

fn by_method(tokens: TokenStream, key: fn(Option<LitStr>) -> Key) -> Result<Facts> {
    let parse = |input: ParseStream<'_>| {
        let name = if input.peek(LitStr) { Some(method(input)?) } else { None };
        let concurrent = if name.is_some() { rest(input)? } else { word(input, METHOD_OR_CONCURRENT)? };
        Ok(Facts { key: key(name), concurrent })
    };
    parse.parse2(tokens)
}

pub(crate) fn remote(tokens: TokenStream) -> Result<Facts> {
    let parse = |input: ParseStream<'_>| {
        let parent: LitStr = input.parse().map_err(|e| {
            Error::new(e.span(), "the parent's name is expected, as in #[remote_handle(\"gate\")]")
        })?;
        if parent.value().is_empty() {
            return Err(Error::new(parent.span(), "a parent needs a name"));
        }
        let mut name = None;
        if input.peek(Token![,]) && input.peek2(LitStr) {
            input.parse::<Token![,]>()?;
            name = Some(method(input)?);
        }
        let allowed = if name.is_some() { CONCURRENT } else { METHOD_OR_CONCURRENT };
        Ok(Facts { key: Key::Remote(parent, name), concurrent: rest_of(input, allowed)? })
    };
    parse.parse2(tokens)
}

pub(crate) fn admin(tokens: TokenStream) -> Result<Facts> {
    let parse = |input: ParseStream<'_>| {
        let facts = |name| Facts { key: Key::Admin(name), concurrent: false };
        if input.is_empty() {
            return Ok(facts(None));
        }
        let name: LitStr = input.parse().map_err(|e| {
            Error::new(
                e.span(),
                "only the command's name in quotes may stand here, as in #[admin_handle(\"grant\")]",
            )
        })?;
        let text = name.value();
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !plain || !(1..=64).contains(&text.len()) {
            let why = "a command's name has 1 to 64 letters, digits, `-`, `_` or `.`: it stands in URLs and on command lines";
            return Err(Error::new(name.span(), why));
        }
        if input.is_empty() {
            Ok(facts(Some(name)))
        } else {
            Err(Error::new(input.span(), "nothing may follow the command's name"))
        }
    };
    parse.parse2(tokens)
}

fn method(input: ParseStream<'_>) -> Result<LitStr> {
    let name: LitStr = input.parse()?;
    if name.value().is_empty() { Err(Error::new(name.span(), "a method needs a name")) } else { Ok(name) }
}

/// `, concurrent` or nothing.
fn rest(input: ParseStream<'_>) -> Result<bool> {
    rest_of(input, CONCURRENT)
}

/// The same, with what may stand there.
fn rest_of(input: ParseStream<'_>, allowed: &str) -> Result<bool> {
    if input.is_empty() {
        return Ok(false);
    }
    input.parse::<Token![,]>().map_err(|e| Error::new(e.span(), format!("{allowed}, behind a comma")))?;
    word(input, allowed)
}

fn word(input: ParseStream<'_>, allowed: &str) -> Result<bool> {
    if input.is_empty() {
        return Ok(false);
    }
    let word: Ident = input.parse().map_err(|e| Error::new(e.span(), allowed))?;
    if word != "concurrent" {
        return Err(Error::new(word.span(), allowed));
    }
    if input.is_empty() { Ok(true) } else { Err(Error::new(input.span(), "nothing may follow `concurrent`")) }
}
