//! Keeps the first invariants of ARCHITECTURE.md: who may import whom.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};

/// Every package of the workspace, and which others of it it may depend on.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("ffproto", &[]),
    ("ffconfig", &["ffproto"]),
    ("ffnet", &["ffproto"]),
    ("fftelemetry", &[]),
    ("ffdata", &[]),
    ("ffmacros", &[]),
    ("ffserver", &["ffdata", "ffmacros", "ffnet", "ffproto", "ffconfig", "fftelemetry"]),
    ("apps", &["ffserver"]),
    ("appmain", &["apps", "ffserver", "ffconfig", "ffnet", "fftelemetry"]),
    ("master", &["ffconfig", "ffnet", "ffproto", "fftelemetry"]),
    ("bench", &["ffproto"]),
    ("fuzzchecks", &["ffdata", "ffproto", "ffconfig"]),
    ("tests", &["ffproto", "ffconfig", "ffnet", "fftelemetry", "ffserver", "apps", "master"]),
];

/// What a package must never depend on, not even through others.
const NEVER: &[(&str, &[&str])] = &[
    ("ffproto", &["tokio", "rocket", "sqlx", "nix"]),
    ("ffconfig", &["tokio", "rocket", "sqlx"]),
    ("ffdata", &["tokio", "rocket", "sqlx", "nix"]),
    ("master", &["sqlx", "sqlx-core", "memcache", "ffserver", "apps"]),
];

struct Graph {
    members: BTreeSet<String>,
    /// Package → what it depends on directly, without dev-dependencies.
    direct: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Result<Self> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--offline"])
            // What other platforms would need is not downloaded.
            .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
            .current_dir(tests::bins::root())
            .output()?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let names: BTreeMap<String, String> =
            list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let mut direct = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let shipped =
                |dep: &&serde_json::Value| list(&dep["dep_kinds"]).iter().any(|k| k["kind"] != "dev");
            let deps = list(&node["deps"]);
            let deps = deps.iter().filter(shipped).map(|dep| names[&text(&dep["pkg"])].clone()).collect();
            direct.insert(names[&text(&node["id"])].clone(), deps);
        }
        let members =
            list(&metadata["workspace_members"]).iter().map(|id| names[&text(id)].clone()).collect();
        Ok(Self { members, direct })
    }

    fn reaches(&self, from: &str) -> BTreeSet<String> {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(package) = todo.pop() {
            for next in self.direct.get(&package).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    todo.push(next.clone());
                }
            }
        }
        seen
    }
}

#[test]
fn every_package_imports_only_what_the_architecture_allows() -> Result<()> {
    let graph = Graph::read()?;
    let rules: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    for member in &graph.members {
        let allowed = rules.get(member.as_str()).with_context(|| format!("{member} has no rule here"))?;
        let ours: Vec<_> = graph.direct[member].iter().filter(|dep| graph.members.contains(*dep)).collect();
        for dep in ours {
            assert!(allowed.contains(&dep.as_str()), "{member} imports {dep}, which ARCHITECTURE.md forbids");
        }
    }
    Ok(())
}

#[test]
fn the_wire_does_no_io_and_the_master_knows_no_handler_and_no_database() -> Result<()> {
    let graph = Graph::read()?;
    for (package, forbidden) in NEVER {
        let reached = graph.reaches(package);
        assert!(!reached.is_empty() || *package == "ffproto", "{package} is not in the graph");
        for never in *forbidden {
            assert!(!reached.contains(*never), "{package} reaches {never}");
        }
    }
    Ok(())
}
