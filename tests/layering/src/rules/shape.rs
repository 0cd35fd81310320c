//! The shape of types: no cells that are set later, and not more fields than a reader can keep in mind.

use syn::visit::{self, Visit};

use crate::index::{Found, Index, Item, Kind, segments};
use crate::source::{File, attrs, is_test, line};
use crate::{Fault, House, MAX_FIELDS};

/// Cells that a value is put into once, after they are built.
const LATE: &[&str] = &["OnceLock", "OnceCell", "SetOnce"];

pub(crate) fn check(house: &House<'_>, index: &Index, files: &[File]) -> Vec<Fault> {
    let mut faults = vec![];
    let mut allowed = vec![];
    for (at, file) in files.iter().enumerate() {
        let module = index.modules.iter().position(|module| module.path == file.module && module.file == at);
        let mut shapes = Shapes {
            house,
            index,
            file,
            module: module.unwrap_or_default(),
            faults: &mut faults,
            allowed: &mut allowed,
        };
        shapes.visit_file(&file.ast);
    }
    let unneeded = house.late.iter().filter(|(ty, field, _)| !allowed.contains(&(*ty, *field)));
    let root = || crate::Place { file: "lib.rs".into(), line: 1 };
    faults.extend(unneeded.map(|(ty, field, _)| Fault::NotLate {
        at: root(),
        ty: (*ty).to_owned(),
        field: (*field).to_owned(),
    }));
    faults
}

struct Shapes<'a, 'f> {
    house: &'a House<'a>,
    index: &'a Index,
    file: &'a File,
    module: usize,
    faults: &'f mut Vec<Fault>,
    allowed: &'f mut Vec<(&'a str, &'a str)>,
}

impl Shapes<'_, '_> {
    fn fields(&mut self, name: &str, first: usize, named: usize, fields: &syn::Fields) {
        let count = fields.iter().filter(|field| !is_test(&field.attrs)).count();
        if count > MAX_FIELDS && !self.has_reason(first, named) {
            let at = self.file.place(named);
            self.faults.push(Fault::Wide { at, ty: name.to_owned(), fields: count });
        }
        for (at, field) in fields.iter().enumerate().filter(|(_, field)| !is_test(&field.attrs)) {
            let label = field.ident.as_ref().map_or(at.to_string(), syn::Ident::to_string);
            if !has_late(self.index, self.module, &field.ty, 8) {
                continue;
            }
            let permission = self.house.late.iter().find(|(ty, field, _)| *ty == name && *field == label);
            match permission {
                Some((ty, field, _)) => self.allowed.push((ty, field)),
                None => {
                    let at = self.file.place(line(&field.ty));
                    self.faults.push(Fault::Late { at, ty: name.to_owned(), field: label });
                }
            }
        }
    }

    /// Whether a comment above a definition, or among its attributes, gives the reason for its fields.
    fn has_reason(&self, first: usize, named: usize) -> bool {
        let lines: Vec<&str> = self.file.text.lines().map(str::trim).collect();
        let above = lines[..first.saturating_sub(1).min(lines.len())].iter().rev();
        let above = above.take_while(|line| line.starts_with("//") || line.starts_with("#["));
        let within = lines.iter().take(named).skip(first.saturating_sub(1));
        above
            .chain(within)
            .any(|line| line.strip_prefix("// Fields:").is_some_and(|reason| !reason.trim().is_empty()))
    }
}

impl<'ast> Visit<'ast> for Shapes<'_, '_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attrs(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if let Some(module) = self.index.inline(self.module, &item.ident) {
            let above = std::mem::replace(&mut self.module, module);
            visit::visit_item_mod(self, item);
            self.module = above;
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let first = item.attrs.first().map_or_else(|| line(item), line);
        self.fields(&item.ident.to_string(), first, line(&item.ident), &item.fields);
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        let first = variant.attrs.first().map_or_else(|| line(variant), line);
        self.fields(&variant.ident.to_string(), first, line(&variant.ident), &variant.fields);
    }
}

/// Whether a type has a late cell in it, by its own name or by one that it was given.
fn has_late(index: &Index, module: usize, ty: &syn::Type, depth: usize) -> bool {
    struct Paths<'a>(Vec<&'a syn::Path>);
    impl<'a> Visit<'a> for Paths<'a> {
        fn visit_path(&mut self, path: &'a syn::Path) {
            self.0.push(path);
            visit::visit_path(self, path);
        }
    }
    let Some(depth) = depth.checked_sub(1) else { return false };
    let mut paths = Paths(vec![]);
    paths.visit_type(ty);
    paths.0.iter().any(|path| match index.resolve(module, &segments(path)) {
        Found::Foreign(names) => names.last().is_some_and(|last| LATE.contains(&last.as_str())),
        Found::Item(Item { kind: Kind::Alias(alias), .. }, _) => {
            let alias = &index.aliases[alias];
            has_late(index, alias.module, &alias.ty, depth)
        }
        _ => false,
    })
}
