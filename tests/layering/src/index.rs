//! The crate's names: modules, what they define and import, and which methods a type has where.

use std::collections::{BTreeSet, HashMap, HashSet};

use syn::spanned::Spanned;

use crate::source::{File, attrs, is_test, line};

/// A definition that others can name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) module: usize,
    pub(crate) kind: Kind,
}

/// What a definition is, with its place in the index's list of such.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Type(usize),
    Trait(usize),
    Fn(usize),
    Alias(usize),
    Other,
}

#[derive(Debug, Clone)]
enum Name {
    Module(usize),
    Item(Item),
    Import(Vec<String>),
}

/// A module: a file, or an inline one.
pub(crate) struct Module {
    pub(crate) path: Vec<String>,
    pub(crate) file: usize,
    parent: Option<usize>,
    names: HashMap<String, Vec<Name>>,
    globs: Vec<Vec<String>>,
}

/// A struct, an enum or a union.
pub(crate) struct TypeDef {
    pub(crate) name: String,
    pub(crate) module: usize,
    pub(crate) generics: Vec<String>,
    pub(crate) fields: Fields,
    pub(crate) variants: HashMap<String, Fields>,
    /// What it derefs to, with the module that says so.
    pub(crate) target: Option<(syn::Type, usize)>,
    pub(crate) methods: HashMap<String, Function>,
}

/// Types by the field's name, or number.
pub(crate) type Fields = HashMap<String, syn::Type>;

/// A trait.
pub(crate) struct TraitDef {
    pub(crate) name: String,
    pub(crate) methods: HashMap<String, Function>,
}

/// A function or method: where it is, and what it gives.
#[derive(Clone)]
pub(crate) struct Function {
    pub(crate) module: usize,
    pub(crate) output: Option<syn::Type>,
    pub(crate) is_async: bool,
    pub(crate) generics: Vec<String>,
}

/// A `type`: what it stands for.
pub(crate) struct Alias {
    pub(crate) module: usize,
    pub(crate) generics: Vec<String>,
    pub(crate) ty: syn::Type,
}

/// An inherent `impl` of a type of this crate.
pub(crate) struct Impl {
    pub(crate) ty: String,
    pub(crate) file: usize,
    pub(crate) home: usize,
    pub(crate) line: usize,
}

/// An `impl` of a trait, where the trait or the type is of this crate.
pub(crate) struct TraitImpl {
    /// As it is written, without arguments.
    pub(crate) what: String,
    pub(crate) file: usize,
    /// Files that define the type, the trait, and what they have as arguments.
    pub(crate) homes: Vec<usize>,
    pub(crate) line: usize,
}

/// What a path leads to.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    Module(usize),
    /// A definition, and the segments after it.
    Item(Item, Vec<String>),
    /// Another crate's, with the whole path after imports are replaced.
    Foreign(Vec<String>),
    Nothing,
}

#[derive(Default)]
pub(crate) struct Index {
    pub(crate) modules: Vec<Module>,
    by_path: HashMap<Vec<String>, usize>,
    /// Names by which the crate calls itself.
    selves: HashSet<String>,
    pub(crate) types: Vec<TypeDef>,
    pub(crate) traits: Vec<TraitDef>,
    pub(crate) fns: Vec<Function>,
    pub(crate) aliases: Vec<Alias>,
    pub(crate) impls: Vec<Impl>,
    pub(crate) trait_impls: Vec<TraitImpl>,
    /// Files that define a method of this name, by types and by traits of this crate.
    pub(crate) methods: HashMap<String, BTreeSet<usize>>,
    /// Methods that are implemented for other crates' traits.
    pub(crate) foreign: HashSet<String>,
}

/// How deep imports of imports are followed: more is a circle of them.
const DEPTH: usize = 24;

impl Index {
    pub(crate) fn build(files: &[File]) -> Self {
        let mut index = Self::default();
        for (at, file) in files.iter().enumerate() {
            index.module(&file.module, at);
        }
        for (at, file) in files.iter().enumerate() {
            let module = index.module(&file.module, at);
            index.modules[module].file = at;
            index.define_all(&file.ast.items, module);
        }
        for (at, file) in files.iter().enumerate() {
            let module = index.module(&file.module, at);
            index.implement_all(&file.ast.items, module);
        }
        index
    }

    /// The module at a path; it and those above it are made if they are not there.
    pub(crate) fn module(&mut self, path: &[String], file: usize) -> usize {
        if let Some(module) = self.by_path.get(path) {
            return *module;
        }
        let parent = path.split_last().map(|(_, above)| self.module(above, file));
        let module = self.modules.len();
        let (names, globs) = (HashMap::new(), vec![]);
        self.modules.push(Module { path: path.to_vec(), file, parent, names, globs });
        self.by_path.insert(path.to_vec(), module);
        if let (Some(parent), Some(name)) = (parent, path.last()) {
            self.name(parent, name.clone(), Name::Module(module));
        }
        module
    }

    /// The module of an inline `mod`.
    pub(crate) fn inline(&self, within: usize, name: &syn::Ident) -> Option<usize> {
        let path: Vec<_> = self.modules[within].path.iter().cloned().chain([name.to_string()]).collect();
        self.by_path.get(&path).copied()
    }

    fn name(&mut self, module: usize, name: String, means: Name) {
        self.modules[module].names.entry(name).or_default().push(means);
    }

    fn item(&mut self, module: usize, name: &syn::Ident, kind: Kind) {
        self.name(module, name.to_string(), Name::Item(Item { module, kind }));
    }

    fn define_all(&mut self, items: &[syn::Item], module: usize) {
        for item in items.iter().filter(|item| !is_test(attrs(item))) {
            self.define(item, module);
        }
    }

    fn define(&mut self, item: &syn::Item, module: usize) {
        match item {
            syn::Item::Struct(item) => {
                let fields = fields(&item.fields);
                self.define_type(module, &item.ident, &item.generics, fields, HashMap::new());
            }
            syn::Item::Union(item) => {
                let fields = fields(&syn::Fields::Named(item.fields.clone()));
                self.define_type(module, &item.ident, &item.generics, fields, HashMap::new());
            }
            syn::Item::Enum(item) => {
                let variants =
                    item.variants.iter().map(|v| (v.ident.to_string(), fields(&v.fields))).collect();
                self.define_type(module, &item.ident, &item.generics, HashMap::new(), variants);
            }
            syn::Item::Trait(item) => self.define_trait(module, item),
            syn::Item::Fn(item) => {
                let kind = Kind::Fn(self.fns.len());
                self.fns.push(function(&item.sig, module, &[]));
                self.item(module, &item.sig.ident, kind);
            }
            syn::Item::Type(item) => {
                let kind = Kind::Alias(self.aliases.len());
                let generics = generics(&item.generics);
                self.aliases.push(Alias { module, generics, ty: (*item.ty).clone() });
                self.item(module, &item.ident, kind);
            }
            syn::Item::Const(item) => self.item(module, &item.ident, Kind::Other),
            syn::Item::Static(item) => self.item(module, &item.ident, Kind::Other),
            syn::Item::Macro(item) => {
                if let Some(name) = &item.ident {
                    let exported = item.attrs.iter().any(|attr| attr.path().is_ident("macro_export"));
                    let means = Name::Item(Item { module, kind: Kind::Other });
                    let root = self.by_path.get(&Vec::new()).copied();
                    self.name(root.filter(|_| exported).unwrap_or(module), name.to_string(), means);
                }
            }
            syn::Item::ExternCrate(item) if item.ident == "self" => {
                self.selves.extend(item.rename.iter().map(|(_, name)| name.to_string()));
            }
            syn::Item::Use(item) => {
                for leaf in leaves(item) {
                    match leaf.name {
                        Some(name) => self.name(module, name, Name::Import(leaf.path)),
                        None if leaf.glob => self.modules[module].globs.push(leaf.path),
                        None => {}
                    }
                }
            }
            syn::Item::Mod(item) => {
                if let Some((_, items)) = &item.content {
                    let path: Vec<_> =
                        self.modules[module].path.iter().cloned().chain([item.ident.to_string()]).collect();
                    let inline = self.module(&path, self.modules[module].file);
                    self.define_all(items, inline);
                }
            }
            _ => {}
        }
    }

    fn define_type(
        &mut self,
        module: usize,
        name: &syn::Ident,
        of: &syn::Generics,
        fields: Fields,
        variants: HashMap<String, Fields>,
    ) {
        let kind = Kind::Type(self.types.len());
        let (generics, target, methods) = (generics(of), None, HashMap::new());
        let name_ = name.to_string();
        self.types.push(TypeDef { name: name_, module, generics, fields, variants, target, methods });
        self.item(module, name, kind);
    }

    fn define_trait(&mut self, module: usize, item: &syn::ItemTrait) {
        let kind = Kind::Trait(self.traits.len());
        let above = generics(&item.generics);
        let mut methods = HashMap::new();
        for member in &item.items {
            if let syn::TraitItem::Fn(method) = member {
                self.method(&method.sig, module);
                methods.insert(method.sig.ident.to_string(), function(&method.sig, module, &above));
            }
        }
        self.traits.push(TraitDef { name: item.ident.to_string(), methods });
        self.item(module, &item.ident, kind);
    }

    fn method(&mut self, sig: &syn::Signature, module: usize) {
        if sig.receiver().is_some() {
            let file = self.modules[module].file;
            self.methods.entry(sig.ident.to_string()).or_default().insert(file);
        }
    }

    fn implement_all(&mut self, items: &[syn::Item], module: usize) {
        for item in items.iter().filter(|item| !is_test(attrs(item))) {
            match item {
                syn::Item::Impl(item) => self.implement(item, module),
                syn::Item::Mod(item) => {
                    let inline = self.inline(module, &item.ident);
                    if let (Some((_, items)), Some(inline)) = (&item.content, inline) {
                        self.implement_all(items, inline);
                    }
                }
                // Also one in a function's block.
                syn::Item::Fn(item) => {
                    let within = item.block.stmts.iter().filter_map(|statement| match statement {
                        syn::Stmt::Item(syn::Item::Impl(item)) => Some(item),
                        _ => None,
                    });
                    within.for_each(|item| self.implement(item, module));
                }
                _ => {}
            }
        }
    }

    fn implement(&mut self, item: &syn::ItemImpl, module: usize) {
        let of = self.defined(&item.self_ty, module);
        match (&item.trait_, of) {
            (None, Some(Item { kind, module: home })) => self.inherent(item, module, kind, home),
            (None, None) => {
                for member in &item.items {
                    if let syn::ImplItem::Fn(method) = member {
                        self.method(&method.sig, module);
                    }
                }
            }
            (Some((_, name, _)), of) => {
                self.of_trait(item, name, module);
                if let (Some(Item { kind: Kind::Type(ty), .. }), Some(target)) = (of, target(name, item)) {
                    self.types[ty].target = Some((target, module));
                }
                if !matches!(self.resolve(module, &segments(name)), Found::Item(..)) {
                    let names = item.items.iter().filter_map(|member| match member {
                        syn::ImplItem::Fn(method) => Some(method.sig.ident.to_string()),
                        _ => None,
                    });
                    self.foreign.extend(names);
                }
            }
        }
    }

    fn of_trait(&mut self, item: &syn::ItemImpl, name: &syn::Path, module: usize) {
        struct Paths<'a>(Vec<&'a syn::Path>);
        impl<'a> syn::visit::Visit<'a> for Paths<'a> {
            fn visit_path(&mut self, path: &'a syn::Path) {
                self.0.push(path);
                syn::visit::visit_path(self, path);
            }
        }
        let mut paths = Paths(vec![]);
        syn::visit::Visit::visit_type(&mut paths, &item.self_ty);
        let of = paths.0.first().map(|path| segments(path).join("::")).unwrap_or_default();
        syn::visit::Visit::visit_path(&mut paths, name);
        let home = |path: &&syn::Path| match self.resolve(module, &segments(path)) {
            Found::Item(item, _) => Some(self.modules[item.module].file),
            _ => None,
        };
        let homes = paths.0.iter().filter_map(home).collect();
        let (what, file) = (format!("{} for {of}", segments(name).join("::")), self.modules[module].file);
        self.trait_impls.push(TraitImpl { what, file, homes, line: line(&item.impl_token) });
    }

    fn inherent(&mut self, item: &syn::ItemImpl, module: usize, kind: Kind, home: usize) {
        let ty = match kind {
            Kind::Type(ty) => self.types[ty].name.clone(),
            Kind::Trait(ty) => self.traits[ty].name.clone(),
            _ => return,
        };
        let (file, home) = (self.modules[module].file, self.modules[home].file);
        self.impls.push(Impl { ty, file, home, line: line(&item.impl_token) });
        let above = generics(&item.generics);
        for member in &item.items {
            let syn::ImplItem::Fn(method) = member else { continue };
            if is_test(&method.attrs) {
                continue;
            }
            self.method(&method.sig, module);
            if let Kind::Type(ty) = kind {
                let function = function(&method.sig, module, &above);
                self.types[ty].methods.insert(method.sig.ident.to_string(), function);
            }
        }
    }

    /// The definition that the type of an `impl` names: through references, aliases and `dyn`.
    fn defined(&self, ty: &syn::Type, module: usize) -> Option<Item> {
        let found = match ty {
            syn::Type::Path(path) => self.resolve(module, &segments(&path.path)),
            syn::Type::Paren(inner) => return self.defined(&inner.elem, module),
            syn::Type::Group(inner) => return self.defined(&inner.elem, module),
            syn::Type::TraitObject(object) => {
                let bound = object.bounds.iter().find_map(|bound| match bound {
                    syn::TypeParamBound::Trait(bound) => Some(&bound.path),
                    _ => None,
                });
                self.resolve(module, &segments(bound?))
            }
            _ => return None,
        };
        match found {
            Found::Item(Item { kind: Kind::Alias(alias), .. }, _) => {
                let alias = &self.aliases[alias];
                self.defined(&alias.ty, alias.module)
            }
            Found::Item(item, rest) if rest.is_empty() => Some(item),
            _ => None,
        }
    }

    /// What a path means in a module.
    pub(crate) fn resolve(&self, module: usize, path: &[String]) -> Found {
        self.resolve_within(module, path, DEPTH)
    }

    fn resolve_within(&self, module: usize, path: &[String], depth: usize) -> Found {
        let (Some(first), Some(depth)) = (path.first(), depth.checked_sub(1)) else { return Found::Nothing };
        let root = || self.by_path.get(&Vec::new()).copied().unwrap_or_default();
        let start = match first.as_str() {
            "" => return Found::Foreign(path[1..].to_vec()),
            "crate" => Some(root()),
            "self" => Some(module),
            "super" => self.modules[module].parent,
            _ => None,
        };
        if let Some(start) = start {
            return self.descend(start, &path[1..], depth);
        }
        match self.lookup(module, first, path.len() > 1, depth) {
            Some(Found::Module(next)) => self.descend(next, &path[1..], depth),
            Some(Found::Item(item, mut rest)) => {
                rest.extend_from_slice(&path[1..]);
                Found::Item(item, rest)
            }
            Some(Found::Foreign(mut all)) => {
                all.extend_from_slice(&path[1..]);
                Found::Foreign(all)
            }
            Some(Found::Nothing) => Found::Nothing,
            None if self.selves.contains(first) => self.descend(root(), &path[1..], depth),
            None => Found::Foreign(path.to_vec()),
        }
    }

    fn descend(&self, module: usize, path: &[String], depth: usize) -> Found {
        let Some((first, rest)) = path.split_first() else { return Found::Module(module) };
        if first == "super" {
            return self.modules[module].parent.map_or(Found::Nothing, |up| self.descend(up, rest, depth));
        }
        match self.lookup(module, first, !rest.is_empty(), depth) {
            Some(Found::Module(next)) => self.descend(next, rest, depth),
            Some(Found::Item(item, mut after)) => {
                after.extend_from_slice(rest);
                Found::Item(item, after)
            }
            Some(Found::Foreign(mut all)) => {
                all.extend_from_slice(rest);
                Found::Foreign(all)
            }
            _ => Found::Nothing,
        }
    }

    /// What a name means in a module. One that has more behind it is a module or a type sooner than a function.
    fn lookup(&self, module: usize, name: &str, more: bool, depth: usize) -> Option<Found> {
        let means = self.modules[module].names.get(name).into_iter().flatten();
        let mut found: Vec<Found> = means
            .map(|means| match means {
                Name::Module(module) => Found::Module(*module),
                Name::Item(item) => Found::Item(*item, vec![]),
                Name::Import(path) if path.len() == 1 && path[0] == name => Found::Foreign(path.clone()),
                Name::Import(path) => self.resolve_within(module, path, depth),
            })
            .collect();
        let rank = |found: &Found| match found {
            Found::Module(_) => usize::from(!more),
            Found::Item(Item { kind: Kind::Fn(_) | Kind::Other, .. }, _) => usize::from(more),
            Found::Item(..) => 0,
            Found::Foreign(_) => 2,
            Found::Nothing => 3,
        };
        found.sort_by_key(rank);
        if let Some(found) = found.into_iter().next() {
            return Some(found);
        }
        let depth = depth.checked_sub(1)?;
        self.modules[module].globs.iter().find_map(|glob| {
            let Found::Module(within) = self.resolve_within(module, glob, depth) else { return None };
            (within != module).then(|| self.lookup(within, name, more, depth)).flatten()
        })
    }
}

/// One leaf of a `use`: its whole path, and the name that it gives; a glob and `_` give none.
pub(crate) struct Leaf {
    pub(crate) path: Vec<String>,
    pub(crate) name: Option<String>,
    pub(crate) glob: bool,
    pub(crate) line: usize,
}

pub(crate) fn leaves(item: &syn::ItemUse) -> Vec<Leaf> {
    fn add(tree: &syn::UseTree, above: &[String], found: &mut Vec<Leaf>) {
        let below = |name: &syn::Ident| -> Vec<String> {
            let is_self = name == "self" && !above.is_empty();
            above.iter().cloned().chain((!is_self).then(|| name.to_string())).collect()
        };
        match tree {
            syn::UseTree::Path(path) => add(&path.tree, &below(&path.ident), found),
            syn::UseTree::Name(name) => {
                let (path, line) = (below(&name.ident), line(&name.ident));
                found.push(Leaf { name: path.last().cloned(), path, glob: false, line });
            }
            syn::UseTree::Rename(name) => {
                let new = Some(name.rename.to_string()).filter(|new| new != "_");
                found.push(Leaf {
                    path: below(&name.ident),
                    name: new,
                    glob: false,
                    line: line(&name.ident),
                });
            }
            syn::UseTree::Glob(glob) => {
                let line = glob.span().start().line;
                found.push(Leaf { path: above.to_vec(), name: None, glob: true, line });
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| add(tree, above, found)),
        }
    }
    let mut found = vec![];
    add(&item.tree, &outside(item.leading_colon), &mut found);
    found
}

/// What a path begins with: an empty segment if it leads out of the crate by its `::`.
fn outside(leading_colon: Option<syn::Token![::]>) -> Vec<String> {
    leading_colon.iter().map(|_| String::new()).collect()
}

pub(crate) fn segments(path: &syn::Path) -> Vec<String> {
    let mut segments = outside(path.leading_colon);
    segments.extend(path.segments.iter().map(|segment| segment.ident.to_string()));
    segments
}

pub(crate) fn generics(generics: &syn::Generics) -> Vec<String> {
    generics.type_params().map(|param| param.ident.to_string()).collect()
}

fn fields(fields: &syn::Fields) -> Fields {
    let name = |(at, field): (usize, &syn::Field)| {
        (field.ident.as_ref().map_or(at.to_string(), syn::Ident::to_string), field.ty.clone())
    };
    fields.iter().enumerate().map(name).collect()
}

fn function(sig: &syn::Signature, module: usize, above: &[String]) -> Function {
    let output = match &sig.output {
        syn::ReturnType::Type(_, ty) => Some((**ty).clone()),
        syn::ReturnType::Default => None,
    };
    let generics = above.iter().cloned().chain(generics(&sig.generics)).collect();
    Function { module, output, is_async: sig.asyncness.is_some(), generics }
}

/// What an `impl Deref` derefs to.
fn target(name: &syn::Path, item: &syn::ItemImpl) -> Option<syn::Type> {
    name.segments.last().filter(|last| last.ident == "Deref")?;
    item.items.iter().find_map(|member| match member {
        syn::ImplItem::Type(ty) => Some(ty.ty.clone()),
        _ => None,
    })
}
