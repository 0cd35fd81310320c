//! Turns `?` placeholders into PostgreSQL's `$1`, `$2`, …: a pure function over the statement's text.

use std::borrow::Cow;

/// The statement with every `?` outside of quotes and comments numbered, and `??` as a plain `?` (an
/// operator of jsonb). Unchanged, and not copied, when there is none.
///
/// Understands what PostgreSQL skips: `'…'` with `''`, `E'…'` with `\'`, `"…"`, `$tag$…$tag$`, `-- …` and
/// nested `/* … */`. An unfinished one reaches to the end: the server then says what is wrong.
pub(super) fn numbered(sql: &str) -> Cow<'_, str> {
    if !sql.contains('?') {
        return Cow::Borrowed(sql);
    }
    let mut out = String::with_capacity(sql.len() + 8);
    let (mut at, mut number) = (0, 0);
    while at < sql.len() {
        let rest = &sql[at..];
        let skipped = opaque(rest, sql[..at].chars().next_back());
        if skipped > 0 {
            out.push_str(&rest[..skipped]);
            at += skipped;
        } else if rest.starts_with("??") {
            out.push('?');
            at += 2;
        } else if rest.starts_with('?') {
            number += 1;
            out.push('$');
            out.push_str(&number.to_string());
            at += 1;
        } else {
            let plain = rest.chars().next().map_or(rest.len(), char::len_utf8);
            out.push_str(&rest[..plain]);
            at += plain;
        }
    }
    Cow::Owned(out)
}

/// How many bytes at the start of `rest` are one quote or comment; 0 when it starts with neither.
fn opaque(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$');
    match rest.as_bytes() {
        [b'E' | b'e', b'\'', ..] if !in_word => 1 + quoted(&rest[1..], '\'', true),
        [b'\'', ..] => quoted(rest, '\'', false),
        [b'"', ..] => quoted(rest, '"', false),
        [b'-', b'-', ..] => rest.find('\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => comment(rest),
        [b'$', ..] if !in_word => dollar_quoted(rest),
        _ => 0,
    }
}

/// The length of a quote; a doubled quote goes on, for it reads as the end and the start of the next.
fn quoted(rest: &str, quote: char, backslash: bool) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if backslash && c == '\\' {
            chars.next();
        } else if c == quote {
            if backslash && rest[at + 1..].starts_with(quote) {
                chars.next();
            } else {
                return at + 1;
            }
        }
    }
    rest.len()
}

fn comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = rest.as_bytes();
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of `$tag$…$tag$`; 0 when the dollar starts something else, as `$1` does.
fn dollar_quoted(rest: &str) -> usize {
    let Some(tag_end) = rest[1..].find('$').map(|at| at + 2) else { return 0 };
    let tag = &rest[1..tag_end - 1];
    let starts_well = !tag.starts_with(|c: char| c.is_ascii_digit());
    if !starts_well || !tag.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return 0;
    }
    rest[tag_end..].find(&rest[..tag_end]).map_or(rest.len(), |at| tag_end + at + tag_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, wanted: &str) {
        assert_eq!(numbered(sql), wanted);
    }

    #[test]
    fn placeholders_are_numbered() {
        check("INSERT INTO t (a, b) VALUES (?, ?)", "INSERT INTO t (a, b) VALUES ($1, $2)");
        check("SELECT ?::text WHERE a=?and b=?", "SELECT $1::text WHERE a=$2and b=$3");
        check("?", "$1");
    }

    #[test]
    fn a_statement_without_placeholders_is_not_copied() {
        assert!(matches!(numbered("SELECT $1"), Cow::Borrowed("SELECT $1")));
    }

    #[test]
    fn quotes_are_left_alone() {
        check("SELECT '?', ?", "SELECT '?', $1");
        check("SELECT 'it''s ?', ?", "SELECT 'it''s ?', $1");
        check(r"SELECT '\', ?", r"SELECT '\', $1");
        check(r"SELECT E'\'?', ?, e'a''?\\', ?", r"SELECT E'\'?', $1, e'a''?\\', $2");
        check(r"SELECT name'?\', ?", r"SELECT name'?\', $1");
        check(r#"SELECT "a""?", ?"#, r#"SELECT "a""?", $1"#);
        check("SELECT $$?$$, $a$ ? $b$ ? $a$, ?", "SELECT $$?$$, $a$ ? $b$ ? $a$, $1");
        check("SELECT a$b$, ?, $1, ?", "SELECT a$b$, $1, $1, $2");
        check("SELECT 'grüße?', 'ß', ?", "SELECT 'grüße?', 'ß', $1");
    }

    #[test]
    fn comments_are_left_alone() {
        check("SELECT -- ? it's\n ?", "SELECT -- ? it's\n $1");
        check("SELECT /* ? /* ' */ ? */ ?", "SELECT /* ? /* ' */ ? */ $1");
        check("SELECT 3 - ? / ? * ?", "SELECT 3 - $1 / $2 * $3");
        check("SELECT ? -- ?", "SELECT $1 -- ?");
    }

    #[test]
    fn two_question_marks_are_one() {
        check("SELECT a ?? ?", "SELECT a ? $1");
        check("SELECT a ??| ?", "SELECT a ?| $1");
    }

    #[test]
    fn an_unfinished_quote_reaches_to_the_end() {
        for open in ["'", "E'", "\"", "$$", "$x$", "/*", "/* /* */", "--", "E'\\"] {
            check(&format!("SELECT ?, {open} ?"), &format!("SELECT $1, {open} ?"));
        }
    }
}
