//! The edges between files: which names which by paths, and calls which's methods.

mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::fault::How;
use crate::index::{Found, Index, Leaf, Module, generics, leaves, segments};
use crate::source::{File, attrs, is_test, line};
use crate::std_names::is_common;
use crate::tokens::{Part, parts, rough};
use crate::types::{Scope, Ty};

/// One file needs another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) line: usize,
    pub(crate) how: How,
    /// Whether it is from file to file. A path through another room's module, and a re-export, are only from room to room.
    pub(crate) fine: bool,
}

/// All edges of a crate, sorted, without those of its tests.
pub(crate) fn edges(index: &Index, files: &[File], others: &BTreeSet<String>) -> BTreeSet<Edge> {
    (0..files.len()).flat_map(|file| walk(index, files, others, file).found).collect()
}

/// The paths into other crates that each file names, its imports replaced, without those of its tests.
pub(crate) fn named(index: &Index, files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let none = BTreeSet::new();
    let named = |file: usize| (files[file].path.clone(), walk(index, files, &none, file).named);
    (0..files.len()).map(named).collect()
}

/// The whole walk through one file.
fn walk<'a>(index: &'a Index, files: &'a [File], others: &'a BTreeSet<String>, file: usize) -> Walk<'a> {
    let is_of = |module: &Module| module.path == files[file].module;
    let mut walk = Walk {
        index,
        files,
        others,
        file,
        module: index.modules.iter().position(is_of).unwrap_or_default(),
        this: Ty::Unknown,
        generics: vec![],
        scopes: vec![HashMap::new()],
        closure: None,
        found: BTreeSet::new(),
        named: BTreeSet::new(),
    };
    walk.visit_file(&files[file].ast);
    walk
}

struct Walk<'a> {
    index: &'a Index,
    files: &'a [File],
    others: &'a BTreeSet<String>,
    file: usize,
    module: usize,
    /// `Self`.
    this: Ty,
    generics: Vec<String>,
    /// Variables, innermost last.
    scopes: Vec<HashMap<String, Ty>>,
    /// What the next closure's first parameter is.
    closure: Option<Ty>,
    found: BTreeSet<Edge>,
    named: BTreeSet<String>,
}

impl Walk<'_> {
    fn edge(&mut self, to: usize, line: usize, how: How, fine: bool) {
        if to != self.file {
            self.found.insert(Edge { from: self.file, to, line, how, fine });
        }
    }

    fn scope(&self) -> Scope<'_> {
        Scope { module: self.module, this: &self.this, generics: &self.generics }
    }

    fn variable(&self, name: &str) -> Option<&Ty> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    fn within(&mut self, visit: impl FnOnce(&mut Self)) {
        self.scopes.push(HashMap::new());
        visit(self);
        self.scopes.pop();
    }

    /// Visits what has generics of its own and, if it is given, a `Self`.
    fn item(&mut self, of: &syn::Generics, this: Option<Ty>, visit: impl FnOnce(&mut Self)) {
        let known = self.generics.len();
        self.generics.extend(generics(of));
        let before = this.map(|this| std::mem::replace(&mut self.this, this));
        self.within(visit);
        if let Some(before) = before {
            self.this = before;
        }
        self.generics.truncate(known);
    }

    /// A path in code or in a `use`.
    fn path(&mut self, names: &[String], line: usize, fine: bool) {
        let first = names.first().map(String::as_str).unwrap_or_default();
        let local = self.generics.iter().any(|generic| generic == first);
        if local || names.len() == 1 && self.variable(first).is_some() {
            return;
        }
        if let ("Self", [_, name, ..]) = (first, names) {
            let this = self.this.clone();
            return self.associated(&this, name, line);
        }
        let how = || How::Path(names.join("::"));
        match self.index.resolve(self.module, names) {
            Found::Module(module) if names.len() > 1 || !fine => {
                self.edge(self.index.modules[module].file, line, how(), false);
            }
            Found::Item(item, rest) => {
                self.edge(self.index.modules[item.module].file, line, how(), fine);
                if let Some(name) = rest.first() {
                    self.associated(&self.index.item_ty(item), name, line);
                }
            }
            Found::Foreign(names) => self.foreign(&names, false),
            _ => {}
        }
        // The room that is written, too: what is named there may be a re-export of another's.
        let written = (1..names.len()).find_map(|end| match self.index.resolve(self.module, &names[..end]) {
            Found::Module(module) if !self.index.modules[module].path.is_empty() => Some(module),
            _ => None,
        });
        if let Some(module) = written {
            let to = self.index.modules[module].file;
            if self.files[to].room() != self.files[self.file].room() {
                self.edge(to, line, how(), false);
            }
        }
    }

    /// A path into another crate; a glob is all that is below it.
    fn foreign(&mut self, names: &[String], glob: bool) {
        self.named.insert(names.join("::") + if glob { "::*" } else { "" });
    }

    /// `Type::name`, a method of a type that is defined here.
    fn associated(&mut self, ty: &Ty, name: &str, line: usize) {
        if let Some((method, owner, _)) = self.index.method_of(ty, name) {
            let how = How::Call(format!("{owner}::{name}"));
            self.edge(self.index.modules[method.module].file, line, how, true);
        }
    }

    /// `.name(…)` on a value of this type.
    fn call(&mut self, receiver: &Ty, name: &str, line: usize) {
        if let Some((method, owner, _)) = self.index.method_of(receiver, name) {
            let how = How::Call(format!("{owner}::{name}"));
            return self.edge(self.index.modules[method.module].file, line, how, true);
        }
        let nobodys = matches!(receiver, Ty::Foreign(..)) || is_common(name);
        if nobodys || self.index.foreign.contains(name) || self.others.contains(name) {
            return;
        }
        let Some(defined) = self.index.methods.get(name) else { return };
        let rooms: BTreeSet<_> = defined.iter().map(|file| self.files[*file].room()).collect();
        if let (1, Some(to)) = (rooms.len(), defined.first()) {
            self.edge(*to, line, How::Call(name.to_owned()), defined.len() == 1);
        }
    }

    fn parts(&mut self, parts: Vec<Part>) {
        for part in parts {
            match part {
                Part::Block(statements) => self.within(|walk| {
                    statements.iter().for_each(|statement| walk.visit_stmt(statement));
                }),
                Part::Expr(expr) => self.within(|walk| walk.visit_expr(&expr)),
                Part::Path(path) => {
                    let names: Vec<_> = path.iter().map(|ident| ident.to_string()).collect();
                    self.path(&names, path.first().map_or(0, line), true);
                }
                Part::Call(name) => self.call(&Ty::Unknown, &name.to_string(), line(&name)),
            }
        }
    }

    fn function(&mut self, sig: &syn::Signature, block: Option<&syn::Block>) {
        self.item(&sig.generics, None, |walk| {
            walk.visit_signature(sig);
            for input in &sig.inputs {
                if let syn::FnArg::Typed(input) = input {
                    let ty = walk.index.ty(&input.ty, walk.scope());
                    walk.bind(&input.pat, &ty);
                }
            }
            if let Some(block) = block {
                walk.visit_block(block);
            }
        });
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attrs(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if let (Some((_, items)), Some(module)) = (&item.content, self.index.inline(self.module, &item.ident))
        {
            let above = std::mem::replace(&mut self.module, module);
            items.iter().for_each(|item| self.visit_item(item));
            self.module = above;
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let private = matches!(item.vis, syn::Visibility::Inherited);
        for Leaf { path, line, glob, .. } in leaves(item) {
            self.path(&path, line, private && !glob);
            if let (true, Found::Foreign(names)) = (glob, self.index.resolve(self.module, &path)) {
                self.foreign(&names, glob);
            }
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.foreign(&[item.ident.to_string()], false);
    }

    // What a file may be seen by is no need of it.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, attr: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attr.meta {
            self.parts(rough(list.tokens.clone()));
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let known = self.generics.len();
        self.generics.extend(generics(&item.generics));
        let this = self.index.ty(&item.self_ty, self.scope());
        self.generics.truncate(known);
        self.item(&item.generics, Some(this), |walk| visit::visit_item_impl(walk, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let this = self.type_of_trait(&item.ident);
        self.item(&item.generics, Some(this), |walk| visit::visit_item_trait(walk, item));
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.item(&item.generics, None, |walk| visit::visit_item_struct(walk, item));
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.item(&item.generics, None, |walk| visit::visit_item_enum(walk, item));
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.item(&item.generics, None, |walk| visit::visit_item_type(walk, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        item.attrs.iter().for_each(|attr| self.visit_attribute(attr));
        self.function(&item.sig, Some(&item.block));
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attrs = match item {
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Const(item) => &item.attrs,
            _ => return visit::visit_impl_item(self, item),
        };
        if !is_test(attrs) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        item.attrs.iter().for_each(|attr| self.visit_attribute(attr));
        self.function(&item.sig, Some(&item.block));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, item.default.as_ref());
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.within(|walk| visit::visit_block(walk, block));
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if is_test(&local.attrs) {
            return;
        }
        visit::visit_local(self, local);
        let ty = local.init.as_ref().map_or(Ty::Unknown, |init| self.type_of(&init.expr));
        self.bind(&local.pat, &ty);
    }

    fn visit_expr_let(&mut self, condition: &'ast syn::ExprLet) {
        visit::visit_expr_let(self, condition);
        let ty = self.type_of(&condition.expr);
        self.bind(&condition.pat, &ty);
    }

    fn visit_expr_if(&mut self, expr: &'ast syn::ExprIf) {
        self.within(|walk| {
            walk.visit_expr(&expr.cond);
            walk.visit_block(&expr.then_branch);
        });
        if let Some((_, otherwise)) = &expr.else_branch {
            self.visit_expr(otherwise);
        }
    }

    fn visit_expr_while(&mut self, expr: &'ast syn::ExprWhile) {
        self.within(|walk| visit::visit_expr_while(walk, expr));
    }

    fn visit_expr_for_loop(&mut self, expr: &'ast syn::ExprForLoop) {
        self.visit_expr(&expr.expr);
        let ty = self.type_of(&expr.expr).element();
        self.within(|walk| {
            walk.visit_pat(&expr.pat);
            walk.bind(&expr.pat, &ty);
            walk.visit_block(&expr.body);
        });
    }

    fn visit_expr_match(&mut self, expr: &'ast syn::ExprMatch) {
        self.visit_expr(&expr.expr);
        let ty = self.type_of(&expr.expr);
        for arm in expr.arms.iter().filter(|arm| !is_test(&arm.attrs)) {
            self.within(|walk| {
                walk.bind(&arm.pat, &ty);
                walk.visit_arm(arm);
            });
        }
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        let mut first = self.closure.take();
        self.within(|walk| {
            for input in &closure.inputs {
                walk.visit_pat(input);
                let ty = first.take().unwrap_or(Ty::Unknown);
                walk.bind(input, &ty);
            }
            walk.visit_return_type(&closure.output);
            walk.visit_expr(&closure.body);
        });
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let receiver = self.type_of(&call.receiver);
        self.call(&receiver, &call.method.to_string(), line(&call.method));
        self.visit_expr(&call.receiver);
        if let Some(turbofish) = &call.turbofish {
            self.visit_angle_bracketed_generic_arguments(turbofish);
        }
        for arg in &call.args {
            self.closure = matches!(arg, syn::Expr::Closure(_)).then(|| receiver.element());
            self.visit_expr(arg);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(&segments(path), path.span().start().line, true);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        self.visit_path(&invoked.path);
        let definition = invoked.path.is_ident("macro_rules");
        let tokens = invoked.tokens.clone();
        self.parts(if definition { rough(tokens) } else { parts(tokens) });
    }
}
