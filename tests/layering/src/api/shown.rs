//! The lines of one public item: itself, its fields or variants, its methods, and the traits that it has.

use std::collections::BTreeSet;

use syn::spanned::Spanned;
use syn::{Attribute, Fields, Generics, ImplItem, Item, Signature, TraitItem, Visibility};

use super::world::{Place, Target, World, attributes, conditions, derived};

/// The lines of an item under a path.
pub(super) fn lines(world: &World<'_>, place: &Place, index: usize, path: &str) -> Vec<String> {
    let Some(item) = world.items(place).get(index) else { return vec![] };
    let mut lines = match item {
        Item::Const(x) => vec![format!("const {path}: {}", text(&x.ty))],
        Item::Static(x) => vec![format!("static {path}: {}", text(&x.ty))],
        Item::Type(x) => vec![format!("type {path}{} = {}", text(&x.generics), text(&x.ty))],
        Item::Fn(x) => vec![function(x, path)],
        Item::Macro(_) => vec![format!("macro {path}!")],
        Item::Struct(x) => structure(x, path),
        Item::Enum(x) => enumeration(x, path),
        Item::Trait(x) => contract(x, path),
        _ => vec![],
    };
    let target = Target::Item(place.clone(), index);
    lines.extend(
        world.impls_of(&target).iter().filter(|of| of.trait_.is_none()).flat_map(|of| methods(of, path)),
    );
    lines.extend(traits(world, item, &target, path));
    // The item itself stays first.
    if let Some((_, members)) = lines.split_first_mut() {
        members.sort_by(|a, b| after(a, path).cmp(after(b, path)));
    }
    let needed = conditions(attributes(item)).unwrap_or_default();
    lines.into_iter().map(|line| with(&needed, line)).collect()
}

/// A line from the name of its item on: by that members are sorted.
fn after<'a>(line: &'a str, path: &str) -> &'a str {
    line.find(path).map_or(line, |at| &line[at + path.len()..])
}

/// The source of something in one line.
fn text(of: &impl Spanned) -> String {
    let source = of.span().source_text().unwrap_or_default();
    let code = source.lines().map(|line| line.split(" // ").next().unwrap_or_default());
    let flat = code.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    flat.replace("( ", "(").replace(", )", ")").replace("< ", "<").replace(", >", ">").replace(" .", ".")
}

fn condition(generics: &Generics) -> String {
    generics
        .where_clause
        .as_ref()
        .map_or_else(String::new, |clause| format!(" {}", text(clause).trim_end_matches(',')))
}

fn with(needed: &[String], line: String) -> String {
    if needed.is_empty() { line } else { format!("{line} [{}]", needed.join(", ")) }
}

fn has(attrs: &[Attribute], name: &str) -> bool {
    attrs.iter().any(|attr| attr.path().is_ident(name))
}

/// A signature whose name is a whole path.
fn signature(of: &Signature, path: &str) -> String {
    let whole = text(of);
    let name = format!("fn {}", of.ident);
    whole.replacen(&name, &format!("fn {path}"), 1).trim_end_matches(',').to_owned()
}

fn function(of: &syn::ItemFn, path: &str) -> String {
    if derived(of).is_some() {
        return format!("derive {path}");
    }
    if has(&of.attrs, "proc_macro_attribute") {
        return format!("attribute {path}");
    }
    signature(&of.sig, path)
}

fn open(attrs: &[Attribute]) -> &'static str {
    if has(attrs, "non_exhaustive") { "#[non_exhaustive] " } else { "" }
}

fn structure(of: &syn::ItemStruct, path: &str) -> Vec<String> {
    let public = |field: &&syn::Field| matches!(field.vis, Visibility::Public(_));
    let hidden = of.fields.iter().any(|field| !public(&field));
    let shown = match &of.fields {
        Fields::Unit => String::new(),
        Fields::Named(_) if hidden => " { .. }".to_owned(),
        Fields::Named(_) => " { }".to_owned(),
        Fields::Unnamed(fields) => {
            let one = |field: &syn::Field| if public(&field) { text(&field.ty) } else { "_".to_owned() };
            format!("({})", fields.unnamed.iter().map(one).collect::<Vec<_>>().join(", "))
        }
    };
    let (generics, clause) = (text(&of.generics), condition(&of.generics));
    let first = format!("{}struct {path}{generics}{shown}{clause}", open(&of.attrs));
    let named = of.fields.iter().filter(public).filter_map(|field| {
        let (name, needed) = (field.ident.as_ref()?, conditions(&field.attrs)?);
        Some(with(&needed, format!("field {path}::{name}: {}", text(&field.ty))))
    });
    [first].into_iter().chain(named).collect()
}

fn enumeration(of: &syn::ItemEnum, path: &str) -> Vec<String> {
    let (generics, clause) = (text(&of.generics), condition(&of.generics));
    let first = format!("{}enum {path}{generics}{clause}", open(&of.attrs));
    let variants = of.variants.iter().filter_map(|variant| {
        let needed = conditions(&variant.attrs)?;
        let types = |fields: &mut dyn Iterator<Item = String>| fields.collect::<Vec<_>>().join(", ");
        let inside = match &variant.fields {
            Fields::Unit => String::new(),
            Fields::Unnamed(all) => format!("({})", types(&mut all.unnamed.iter().map(|f| text(&f.ty)))),
            Fields::Named(all) => {
                let one = |field: &syn::Field| {
                    field.ident.as_ref().map(|name| format!("{name}: {}", text(&field.ty)))
                };
                format!(" {{ {} }}", types(&mut all.named.iter().filter_map(one)))
            }
        };
        let open = open(&variant.attrs);
        Some(with(&needed, format!("{open}variant {path}::{}{inside}", variant.ident)))
    });
    [first].into_iter().chain(variants).collect()
}

fn contract(of: &syn::ItemTrait, path: &str) -> Vec<String> {
    let above = of.supertraits.iter().map(text).collect::<Vec<_>>().join(" + ");
    let above = if above.is_empty() { above } else { format!(": {above}") };
    let first = format!("trait {path}{}{above}{}", text(&of.generics), condition(&of.generics));
    let provided = |is: bool| if is { " (provided)" } else { "" };
    let members = of.items.iter().filter_map(|item| match item {
        TraitItem::Fn(x) => {
            let needed = conditions(&x.attrs)?;
            let line = signature(&x.sig, &format!("{path}::{}", x.sig.ident));
            Some(with(&needed, format!("{line}{}", provided(x.default.is_some()))))
        }
        TraitItem::Const(x) => {
            let is_provided = provided(x.default.is_some());
            conditions(&x.attrs).map(|_| format!("const {path}::{}: {}{is_provided}", x.ident, text(&x.ty)))
        }
        TraitItem::Type(x) => {
            let bounds = x.bounds.iter().map(text).collect::<Vec<_>>().join(" + ");
            Some(format!("type {path}::{}: {bounds}", x.ident))
        }
        _ => None,
    });
    [first].into_iter().chain(members).collect()
}

/// The public methods and constants of an `impl` of the type's own.
fn methods(of: &syn::ItemImpl, path: &str) -> Vec<String> {
    let Some(outer) = conditions(&of.attrs) else { return vec![] };
    let bounds = text(&of.generics).contains(':') || of.generics.where_clause.is_some();
    let of_which = match bounds {
        true => format!(" (impl{} {}{})", text(&of.generics), text(&of.self_ty), condition(&of.generics)),
        false => String::new(),
    };
    let members = of.items.iter().filter_map(|item| match item {
        ImplItem::Fn(x) if matches!(x.vis, Visibility::Public(_)) => {
            let needed = conditions(&x.attrs)?;
            let line = signature(&x.sig, &format!("{path}::{}", x.sig.ident));
            Some(with(&needed, format!("{line}{of_which}")))
        }
        ImplItem::Const(x) if matches!(x.vis, Visibility::Public(_)) => {
            let needed = conditions(&x.attrs)?;
            Some(with(&needed, format!("const {path}::{}: {}", x.ident, text(&x.ty))))
        }
        _ => None,
    });
    members.map(|line| with(&outer, line)).collect()
}

/// The traits that a type has, in one line: derived, and by an `impl` of the workspace.
fn traits(world: &World<'_>, item: &Item, target: &Target, path: &str) -> Option<String> {
    let attrs = attributes(item).iter().filter(|attr| attr.path().is_ident("derive"));
    let mut all: BTreeSet<String> = BTreeSet::new();
    for attr in attrs {
        let _ = attr.parse_nested_meta(|meta| {
            all.insert(text(&meta.path));
            Ok(())
        });
    }
    for of in world.impls_of(target) {
        if let (Some((_, of_what, _)), Some(_)) = (&of.trait_, conditions(&of.attrs)) {
            all.insert(text(of_what));
        }
    }
    let all: Vec<String> = all.into_iter().collect();
    (!all.is_empty()).then(|| format!("impl {path}: {}", all.join(", ")))
}
