//! `db`: a URL, firefly's keys made into one, or the SQLite file that needs nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use ffproto::ClusterName;

use crate::fields::Fields;
use crate::model::Database;
use crate::report::{Report, quoted};

const FIREFLY: [&str; 6] = ["host", "port", "user", "passwd", "db", "charset"];
const KEPT: [&str; 7] =
    ["mincached", "maxcached", "maxshared", "maxconnections", "maxusage", "blocking", "use_unicode"];

/// The schemes that are accepted, and the one that each becomes.
const SCHEMES: [(&str, &str); 5] = [
    ("sqlite", "sqlite"),
    ("mysql", "mysql"),
    ("mariadb", "mysql"),
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
];

/// Checks the scheme and that something follows it; never shows what follows, for it has the password.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err("expected the URL of a database, `sqlite:…`, `mysql://…` or `postgres://…`".to_owned());
    };
    match SCHEMES.iter().find(|(accepted, _)| *accepted == scheme) {
        None => Err(format!("the scheme {} is unknown: expected sqlite, mysql or postgres", quoted(scheme))),
        Some((_, "sqlite")) if rest.trim_start_matches('/').is_empty() => {
            Err("the URL names no file".to_owned())
        }
        Some((_, "sqlite")) => Ok(()),
        Some(_) if rest.strip_prefix("//").is_some_and(|rest| !rest.is_empty()) => Ok(()),
        Some(_) => Err(format!("after `{scheme}:` the URL goes on with `//HOST`")),
    }
}

/// What the keys of `db` say about each other.
pub(crate) fn check(db: &Fields, report: &mut Report<'_>) {
    let Some(one) = FIREFLY.into_iter().find(|key| db.given(key)) else { return };
    if db.given("url") {
        return report.fault(db.place_of(one), format!("`{one}` beside `url`: give the one or the other"));
    }
    for key in ["user", "db"].into_iter().filter(|key| !db.given(key)) {
        report.fault(&db.place, format!("the key `{key}` is missing: `{one}` is given"));
    }
}

/// The settings; `db` has no faults.
pub(crate) fn database(db: Option<&Fields>, folder: &Path, cluster: &ClusterName) -> Database {
    let mut database = Database::default_sqlite(folder, cluster);
    let Some(db) = db else { return database };
    if let Some(url) = db.text("url") {
        database.url = normal_url(url, folder);
    } else if FIREFLY.iter().any(|key| db.given(key)) {
        database.url = firefly_url(db);
    }
    database.connections_max = db.number("connections_max").unwrap_or(database.connections_max);
    if let Some(ms) = db.number("connect_timeout_ms") {
        database.connect_timeout = Duration::from_millis(ms);
    }
    database.read_url = db.text("read_url").map(|url| normal_url(url, folder));
    database.migrations = db.text("migrations").map(|path| folder.join(path));
    if let Some(ms) = db.number("slow_ms") {
        database.slow = Duration::from_millis(ms);
    }
    let kept = KEPT.into_iter().filter_map(|key| Some((key.to_owned(), db.text(key)?.to_owned())));
    database.options = kept.collect();
    database
}

impl Database {
    /// The database of a config that describes none: `data/CLUSTER.sqlite` in the config's folder, made
    /// when it is missing. The folder `data` is for whoever opens it to make.
    pub fn default_sqlite(folder: &Path, cluster: &ClusterName) -> Self {
        let url = sqlite_url(&format!("data/{cluster}.sqlite"), folder);
        Self::at(url)
    }

    /// The database of a URL in its normal form, with every default.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections_max: 5,
            connect_timeout: Duration::from_secs(5),
            read_url: None,
            migrations: None,
            slow: Duration::from_millis(500),
            options: BTreeMap::new(),
        }
    }

    /// The file of a `sqlite:` URL; `None` for other databases, and for one in memory.
    pub fn sqlite_file(&self) -> Option<std::path::PathBuf> {
        let file = self.url.strip_prefix("sqlite://")?;
        let file = file.split_once('?').map_or(file, |(file, _)| file);
        file.starts_with('/').then(|| decoded(file).into())
    }

    /// The URL for logs: without password, and without options, for these can hold one too.
    pub fn shown_url(&self) -> String {
        shown(&self.url)
    }
}

/// A URL without password and options.
pub(crate) fn shown(url: &str) -> String {
    let url = url.split_once('?').map_or(url, |(url, _)| url);
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // The last `@`: a password may have one that nobody encoded.
    match rest.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split_once(':').map_or(login, |(user, _)| user);
            format!("{scheme}://{user}:***@{host}")
        }
        None => url.to_owned(),
    }
}

fn firefly_url(db: &Fields) -> String {
    let text = |key| db.text(key).unwrap_or_default();
    let host = db.text("host").unwrap_or("localhost");
    let host = if host.contains(':') { format!("[{host}]") } else { encoded(host, "") };
    let mut url = format!("mysql://{}", encoded(text("user"), ""));
    // A write into a String cannot fail.
    if db.given("passwd") {
        let _ = write!(url, ":{}", encoded(text("passwd"), ""));
    }
    let port: u16 = db.number("port").unwrap_or(3306);
    let _ = write!(url, "@{host}:{port}/{}", encoded(text("db"), ""));
    if let Some(charset) = db.text("charset") {
        let _ = write!(url, "?charset={}", encoded(charset, ""));
    }
    url
}

/// One spelling per kind of database, SQLite files absolute.
fn normal_url(url: &str, folder: &Path) -> String {
    let Some((scheme, rest)) = url.split_once(':') else { return url.to_owned() };
    match SCHEMES.iter().find(|(accepted, _)| *accepted == scheme) {
        Some((_, "sqlite")) => sqlite_url(rest.strip_prefix("//").unwrap_or(rest), folder),
        Some((_, normal)) => format!("{normal}:{rest}"),
        None => url.to_owned(),
    }
}

fn sqlite_url(file: &str, folder: &Path) -> String {
    let (file, query) = file.split_once('?').unwrap_or((file, ""));
    if file == ":memory:" {
        return "sqlite::memory:".to_owned();
    }
    let query = match query {
        "" => "mode=rwc".to_owned(),
        given if given.split('&').any(|pair| pair.starts_with("mode=")) => given.to_owned(),
        given => format!("{given}&mode=rwc"),
    };
    if file.starts_with('/') {
        return format!("sqlite://{file}?{query}");
    }
    let folder = encoded(&folder.to_string_lossy(), "/");
    format!("sqlite://{}/{file}?{query}", folder.trim_end_matches('/'))
}

/// Percent-encoded but for letters, digits, `-._~` and `also`.
fn encoded(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(url: &str) -> Database {
        let cluster = ClusterName::try_from("demo").unwrap();
        Database {
            url: normal_url(url, Path::new("/srv/my game")),
            ..Database::default_sqlite(Path::new("/"), &cluster)
        }
    }

    #[test]
    fn a_sqlite_file_is_beside_the_config() {
        for (given, expected) in [
            ("sqlite:a.db", "sqlite:///srv/my%20game/a.db?mode=rwc"),
            ("sqlite://a.db?mode=ro", "sqlite:///srv/my%20game/a.db?mode=ro"),
            ("sqlite:///var/a.db?cache=shared", "sqlite:///var/a.db?cache=shared&mode=rwc"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("mariadb://u@h/d", "mysql://u@h/d"),
            ("postgresql://u@h/d", "postgres://u@h/d"),
        ] {
            assert_eq!(database(given).url, expected);
        }
        let file = database("sqlite:a.db").sqlite_file();
        assert_eq!(file.as_deref(), Some(Path::new("/srv/my game/a.db")));
        assert_eq!(database("sqlite::memory:").sqlite_file(), None);
        assert_eq!(database("mysql://u@h/d").sqlite_file(), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(database("mysql://root:s3cret@h:3306/d").shown_url(), "mysql://root:***@h:3306/d");
        assert_eq!(database("mysql://root:p@ss@h/d").shown_url(), "mysql://root:***@h/d");
        assert_eq!(database("mysql://root:p/@ss@h/d").shown_url(), "mysql://root:***@h/d");
        assert_eq!(database("postgres://h/d?password=s3cret").shown_url(), "postgres://h/d");
        assert!(!format!("{:?}", database("mysql://root:s3cret@h:3306/d")).contains("s3cret"));
    }
}
