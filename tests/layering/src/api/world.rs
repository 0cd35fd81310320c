//! The modules of a workspace's libraries, and what a path in one of them leads to.

use std::collections::BTreeMap;

use syn::{Attribute, Item, UseTree, Visibility};

use crate::source::{File, attrs, is_test};

/// A module of a library.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    library: String,
    module: Vec<String>,
}

impl Place {
    pub(super) fn root(library: &str) -> Self {
        Self { library: library.to_owned(), module: vec![] }
    }

    pub(super) fn child(&self, name: &str) -> Self {
        let module = self.module.iter().cloned().chain([name.to_owned()]).collect();
        Self { library: self.library.clone(), module }
    }

    fn parent(&self) -> Self {
        let (_, above) = self.module.split_last().unwrap_or((&String::new(), &[])).to_owned();
        Self { library: self.library.clone(), module: above.to_vec() }
    }
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Module(Place),
    /// An item by its number in its module.
    Item(Place, usize),
    /// The whole path of what no library of the workspace has.
    Foreign(String),
}

/// A name that a `use` brings.
pub(super) struct Leaf {
    path: Vec<String>,
    /// `None` for a glob.
    name: Option<String>,
}

/// Stands for a name that no source defines.
const MADE: &str = "(what a macro makes)";

/// Imports of imports beyond this are a circle.
const DEPTH: usize = 12;

pub(super) struct World<'a> {
    modules: BTreeMap<Place, Vec<&'a Item>>,
    impls: BTreeMap<Target, Vec<&'a syn::ItemImpl>>,
}

impl<'a> World<'a> {
    pub(super) fn of(libraries: &'a [(&str, Vec<File>)]) -> Self {
        let mut world = Self { modules: BTreeMap::new(), impls: BTreeMap::new() };
        for (library, files) in libraries {
            for file in files {
                let place = Place { library: (*library).to_owned(), module: file.module.clone() };
                world.add(&place, &file.ast.items);
            }
        }
        world.impls = world.all_impls();
        world
    }

    fn add(&mut self, place: &Place, items: &'a [Item]) {
        self.modules.entry(place.clone()).or_default();
        for item in items {
            // An exported macro is the root's, wherever it stands.
            let at = match item {
                Item::Macro(_) => Place::root(&place.library),
                _ => place.clone(),
            };
            self.modules.entry(at).or_default().push(item);
            if let Item::Mod(module) = item
                && !is_test(&module.attrs)
                && let Some((_, items)) = &module.content
            {
                self.add(&place.child(&module.ident.to_string()), items);
            }
        }
    }

    pub(super) fn items(&self, place: &Place) -> &[&'a Item] {
        self.modules.get(place).map_or(&[], Vec::as_slice)
    }

    /// Every `impl` of the workspace whose type is this item.
    pub(super) fn impls_of(&self, target: &Target) -> &[&'a syn::ItemImpl] {
        self.impls.get(target).map_or(&[], Vec::as_slice)
    }

    fn all_impls(&self) -> BTreeMap<Target, Vec<&'a syn::ItemImpl>> {
        let mut impls: BTreeMap<Target, Vec<&'a syn::ItemImpl>> = BTreeMap::new();
        for (place, items) in &self.modules {
            for item in items {
                let Item::Impl(of) = item else { continue };
                for target in self.types(place, &of.self_ty) {
                    impls.entry(target).or_default().push(of);
                }
            }
        }
        impls
    }

    fn types(&self, place: &Place, ty: &syn::Type) -> Vec<Target> {
        let syn::Type::Path(path) = ty else { return vec![] };
        let segments: Vec<_> = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.resolve(place, &segments, 0)
    }

    /// What a leaf brings into its module: names, and what each leads to.
    pub(super) fn imported(&self, place: &Place, leaf: &Leaf) -> Vec<(String, Target)> {
        let found = self.resolve(place, &leaf.path, 0);
        let Some(name) = &leaf.name else {
            return found.iter().flat_map(|target| self.all_public(target)).collect();
        };
        if found.is_empty() {
            return vec![(name.clone(), Target::Foreign(MADE.to_owned()))];
        }
        found.into_iter().map(|target| (name.clone(), target)).collect()
    }

    /// What a glob of a module brings.
    fn all_public(&self, of: &Target) -> Vec<(String, Target)> {
        let Target::Module(place) = of else { return vec![] };
        let named = self.items(place).iter().enumerate().filter(|(_, item)| is_public(item));
        named
            .flat_map(|(index, item)| match item {
                Item::Use(import) => {
                    leaves(&import.tree).iter().flat_map(|leaf| self.imported(place, leaf)).collect()
                }
                Item::Mod(module) => {
                    let name = module.ident.to_string();
                    vec![(name.clone(), Target::Module(place.child(&name)))]
                }
                item => name(item)
                    .map(|name| vec![(name, Target::Item(place.clone(), index))])
                    .unwrap_or_default(),
            })
            .collect()
    }

    fn resolve(&self, place: &Place, path: &[String], depth: usize) -> Vec<Target> {
        let Some((first, rest)) = path.split_first() else { return vec![] };
        let root = Place::root(first);
        let start = match first.as_str() {
            "crate" => vec![Target::Module(Place::root(&place.library))],
            "self" => vec![Target::Module(place.clone())],
            "super" => vec![Target::Module(place.parent())],
            _ => match self.lookup(place, first, depth + 1) {
                found if !found.is_empty() => found,
                _ if self.modules.contains_key(&root) => vec![Target::Module(root)],
                _ => vec![Target::Foreign(first.clone())],
            },
        };
        rest.iter().fold(start, |from, name| {
            from.iter().flat_map(|target| self.inside(target, name, depth + 1)).collect()
        })
    }

    fn inside(&self, target: &Target, name: &str, depth: usize) -> Vec<Target> {
        match target {
            Target::Module(place) if name == "super" => vec![Target::Module(place.parent())],
            Target::Module(place) if name == "self" => vec![Target::Module(place.clone())],
            Target::Module(place) => self.lookup(place, name, depth),
            Target::Foreign(path) => vec![Target::Foreign(format!("{path}::{name}"))],
            // A variant, or what else an item has inside: named with it.
            Target::Item(..) => vec![],
        }
    }

    /// What a name means in a module.
    fn lookup(&self, place: &Place, wanted: &str, depth: usize) -> Vec<Target> {
        if depth > DEPTH {
            return vec![];
        }
        let mut found = vec![];
        if self.modules.contains_key(&place.child(wanted)) {
            found.push(Target::Module(place.child(wanted)));
        }
        for (index, item) in self.items(place).iter().enumerate() {
            if !is_there(attributes(item)) {
                continue;
            }
            match item {
                Item::Use(import) => {
                    for leaf in leaves(&import.tree) {
                        if leaf.name.as_deref() == Some(wanted) {
                            found.extend(self.resolve(place, &leaf.path, depth + 1));
                        } else if leaf.name.is_none() {
                            let modules = self.resolve(place, &leaf.path, depth + 1);
                            let theirs = modules.iter().filter(|target| matches!(target, Target::Module(_)));
                            found.extend(theirs.flat_map(|target| self.inside(target, wanted, depth + 1)));
                        }
                    }
                }
                Item::Mod(_) => {}
                item if name(item).as_deref() == Some(wanted) => {
                    found.push(Target::Item(place.clone(), index));
                }
                _ => {}
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

/// The names that a `use` brings.
pub(super) fn leaves(tree: &UseTree) -> Vec<Leaf> {
    fn grow(tree: &UseTree, path: &[String], into: &mut Vec<Leaf>) {
        let with = |name: &syn::Ident| path.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(step) => grow(&step.tree, &with(&step.ident), into),
            UseTree::Group(group) => group.items.iter().for_each(|item| grow(item, path, into)),
            UseTree::Glob(_) => into.push(Leaf { path: path.to_vec(), name: None }),
            UseTree::Name(name) if name.ident == "self" => {
                into.push(Leaf { path: path.to_vec(), name: path.last().cloned() });
            }
            UseTree::Name(name) => {
                into.push(Leaf { path: with(&name.ident), name: Some(name.ident.to_string()) });
            }
            UseTree::Rename(name) => {
                let path = if name.ident == "self" { path.to_vec() } else { with(&name.ident) };
                into.push(Leaf { path, name: Some(name.rename.to_string()) });
            }
        }
    }
    let mut found = vec![];
    grow(tree, &[], &mut found);
    found
}

/// The name by which others know an item; none for what has none, such as an `impl`.
pub(super) fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(x) => &x.ident,
        Item::Enum(x) => &x.ident,
        Item::Fn(x) => return Some(derived(x).unwrap_or_else(|| x.sig.ident.to_string())),
        Item::Macro(x) => x.ident.as_ref()?,
        Item::Mod(x) => &x.ident,
        Item::Static(x) => &x.ident,
        Item::Struct(x) => &x.ident,
        Item::Trait(x) => &x.ident,
        Item::Type(x) => &x.ident,
        Item::Union(x) => &x.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// The name of the derive that a procedural macro's function is.
pub(super) fn derived(function: &syn::ItemFn) -> Option<String> {
    let attr = function.attrs.iter().find(|attr| attr.path().is_ident("proc_macro_derive"))?;
    let syn::Meta::List(list) = &attr.meta else { return None };
    list.tokens.clone().into_iter().next().map(|name| name.to_string())
}

/// Whether other crates can name an item, when they can name its module.
pub(super) fn is_public(item: &Item) -> bool {
    let visibility = match item {
        Item::Const(x) => &x.vis,
        Item::Enum(x) => &x.vis,
        Item::Fn(x) => &x.vis,
        Item::Macro(x) => return x.attrs.iter().any(|attr| attr.path().is_ident("macro_export")),
        Item::Mod(x) => &x.vis,
        Item::Static(x) => &x.vis,
        Item::Struct(x) => &x.vis,
        Item::Trait(x) => &x.vis,
        Item::Type(x) => &x.vis,
        Item::Union(x) => &x.vis,
        Item::Use(x) => &x.vis,
        _ => return false,
    };
    matches!(visibility, Visibility::Public(_))
}

pub(super) fn attributes(item: &Item) -> &[Attribute] {
    attrs(item)
}

/// The features that an item needs, as the source says it; `None` for one that nobody outside is to see: hidden, of a test, or there
/// in place of a feature.
pub(super) fn conditions(attrs: &[Attribute]) -> Option<Vec<String>> {
    let hidden = lists(attrs).any(|(attr, text)| attr.path().is_ident("doc") && text == "hidden");
    let needed = lists(attrs).filter(|(attr, _)| attr.path().is_ident("cfg")).map(|(_, text)| text);
    (!hidden && is_there(attrs)).then(|| needed.collect())
}

/// Whether an item is there when every feature is, and outside of tests.
fn is_there(attrs: &[Attribute]) -> bool {
    let instead = lists(attrs).any(|(attr, text)| attr.path().is_ident("cfg") && text.starts_with("not"));
    !instead && !is_test(attrs)
}

fn lists(attrs: &[Attribute]) -> impl Iterator<Item = (&Attribute, String)> {
    attrs.iter().filter_map(|attr| match &attr.meta {
        syn::Meta::List(list) => Some((attr, list.tokens.to_string())),
        _ => None,
    })
}
