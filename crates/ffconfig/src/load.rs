//! From a file to a [`Cluster`]: the one place that reads it.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::finding::{Finding, LoadError};
use crate::model::Cluster;
use crate::nearest::nearest;
use crate::nodes::{Draft, drafts};
use crate::report::{Place, Report, quoted, sorted};
use crate::schema::{TOP, ValueKind};
use crate::shape::shaped;
use crate::tree::tree;
use crate::value::Placed;
use crate::vars::{Environment, write_out};
use crate::{build, checks, parents, processes, rights, routes};

/// No config is larger: 4095 nodes, written out one by one, take a quarter of it.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// A config that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The checked cluster.
    pub cluster: Cluster,
    /// What is odd about it, in the order of the text.
    pub warnings: Vec<Finding>,
    /// The app of each entry under `servers`, with the place where a fault of it belongs.
    apps: Vec<(String, Finding)>,
}

impl Loaded {
    /// A finding at the `app` of an entry under `servers`: for somebody who learns only after the config was loaded that
    /// an app does not fit.
    pub fn at_app(&self, key: &str, message: String) -> Option<Finding> {
        let path = format!("servers.{key}.app");
        let (_, at) = self.apps.iter().find(|(_, at)| at.path == path)?;
        Some(Finding { message, ..at.clone() })
    }

    /// The apps that are not among `known`, in the order of the text: for somebody who learns them only
    /// after the config was loaded.
    pub fn check_apps(&self, known: &[String]) -> Vec<Finding> {
        sorted(unknown_apps(&self.apps, known))
    }
}

fn unknown_apps(apps: &[(String, Finding)], known: &[String]) -> Vec<Finding> {
    let unknown = apps.iter().filter(|(app, _)| !known.contains(app));
    let faults = unknown.map(|(app, at)| {
        let listed: Vec<String> = known.iter().map(|app| format!("`{app}`")).collect();
        let message = format!("there is no app {}; the program has {}", quoted(app), listed.join(", "));
        Finding { message, nearest: nearest(app, known.iter().map(String::as_str)), ..at.clone() }
    });
    faults.collect()
}

/// Reads and checks a config file. `env` answers for `${NAME}`; a program gives
/// `&|name| std::env::var(name).ok()`.
///
/// # Errors
/// When the file cannot be read, or with every fault of its text.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, LoadError> {
    load_with_apps(path, env, None)
}

/// As [`load`], by somebody who knows which apps there are: an unknown one is a fault among the others.
///
/// # Errors
/// When the file cannot be read, or with every fault of its text.
pub fn load_with_apps(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    apps: Option<&[String]>,
) -> Result<Loaded, LoadError> {
    let unreadable = |reason| LoadError::Unreadable { file: path.to_owned(), reason };
    let bytes = read(path).map_err(unreadable)?;
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => check(text, &absolute, path, env, apps),
        Err(error) => {
            let text = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let mut report = Report::new(&text, path.to_owned());
            report.fault(&Place { at: text.len(), path: String::new() }, "the text is not UTF-8 from here");
            Err(LoadError::Faults(report.into_sorted().0))
        }
    }
}

/// The program that a config file names by `appmain`, absolute; also when the file has faults elsewhere, for that program knows
/// which apps there are, and an unknown one is a fault among them. `None` when the file names none, or cannot be read so far.
pub fn load_appmain(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let (bytes, absolute) = (read(path).ok()?, std::path::absolute(path).ok()?);
    let text = std::str::from_utf8(&bytes).ok()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root = shape(text, env, &mut Report::new(text, PathBuf::new()))?;
    build::appmain(root.fields()?, absolute.parent()?)
}

/// Where the master of a config answers operators, as far as the file says it: `master.webport`, `master.roothost` and `master.tls.cert`. Also when the
/// file has faults elsewhere, for a cluster runs on while its next config is written. `None` when the file does not say it.
///
/// # Errors
/// The file cannot be read.
pub fn load_webport(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> io::Result<Option<MasterWebport>> {
    let bytes = read(path)?;
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(None) };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(root) = shape(text, env, &mut Report::new(text, PathBuf::new())) else { return Ok(None) };
    let master = root.fields().and_then(|root| root.section("master"));
    let folder = path.parent().unwrap_or(Path::new(""));
    let webport = |master: &crate::fields::Fields| {
        let cert = master.section("tls").and_then(|tls| tls.text("cert"));
        Some(MasterWebport {
            at: master.listen("webport")?,
            roothost: master.text("roothost").map(str::to_owned),
            cert: cert.map(|cert| folder.join(cert)),
        })
    };
    Ok(master.and_then(webport))
}

/// Where a config says that its master answers, of [`load_webport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterWebport {
    /// `webport`.
    pub at: SocketAddr,
    /// `roothost`.
    pub roothost: Option<String>,
    /// The file of the certificate that it shows, where it speaks HTTPS.
    pub cert: Option<PathBuf>,
}

/// Checks the text of a config. `path` is where it is from: findings name it, relative paths in the text
/// are relative to its folder. Reads no file and no environment.
///
/// # Errors
/// With every fault of the text.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, LoadError> {
    check(text, path, path, env, None)
}

/// At most one byte more than allowed, so that `check` sees that it is too much.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `shown` is the path in findings: as somebody named it, where `path` is absolute.
fn check(
    text: &str,
    path: &Path,
    shown: &Path,
    env: Environment<'_>,
    known: Option<&[String]>,
) -> Result<Loaded, LoadError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::new(text, PathBuf::from(shown));
    match checked(text, path, env, known, &mut report) {
        Some((cluster, apps)) if !report.has_faults() => {
            Ok(Loaded { cluster, apps, warnings: report.into_sorted().1 })
        }
        _ => {
            if !report.has_faults() {
                report
                    .fault(&Place::default(), "it cannot be used, and why is not known: please report this");
            }
            Err(LoadError::Faults(report.into_sorted().0))
        }
    }
}

type Apps = Vec<(String, Finding)>;

/// The steps, one after the other, each as far as the one before it came.
fn checked(
    text: &str,
    path: &Path,
    env: Environment<'_>,
    known: Option<&[String]>,
    report: &mut Report<'_>,
) -> Option<(Cluster, Apps)> {
    let root = shape(text, env, report)?;
    let root = root.fields()?;
    let drafts = drafts(root.map("servers"), root.place_of("servers"), report);
    let links = parents::links(&drafts, report);
    checks::check(root, &drafts, report);
    processes::check(&drafts, report);
    routes::check(&drafts, &links, report);
    rights::check(&drafts, report);
    let apps = apps(&drafts, report);
    for finding in known.map(|known| unknown_apps(&apps, known)).unwrap_or_default() {
        report.add_fault(finding);
    }
    if report.has_faults() {
        return None;
    }
    Some((build::cluster(root, &drafts, &links, path, report)?, apps))
}

/// The text as checked keys.
fn shape(text: &str, env: Environment<'_>, report: &mut Report<'_>) -> Option<Placed> {
    if text.len() > FILE_BYTES_MAX {
        report.fault(&Place::default(), format!("it is larger than {FILE_BYTES_MAX} bytes"));
        return None;
    }
    let mut tree = tree(text, report)?;
    write_out(&mut tree, env, report);
    Some(shaped(tree, ValueKind::Section(&TOP), Place::default(), report))
}

fn apps(drafts: &[Draft<'_>], report: &Report<'_>) -> Apps {
    let fields = drafts.iter().filter_map(|draft| draft.fields);
    let app = |fields: &crate::fields::Fields| {
        let place = fields.place_of("app");
        Some((fields.text("app")?.to_owned(), report.finding(place, String::new(), None)))
    };
    fields.filter_map(app).collect()
}
