//! What ARCHITECTURE.md and a crate's `lib.rs` say about rooms, and its manifest about dependencies, read from their text.

use std::collections::BTreeSet;

/// The rooms of a crate in their order, from the sentence "Inside `NAME` a room imports only those before it…: a, b, c."
pub fn rooms(architecture: &str, name: &str) -> Option<Vec<String>> {
    let (_, after) =
        architecture.split_once(&format!("Inside `{name}` a room imports only those before it"))?;
    let (_, list) = after.split_once(':')?;
    let list = list.split('.').next()?.split(',');
    Some(list.map(|room| room.trim().trim_matches('`').to_owned()).collect())
}

/// The rooms of a crate that are large for a reason, from lines "- `NAME::ROOM` is above 3,500 lines: REASON".
pub fn large_rooms(architecture: &str, name: &str) -> Vec<(String, String)> {
    let row = |line: &str| {
        let (path, rest) = line.strip_prefix("- `")?.split_once('`')?;
        let reason = rest.strip_prefix(" is above 3,500 lines:")?.trim();
        let room = path.strip_prefix(name)?.strip_prefix("::")?;
        (!reason.is_empty()).then(|| (room.to_owned(), reason.to_owned()))
    };
    architecture.lines().filter_map(row).collect()
}

/// The modules that a `lib.rs` declares, in its order; a module of tests is none.
pub fn modules(lib: &str) -> Vec<String> {
    let file = syn::parse_file(lib);
    let items = file.map(|file| file.items).unwrap_or_default();
    let name = |item: &syn::Item| match item {
        syn::Item::Mod(module) if module.content.is_none() && !crate::source::is_test(&module.attrs) => {
            Some(module.ident.to_string())
        }
        _ => None,
    };
    items.iter().filter_map(name).collect()
}

/// The crates that a manifest lets its crate import, without those that only its tests and builds may.
pub fn dependencies(manifest: &str) -> BTreeSet<String> {
    let (mut found, mut listed) = (BTreeSet::new(), false);
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.split(']').next().unwrap_or_default();
            listed = table == "dependencies" || table.ends_with(".dependencies");
            found.extend(table.strip_prefix("dependencies.").map(str::to_owned));
        } else if listed && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty());
            found.extend(name.map(str::to_owned));
        }
    }
    found
}
