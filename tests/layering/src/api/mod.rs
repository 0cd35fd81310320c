//! The public API of a library, as a pure function of the sources of its workspace: a line for each item that another crate can
//! name, through re-exports as well, whichever of the workspace's crates defines it.

mod shown;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{File, ParseError, Source, parse};
use world::{Place, Target, World, conditions, is_public, leaves};

/// A library of the workspace: its name, as others write it, and its sources.
#[derive(Debug, Clone)]
pub struct Library {
    /// With underscores.
    pub name: String,
    /// Those under its `src`.
    pub sources: Vec<Source>,
}

/// Names that lead deeper than this are a circle of modules.
const DEPTH: usize = 8;

/// The public API of the library `name`, by the names of its items: one line for each item, field, variant and method, and one for each further name
/// that an item has. What is `#[doc(hidden)]`, only for tests, or instead of a feature is left out; blanket implementations are,
/// too, and what a macro makes.
///
/// # Errors
/// A source is not Rust.
pub fn api(name: &str, libraries: &[Library]) -> Result<Vec<String>, ParseError> {
    let mut parsed: Vec<(&str, Vec<File>)> = vec![];
    for library in libraries {
        parsed.push((&library.name, parse(&library.sources)?));
    }
    let world = World::of(&parsed);
    let mut names = Names::new();
    collect(&world, &Place::root(name), name, &mut names);
    Ok(lines(&world, &names))
}

/// What has left a list and what is new in it, a line each: `- line` and `+ line`.
pub fn changes(before: &[String], after: &[String]) -> Vec<String> {
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (before.iter().collect(), after.iter().collect());
    let gone = old.difference(&new).map(|line| format!("- {line}"));
    gone.chain(new.difference(&old).map(|line| format!("+ {line}"))).collect()
}

/// What every public path leads to.
type Names = BTreeMap<String, BTreeSet<Target>>;

fn collect(world: &World<'_>, place: &Place, path: &str, names: &mut Names) {
    if path.split("::").count() > DEPTH {
        return;
    }
    for (index, item) in world.items(place).iter().enumerate() {
        if conditions(world::attributes(item)).is_none() || !is_public(item) {
            continue;
        }
        match item {
            syn::Item::Use(import) => {
                for leaf in leaves(&import.tree) {
                    for (name, target) in world.imported(place, &leaf) {
                        enter(world, target, &format!("{path}::{name}"), names);
                    }
                }
            }
            item => {
                let Some(name) = world::name(item) else { continue };
                let target = match item {
                    syn::Item::Mod(_) => Target::Module(place.child(&name)),
                    _ => Target::Item(place.clone(), index),
                };
                enter(world, target, &format!("{path}::{name}"), names);
            }
        }
    }
}

fn enter(world: &World<'_>, target: Target, path: &str, names: &mut Names) {
    let inside = match &target {
        Target::Module(place) => Some(place.clone()),
        _ => None,
    };
    if names.entry(path.to_owned()).or_default().insert(target)
        && let Some(place) = inside
    {
        collect(world, &place, path, names);
    }
}

/// The lines of what is named: under the shortest of its names in full, under each further one by that.
fn lines(world: &World<'_>, names: &Names) -> Vec<String> {
    let mut by_target: BTreeMap<&Target, Vec<&str>> = BTreeMap::new();
    for (path, targets) in names {
        targets.iter().for_each(|target| by_target.entry(target).or_default().push(path));
    }
    let mut by_name: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (target, mut paths) in by_target {
        paths.sort_by_key(|path| (path.split("::").count(), *path));
        let Some((first, further)) = paths.split_first() else { continue };
        let shown = match target {
            Target::Module(_) => vec![format!("mod {first}")],
            Target::Foreign(whole) => vec![format!("use {first} = {whole}")],
            Target::Item(place, index) => shown::lines(world, place, *index, first),
        };
        by_name.insert((first.to_string(), shown.first().cloned().unwrap_or_default()), shown);
        for path in further {
            let line = format!("use {path} = {first}");
            by_name.insert((path.to_string(), line.clone()), vec![line]);
        }
    }
    by_name.into_values().flatten().collect()
}
