//! Variables written out: `${NAME}` from the environment, `$NAME$` from the config's own `vars`.

use std::collections::HashMap;

use crate::nearest::nearest;
use crate::report::{Place, Report, quoted};
use crate::tree::{Item, Json, Member};

/// Where the process's environment is asked.
pub(crate) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A text with variables written out is not longer: variables that use variables could grow without end.
const WRITTEN_BYTES_MAX: usize = 4096;

/// Replaces every variable in the tree, and takes the variables themselves out of it.
pub(crate) fn write_out(root: &mut Item, env: Environment<'_>, report: &mut Report<'_>) {
    let mut vars = Vars { env, values: HashMap::new() };
    if let Json::Object(members) = &mut root.value {
        let (given, others) = std::mem::take(members).into_iter().partition(is_vars);
        *members = others;
        for member in given {
            vars.read(member, report);
        }
    }
    vars.write(root, &Place::default(), report);
}

fn is_vars(member: &Member) -> bool {
    matches!(member.key.as_str(), "vars" | "$MACRO$")
}

struct Vars<'e> {
    env: Environment<'e>,
    /// Scalars only.
    values: HashMap<String, Json>,
}

/// What is wrong with a text, and the variable that was meant.
type Trouble = (String, Option<String>);

impl Vars<'_> {
    /// Reads `"vars": {…}`; a variable may use those above it.
    fn read(&mut self, vars: Member, report: &mut Report<'_>) {
        let place = Place::default().under(&vars.key, vars.item.at);
        let Json::Object(members) = vars.item.value else {
            return report.fault(&place, "expected an object: the variables and their values");
        };
        for mut member in members {
            let key_place = place.under(&member.key, member.key_at);
            if !is_name(&member.key) {
                report.fault(
                    &key_place,
                    "a variable's name is made of letters, digits and `_`, and starts with no digit",
                );
                continue;
            }
            self.write(&mut member.item, &place.under(&member.key, 0), report);
            if matches!(member.item.value, Json::Null | Json::List(_) | Json::Object(_)) {
                report.fault(&key_place, "a variable is a text, a number, true or false");
                member.item.value = Json::Faulty;
            }
            self.values.insert(member.key, member.item.value);
        }
    }

    fn write(&self, item: &mut Item, place: &Place, report: &mut Report<'_>) {
        match &mut item.value {
            Json::Text(text) if text.contains('$') => match self.written(text) {
                Ok(json) => item.value = json,
                Err((message, nearest)) => {
                    let place = Place { at: item.at, path: place.path.clone() };
                    report.fault_near(&place, message, nearest);
                    item.value = Json::Faulty;
                }
            },
            Json::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.write(item, &place.element(index, 0), report);
                }
            }
            Json::Object(members) => {
                for member in members {
                    self.write(&mut member.item, &place.under(&member.key, 0), report);
                }
            }
            _ => (),
        }
    }

    /// What the text says with its variables written out.
    fn written(&self, text: &str) -> Result<Json, Trouble> {
        if let Some((name, "")) = variable(text) {
            return self.value(name).cloned();
        }
        if let Some((inner, "")) = env_reference(text)? {
            return Ok(Json::Env(self.env_value(inner)?));
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            out.push_str(&rest[..dollar]);
            let tail = &rest[dollar..];
            if let Some((inner, after)) = env_reference(tail)? {
                out.push_str(&self.env_value(inner)?);
                rest = after;
            } else if let Some(after) = tail.strip_prefix("$$") {
                out.push('$');
                rest = after;
            } else if let Some((name, after)) = variable(tail) {
                match self.value(name)? {
                    Json::Text(text) | Json::Env(text) | Json::Number(text) => out.push_str(text),
                    Json::Bool(bool) => out.push_str(if *bool { "true" } else { "false" }),
                    _ => return Ok(Json::Faulty),
                }
                rest = after;
            } else {
                out.push('$');
                rest = &tail[1..];
            }
            if out.len() > WRITTEN_BYTES_MAX {
                return Err((
                    format!("with its variables written out it is longer than {WRITTEN_BYTES_MAX} bytes"),
                    None,
                ));
            }
        }
        out.push_str(rest);
        Ok(Json::Text(out))
    }

    fn value(&self, name: &str) -> Result<&Json, Trouble> {
        self.values.get(name).ok_or_else(|| {
            let message = format!("there is no `{name}` in `vars` (`$$` is a plain `$`)");
            // Nobody writes so many by hand, and each miss would compare them all.
            const KNOWN_MAX: usize = 500;
            let mut known: Vec<&str> = self.values.keys().map(String::as_str).take(KNOWN_MAX + 1).collect();
            known.sort_unstable();
            (message, nearest(name, known).filter(|_| self.values.len() <= KNOWN_MAX))
        })
    }

    /// `NAME` or `NAME:-DEFAULT`: the default also stands for an empty value, as in a shell.
    fn env_value(&self, inner: &str) -> Result<String, Trouble> {
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        if !is_name(name) {
            return Err((format!("{} is no name of an environment variable", quoted(name)), None));
        }
        match ((self.env)(name), default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err((format!("the environment variable `{name}` is not set"), None)),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// `$NAME$…`: the name and what follows.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('$')?.split_once('$')?;
    is_name(name).then_some((name, after))
}

/// `${…}…`: what stands inside, and what follows.
fn env_reference(text: &str) -> Result<Option<(&str, &str)>, Trouble> {
    match text.strip_prefix("${").map(|tail| tail.split_once('}')) {
        None => Ok(None),
        Some(Some(parts)) => Ok(Some(parts)),
        Some(None) => Err(("`${` without its `}` (`$$` is a plain `$`)".to_owned(), None)),
    }
}
