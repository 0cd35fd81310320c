//! Types as far as they are written: of fields, parameters and signatures, and what common methods of the standard
//! library give.

use crate::index::{Alias, Found, Function, Index, Item, Kind, segments};

/// The type of a value, through references and pointers.
#[derive(Debug, Clone)]
pub(crate) enum Ty {
    /// A type of this crate.
    Own(usize),
    /// Behind a trait of this crate.
    Trait(usize),
    /// Another crate's, with its arguments.
    Foreign(String, Vec<Ty>),
    Unknown,
}

/// Where a type is written.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) module: usize,
    pub(crate) this: &'a Ty,
    pub(crate) generics: &'a [String],
}

/// Pointers and guards: what they point at is what their methods are called on.
const POINTERS: &[&str] = &[
    "Arc",
    "Rc",
    "Box",
    "Pin",
    "Ref",
    "RefMut",
    "MutexGuard",
    "RwLockReadGuard",
    "RwLockWriteGuard",
    "LazyLock",
    "LazyCell",
    "ManuallyDrop",
    "Cow",
];

impl Ty {
    pub(crate) fn option(inner: Ty) -> Ty {
        Ty::Foreign("Option".into(), vec![inner])
    }

    fn iter(inner: Ty) -> Ty {
        Ty::Foreign("Iter".into(), vec![inner])
    }

    /// The argument at a place, of a foreign type.
    pub(crate) fn arg(&self, at: usize) -> Ty {
        match self {
            Ty::Foreign(_, args) => args.get(at).cloned().unwrap_or(Ty::Unknown),
            _ => Ty::Unknown,
        }
    }

    /// What `?`, `.await` and an index take out; a value that is none of such stays.
    pub(crate) fn taken_out(self, of: &[&str]) -> Ty {
        match &self {
            Ty::Foreign(name, _) if of.contains(&name.as_str()) => self.arg(0),
            Ty::Foreign(..) => Ty::Unknown,
            _ => self,
        }
    }

    /// What a loop over it gives, or a closure that is handed to one of its methods takes.
    pub(crate) fn element(&self) -> Ty {
        match self {
            Ty::Foreign(name, args) if is_map(name) => Ty::Foreign("tuple".into(), args.clone()),
            Ty::Foreign(name, _)
                if is_sequence(name) || ["Iter", "Option", "Result"].contains(&name.as_str()) =>
            {
                self.arg(0)
            }
            _ => Ty::Unknown,
        }
    }
}

fn is_map(name: &str) -> bool {
    ["HashMap", "BTreeMap", "FxHashMap"].contains(&name)
}

fn is_sequence(name: &str) -> bool {
    ["Vec", "VecDeque", "slice", "BTreeSet", "HashSet", "FxHashSet", "BinaryHeap", "Slab"].contains(&name)
}

/// What a method of another crate's type gives.
pub(crate) fn foreign_method(receiver: &Ty, method: &str) -> Ty {
    let Ty::Foreign(name, _) = receiver else { return Ty::Unknown };
    let first = || receiver.arg(0);
    match (name.as_str(), method) {
        (_, "clone" | "to_owned") => receiver.clone(),
        (
            "Mutex" | "RwLock" | "RefCell",
            "lock" | "read" | "write" | "borrow" | "borrow_mut" | "get_mut" | "into_inner",
        ) => first(),
        ("OnceLock" | "OnceCell", "get") | ("Weak", "upgrade") | ("Mutex", "try_lock") => Ty::option(first()),
        ("OnceLock" | "OnceCell", "get_or_init") => first(),
        (
            "Option" | "Result",
            "unwrap" | "expect" | "unwrap_or" | "unwrap_or_else" | "unwrap_or_default" | "insert"
            | "get_or_insert_with",
        ) => first(),
        (
            "Option" | "Result",
            "as_ref" | "as_mut" | "as_deref" | "as_deref_mut" | "cloned" | "copied" | "take" | "ok" | "ok_or"
            | "ok_or_else" | "filter" | "or" | "or_else" | "inspect" | "map_err" | "replace",
        ) => Ty::option(first()),
        ("Option", "iter" | "into_iter") => Ty::iter(first()),
        ("Entry", "or_insert_with" | "or_default" | "or_insert") => first(),
        ("Iter", "next" | "find" | "last" | "nth" | "min_by_key" | "max_by_key" | "min_by" | "max_by") => {
            Ty::option(first())
        }
        (
            "Iter",
            "filter" | "rev" | "skip" | "take" | "skip_while" | "take_while" | "cloned" | "copied"
            | "inspect" | "chain" | "peekable" | "step_by",
        ) => receiver.clone(),
        ("Iter", "enumerate") => Ty::iter(Ty::Foreign("tuple".into(), vec![Ty::Unknown, first()])),
        (map, "get" | "get_mut" | "remove") if is_map(map) => Ty::option(receiver.arg(1)),
        (map, "values" | "values_mut" | "into_values") if is_map(map) => Ty::iter(receiver.arg(1)),
        (map, "keys" | "into_keys") if is_map(map) => Ty::iter(first()),
        (map, "entry") if is_map(map) => Ty::Foreign("Entry".into(), vec![receiver.arg(1)]),
        (
            list,
            "get" | "get_mut" | "first" | "last" | "pop" | "pop_front" | "pop_back" | "front" | "back"
            | "peek",
        ) if is_sequence(list) => Ty::option(first()),
        (any, "iter" | "iter_mut" | "into_iter" | "drain") if is_map(any) || is_sequence(any) => {
            Ty::iter(receiver.element())
        }
        _ => Ty::Unknown,
    }
}

impl Index {
    /// A type as it is written.
    pub(crate) fn ty(&self, ty: &syn::Type, scope: Scope<'_>) -> Ty {
        match ty {
            syn::Type::Reference(inner) => self.ty(&inner.elem, scope),
            syn::Type::Paren(inner) => self.ty(&inner.elem, scope),
            syn::Type::Group(inner) => self.ty(&inner.elem, scope),
            syn::Type::Array(inner) => Ty::Foreign("slice".into(), vec![self.ty(&inner.elem, scope)]),
            syn::Type::Slice(inner) => Ty::Foreign("slice".into(), vec![self.ty(&inner.elem, scope)]),
            syn::Type::Tuple(all) => {
                Ty::Foreign("tuple".into(), all.elems.iter().map(|ty| self.ty(ty, scope)).collect())
            }
            syn::Type::Path(path) if path.qself.is_none() => self.path_ty(&path.path, scope),
            syn::Type::ImplTrait(bounds) => self.bound(bounds.bounds.iter(), scope),
            syn::Type::TraitObject(bounds) => self.bound(bounds.bounds.iter(), scope),
            _ => Ty::Unknown,
        }
    }

    fn bound<'b>(&self, bounds: impl Iterator<Item = &'b syn::TypeParamBound>, scope: Scope<'_>) -> Ty {
        let mut paths = bounds.filter_map(|bound| match bound {
            syn::TypeParamBound::Trait(bound) => Some(&bound.path),
            _ => None,
        });
        paths.next().map_or(Ty::Unknown, |path| self.path_ty(path, scope))
    }

    /// The type that a path names.
    pub(crate) fn path_ty(&self, path: &syn::Path, scope: Scope<'_>) -> Ty {
        let names = segments(path);
        let first = names.first().map(String::as_str).unwrap_or_default();
        if first == "Self" {
            return if names.len() == 1 { scope.this.clone() } else { Ty::Unknown };
        }
        if scope.generics.iter().any(|generic| generic == first) {
            return Ty::Unknown;
        }
        match self.resolve(scope.module, &names) {
            Found::Item(item, rest) if rest.is_empty() => self.item_ty(item),
            Found::Foreign(names) => {
                let args = path.segments.last().map(|last| self.args(&last.arguments, scope));
                let (name, args) = (names.last().cloned().unwrap_or_default(), args.unwrap_or_default());
                match args.first() {
                    Some(inner) if POINTERS.contains(&name.as_str()) => inner.clone(),
                    _ => Ty::Foreign(name, args),
                }
            }
            _ => Ty::Unknown,
        }
    }

    /// The type that a definition is, through `type`s.
    pub(crate) fn item_ty(&self, item: Item) -> Ty {
        match item.kind {
            Kind::Type(ty) => Ty::Own(ty),
            Kind::Trait(ty) => Ty::Trait(ty),
            Kind::Alias(alias) => {
                let Alias { module, generics, ty } = &self.aliases[alias];
                self.ty(ty, Scope { module: *module, this: &Ty::Unknown, generics })
            }
            Kind::Fn(_) | Kind::Other => Ty::Unknown,
        }
    }

    fn args(&self, args: &syn::PathArguments, scope: Scope<'_>) -> Vec<Ty> {
        let syn::PathArguments::AngleBracketed(args) = args else { return vec![] };
        let arg = |arg: &syn::GenericArgument| match arg {
            syn::GenericArgument::Type(ty) => Some(self.ty(ty, scope)),
            syn::GenericArgument::AssocType(assoc) => Some(self.ty(&assoc.ty, scope)),
            _ => None,
        };
        args.args.iter().filter_map(arg).collect()
    }

    /// What a function gives.
    pub(crate) fn output(&self, function: &Function, this: &Ty) -> Ty {
        let scope = Scope { module: function.module, this, generics: &function.generics };
        let output = function.output.as_ref().map_or(Ty::Unknown, |ty| self.ty(ty, scope));
        if function.is_async { Ty::Foreign("Future".into(), vec![output]) } else { output }
    }

    /// The type of a field.
    pub(crate) fn field(&self, of: &Ty, name: &str) -> Ty {
        match of {
            Ty::Own(ty) => {
                let def = &self.types[*ty];
                match def.fields.get(name) {
                    Some(field) => {
                        self.ty(field, Scope { module: def.module, this: of, generics: &def.generics })
                    }
                    None => self.target(*ty).map_or(Ty::Unknown, |target| self.field(&target, name)),
                }
            }
            Ty::Foreign(tuple, _) if tuple == "tuple" => name.parse().map_or(Ty::Unknown, |at| of.arg(at)),
            _ => Ty::Unknown,
        }
    }

    /// What a type of this crate derefs to, if that is not itself.
    fn target(&self, ty: usize) -> Option<Ty> {
        let def = &self.types[ty];
        let (target, module) = def.target.as_ref()?;
        let target = self.ty(target, Scope { module: *module, this: &Ty::Unknown, generics: &def.generics });
        (!matches!(target, Ty::Own(same) if same == ty)).then_some(target)
    }

    /// The method that a call on such a value reaches: with its owner's name, or none that is known.
    pub(crate) fn method_of(&self, receiver: &Ty, name: &str) -> Option<(&Function, &str, Ty)> {
        self.method_within(receiver, name, 4)
    }

    fn method_within(&self, receiver: &Ty, name: &str, depth: usize) -> Option<(&Function, &str, Ty)> {
        match receiver {
            Ty::Own(ty) => {
                let def = &self.types[*ty];
                match def.methods.get(name) {
                    Some(method) => Some((method, &def.name, receiver.clone())),
                    None => self.method_within(&self.target(*ty)?, name, depth.checked_sub(1)?),
                }
            }
            Ty::Trait(ty) => {
                let def = &self.traits[*ty];
                def.methods.get(name).map(|method| (method, def.name.as_str(), receiver.clone()))
            }
            _ => None,
        }
    }
}
