//! The text of a scrape, read and written again: what is needed to put those of several processes together.
//!
//! Pure. Only what [`Registry::encode`](super::Registry::encode) writes has to be understood; a line of another form is passed over.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The type of a family, as far as putting together is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Counters and histograms: numbers that only grow, and are added.
    Growing,
    /// Gauges of which those of a node's two processes are added: sessions, memory.
    Added,
    /// Gauges of which the largest of a node's two processes counts: whether something is up, an age, a point in time.
    Largest,
}

/// One family of a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FamilyText {
    /// What stands behind `# HELP NAME`.
    pub help: String,
    /// What stands behind `# TYPE NAME`.
    pub kind: String,
    /// Each series as it is written, such as `ff_x_bucket{le="1"}`, with its value, in the order of the text.
    pub series: Vec<(String, f64)>,
}

impl FamilyText {
    /// What becomes of several values of one series.
    #[must_use]
    pub fn kind(&self, name: &str) -> Kind {
        match self.kind.as_str() {
            "counter" | "histogram" => Kind::Growing,
            _ if ["_info", "_up", "_seconds"].iter().any(|end| name.ends_with(end)) => Kind::Largest,
            _ => Kind::Added,
        }
    }
}

/// A text of metrics, by family.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exposition {
    /// The families by name, in the order of names.
    pub families: BTreeMap<String, FamilyText>,
}

impl Exposition {
    /// Reads a text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut families = BTreeMap::<String, FamilyText>::new();
        // The one that the next lines belong to: a text is in one piece for each family.
        let (mut name, mut family) = (String::new(), FamilyText::default());
        for line in text.lines() {
            let (about, rest) = match line.strip_prefix("# ") {
                Some(comment) => comment.split_once(' ').unwrap_or_default(),
                None => ("", line),
            };
            if about == "HELP" || about == "TYPE" {
                let (of, said) = rest.split_once(' ').unwrap_or((rest, ""));
                if of != name {
                    keep(
                        &mut families,
                        std::mem::replace(&mut name, of.to_owned()),
                        std::mem::take(&mut family),
                    );
                }
                let place = if about == "HELP" { &mut family.help } else { &mut family.kind };
                said.clone_into(place);
            } else if about.is_empty()
                && let Some((series, value)) = rest.rsplit_once(' ')
                && series.starts_with(name.as_str())
                && let Ok(value) = value.parse()
            {
                family.series.push((series.to_owned(), value));
            }
        }
        keep(&mut families, name, family);
        Self { families }
    }

    /// Writes everything.
    #[must_use]
    pub fn write(&self) -> String {
        let lines: usize = self.families.values().map(|family| family.series.len() + 2).sum();
        let mut text = String::with_capacity(lines * 96);
        for (name, family) in &self.families {
            let FamilyText { help, kind, series } = family;
            // A `String` takes every text.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (series, value) in series {
                let _ = writeln!(text, "{series} {value}");
            }
        }
        text
    }

    /// Takes in what another text has, each of its series with `node` as a label unless it names a node itself.
    pub fn take_in(&mut self, other: &Self, node: &str) {
        for (name, theirs) in &other.families {
            let ours = self.families.entry(name.clone()).or_insert_with(|| FamilyText {
                help: theirs.help.clone(),
                kind: theirs.kind.clone(),
                series: Vec::new(),
            });
            // Two releases of a program may not agree about a name: one of them is not understood then.
            if ours.kind == theirs.kind {
                ours.series
                    .extend(theirs.series.iter().map(|(series, value)| (labelled(series, node), *value)));
            }
        }
    }
}

/// The text up to `max` bytes, in whole families: the rest of one that is cut would be taken for all of it.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = text.floor_char_boundary(max);
    let family = text[..end].rfind("\n# HELP ").map_or(0, |at| at + 1);
    &text[..family]
}

/// Keeps a family, unless it is the empty one before the first.
fn keep(families: &mut BTreeMap<String, FamilyText>, name: String, family: FamilyText) {
    if !name.is_empty() {
        families.insert(name, family);
    }
}

/// `x{a="b"}` → `x{node="NODE",a="b"}`.
fn labelled(series: &str, node: &str) -> String {
    match series.split_once('{') {
        Some((_, labels)) if labels.starts_with("node=\"") => series.to_owned(),
        Some((name, labels)) => format!("{name}{{node=\"{node}\",{labels}"),
        None => format!("{series}{{node=\"{node}\"}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total A thing.\n# TYPE a_total counter\na_total{of=\"x y\"} 3\na_total 4.5\n\
                        # HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 9\nh_count 2\n";

    #[test]
    fn what_was_read_is_written_as_it_was() {
        assert_eq!(Exposition::parse(TEXT).write(), TEXT);
        assert_eq!(Exposition::parse("x 1\n# EOF\nrubbish").write(), "");
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_two_families() {
        assert_eq!(cut(TEXT, TEXT.len()), TEXT);
        let first = TEXT.find("# HELP h").unwrap();
        assert_eq!(cut(TEXT, TEXT.len() - 1), &TEXT[..first]);
        assert_eq!(cut(TEXT, 40), "");
    }

    #[test]
    fn texts_are_put_together_by_family_with_the_nodes_name() {
        let mut all = Exposition::default();
        all.take_in(&Exposition::parse(TEXT), "net");
        all.take_in(
            &Exposition::parse("# HELP a_total Said otherwise.\n# TYPE a_total counter\na_total 1\n"),
            "gate",
        );
        all.take_in(&Exposition::parse("# HELP up U.\n# TYPE up gauge\nup{node=\"z\"} 1\n"), "master");
        all.take_in(&Exposition::parse("# HELP h H.\n# TYPE h gauge\nh 1\n"), "odd");
        assert_eq!(
            all.write(),
            "# HELP a_total A thing.\n# TYPE a_total counter\na_total{node=\"net\",of=\"x y\"} 3\na_total{node=\"net\"} 4.5\n\
             a_total{node=\"gate\"} 1\n# HELP h H.\n# TYPE h histogram\nh_bucket{node=\"net\",le=\"1\"} 1\n\
             h_bucket{node=\"net\",le=\"+Inf\"} 2\nh_sum{node=\"net\"} 9\nh_count{node=\"net\"} 2\n\
             # HELP up U.\n# TYPE up gauge\nup{node=\"z\"} 1\n"
        );
    }
}
