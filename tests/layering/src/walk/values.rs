//! The types of values in a function, as far as they are written: of variables, fields, and what calls give.

use super::Walk;
use crate::index::{Found, Item, Kind, segments};
use crate::types::{Scope, Ty, foreign_method};

impl Walk<'_> {
    /// The type of an expression, as far as it is written somewhere.
    pub(super) fn type_of(&self, expr: &syn::Expr) -> Ty {
        match expr {
            syn::Expr::Path(path) => self.value(&path.path),
            syn::Expr::Field(field) => {
                let name = match &field.member {
                    syn::Member::Named(name) => name.to_string(),
                    syn::Member::Unnamed(at) => at.index.to_string(),
                };
                self.index.field(&self.type_of(&field.base), &name)
            }
            syn::Expr::MethodCall(call) => self.method_gives(call),
            syn::Expr::Call(call) => self.call_gives(call),
            syn::Expr::Await(inner) => self.type_of(&inner.base).taken_out(&["Future"]),
            syn::Expr::Try(inner) => self.type_of(&inner.expr).taken_out(&["Option", "Result"]),
            syn::Expr::Index(inner) => {
                self.type_of(&inner.expr).taken_out(&["Vec", "VecDeque", "slice", "Slab"])
            }
            syn::Expr::Reference(inner) => self.type_of(&inner.expr),
            syn::Expr::Paren(inner) => self.type_of(&inner.expr),
            syn::Expr::Group(inner) => self.type_of(&inner.expr),
            syn::Expr::Unary(inner) if matches!(inner.op, syn::UnOp::Deref(_)) => self.type_of(&inner.expr),
            syn::Expr::Struct(value) => self.index.path_ty(&value.path, self.scope()),
            syn::Expr::Cast(cast) => self.index.ty(&cast.ty, self.scope()),
            syn::Expr::Lit(_) | syn::Expr::Closure(_) | syn::Expr::Binary(_) => {
                Ty::Foreign("value".into(), vec![])
            }
            syn::Expr::Tuple(all) => {
                Ty::Foreign("tuple".into(), all.elems.iter().map(|expr| self.type_of(expr)).collect())
            }
            _ => Ty::Unknown,
        }
    }

    fn value(&self, path: &syn::Path) -> Ty {
        match path.get_ident() {
            Some(name) if name == "self" => self.this.clone(),
            Some(name) => self.variable(&name.to_string()).cloned().unwrap_or(Ty::Unknown),
            // A variant.
            None => self.constructed(path),
        }
    }

    fn method_gives(&self, call: &syn::ExprMethodCall) -> Ty {
        let (receiver, name) = (self.type_of(&call.receiver), call.method.to_string());
        if let Some((method, _, this)) = self.index.method_of(&receiver, &name) {
            return self.index.output(method, &this);
        }
        match receiver {
            // Of a pointer, or of a guard that std wraps into a result.
            Ty::Own(_) | Ty::Trait(_) => match name.as_str() {
                "clone" | "unwrap" | "expect" | "as_ref" | "as_mut" | "borrow" | "to_owned" => receiver,
                _ => Ty::Unknown,
            },
            receiver => foreign_method(&receiver, &name),
        }
    }

    fn call_gives(&self, call: &syn::ExprCall) -> Ty {
        let syn::Expr::Path(function) = &*call.func else { return Ty::Unknown };
        let names = segments(&function.path);
        let inner = || call.args.first().map_or(Ty::Unknown, |first| self.type_of(first));
        let last_two: Vec<&str> = names.iter().rev().take(2).rev().map(String::as_str).collect();
        match last_two[..] {
            ["Some" | "Ok"] => return Ty::option(inner()),
            ["Arc" | "Rc" | "Box", "new" | "clone" | "pin"] => return inner(),
            [of @ ("Mutex" | "RwLock" | "RefCell"), "new"] => return Ty::Foreign(of.into(), vec![inner()]),
            _ => {}
        }
        if let Found::Item(Item { kind: Kind::Fn(function), .. }, _) = self.index.resolve(self.module, &names)
        {
            return self.index.output(&self.index.fns[function], &Ty::Unknown);
        }
        self.constructed(&function.path)
    }

    /// `Type(…)`, `Type::Variant` or what `Type::function` gives.
    fn constructed(&self, path: &syn::Path) -> Ty {
        let mut names = segments(path);
        let whole = self.type_named(&names);
        if matches!(whole, Ty::Own(_)) {
            return whole;
        }
        let Some(name) = names.pop() else { return Ty::Unknown };
        let ty = self.type_named(&names);
        match (self.index.method_of(&ty, &name), &ty) {
            (Some((method, _, this)), _) => self.index.output(method, &this),
            (None, Ty::Own(of)) if self.index.types[*of].variants.contains_key(&name) => ty,
            _ => Ty::Unknown,
        }
    }

    fn type_named(&self, names: &[String]) -> Ty {
        if let [only] = names
            && only == "Self"
        {
            return self.this.clone();
        }
        match self.index.resolve(self.module, names) {
            Found::Item(item, rest) if rest.is_empty() => self.index.item_ty(item),
            _ => Ty::Unknown,
        }
    }

    /// Binds a pattern's variables.
    pub(super) fn bind(&mut self, pat: &syn::Pat, ty: &Ty) {
        match pat {
            syn::Pat::Ident(ident) => {
                if let Some(scope) = self.scopes.last_mut() {
                    scope.insert(ident.ident.to_string(), ty.clone());
                }
                if let Some((_, inner)) = &ident.subpat {
                    self.bind(inner, ty);
                }
            }
            syn::Pat::Type(typed) => {
                let ty = self.index.ty(&typed.ty, self.scope());
                self.bind(&typed.pat, &ty);
            }
            syn::Pat::Reference(inner) => self.bind(&inner.pat, ty),
            syn::Pat::Paren(inner) => self.bind(&inner.pat, ty),
            syn::Pat::Tuple(tuple) => {
                let of_tuple = matches!(ty, Ty::Foreign(name, _) if name == "tuple");
                for (at, pat) in tuple.elems.iter().enumerate() {
                    self.bind(pat, &if of_tuple { ty.arg(at) } else { Ty::Unknown });
                }
            }
            syn::Pat::TupleStruct(tuple) => {
                for (at, pat) in tuple.elems.iter().enumerate() {
                    let ty = self.part(&tuple.path, &at.to_string(), ty);
                    self.bind(pat, &ty);
                }
            }
            syn::Pat::Struct(fields) => {
                for field in &fields.fields {
                    let name = match &field.member {
                        syn::Member::Named(name) => name.to_string(),
                        syn::Member::Unnamed(at) => at.index.to_string(),
                    };
                    let ty = self.part(&fields.path, &name, ty);
                    self.bind(&field.pat, &ty);
                }
            }
            syn::Pat::Slice(slice) => slice.elems.iter().for_each(|pat| self.bind(pat, &Ty::Unknown)),
            syn::Pat::Or(or) => or.cases.iter().for_each(|pat| self.bind(pat, ty)),
            _ => {}
        }
    }

    /// A part of what a pattern takes apart.
    fn part(&self, path: &syn::Path, name: &str, whole: &Ty) -> Ty {
        if path.is_ident("Some") || path.is_ident("Ok") {
            return whole.clone().taken_out(&["Option", "Result"]);
        }
        if path.is_ident("Err") {
            return whole.arg(1);
        }
        let names = segments(path);
        if let this @ Ty::Own(_) = self.type_named(&names) {
            return self.index.field(&this, name);
        }
        let Some((variant, of)) = names.split_last() else { return Ty::Unknown };
        let this = self.type_named(of);
        let Ty::Own(ty) = this else { return Ty::Unknown };
        let def = &self.index.types[ty];
        let field = def.variants.get(variant).and_then(|fields| fields.get(name));
        let scope = Scope { module: def.module, this: &this, generics: &def.generics };
        field.map_or(Ty::Unknown, |field| self.index.ty(field, scope))
    }

    /// What `Self` is in a trait.
    pub(super) fn type_of_trait(&self, name: &syn::Ident) -> Ty {
        match self.index.resolve(self.module, &[name.to_string()]) {
            Found::Item(Item { kind: Kind::Trait(of), .. }, _) => Ty::Trait(of),
            _ => Ty::Unknown,
        }
    }
}
