//! The metrics of a cluster: as the master gives them to Prometheus, or as values.

use serde_json::{Map, Value, json};

use super::client::{AskError, Client};
use super::{exit, print};

/// A value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Vec<(&'a str, String)>,
    pub(super) value: f64,
}

impl Sample<'_> {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// A line of Prometheus' text; `None` for comments and what is none. Pure.
pub(super) fn sample(line: &str) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label, value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.trim_start().split(' ').next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// A text up to its closing quote, and what is behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

/// Shows the metrics whose names have a text in them.
pub(super) async fn show(client: &Client, name: Option<&str>, as_json: bool) -> Result<u8, AskError> {
    let answer = client.get("/metrics").await?;
    if !answer.is_good() {
        return Err(client.refusal(&answer));
    }
    let wanted = |found: &str| name.is_none_or(|name| found.contains(name));
    if as_json {
        let samples: Vec<Value> = answer
            .text
            .lines()
            .filter_map(sample)
            .filter(|sample| wanted(sample.name))
            .map(|s| value(&s))
            .collect();
        print(&(Value::Array(samples).to_string() + "\n"))?;
    } else {
        let of = |line: &str| {
            let name = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
            name.split([' ', '{']).next().unwrap_or_default().to_owned()
        };
        let lines = answer.text.lines().filter(|line| wanted(&of(line)));
        print(&lines.map(|line| format!("{line}\n")).collect::<String>())?;
    }
    Ok(exit::DONE)
}

fn value(sample: &Sample<'_>) -> Value {
    let labels: Map<String, Value> =
        sample.labels.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    json!({"name": sample.name, "labels": labels, "value": sample.value})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_labels_and_a_value() {
        let of = sample(r#"ff_x_bucket{le="+Inf",node="a\"b, {c}",} 1.5 1700"#).unwrap();
        assert_eq!((of.name, of.value), ("ff_x_bucket", 1.5));
        assert_eq!(
            (of.label("le"), of.label("node"), of.label("no")),
            (Some("+Inf"), Some("a\"b, {c}"), None)
        );
        assert_eq!(sample("ff_up 1").unwrap().value, 1.0);
        for none in ["", "# HELP ff_up x", "ff_up", "ff_up{", "ff_up{a=\"b} 1", "ff_up x"] {
            assert_eq!(sample(none), None, "{none}");
        }
    }
}
