//! Sources as parsed files with their place in the crate, without those that only tests have.

use std::path::Path;
use std::{fmt, fs, io};

use syn::spanned::Spanned;

/// A source file: path relative to the crate's `src`, and text.
#[derive(Debug, Clone)]
pub struct Source {
    /// With `/`, for example `session/mod.rs`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// A source that is not Rust.
#[derive(Debug)]
pub struct ParseError {
    /// Of the file.
    pub path: String,
    /// What the parser says.
    pub cause: syn::Error,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.cause.span().start().line, self.cause)
    }
}

impl std::error::Error for ParseError {}

/// The Rust files under a crate's `src`, sorted.
pub fn read(src: &Path) -> io::Result<Vec<Source>> {
    let (mut found, mut todo) = (vec![], vec![src.to_owned()]);
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(src).unwrap_or(&path);
            let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
            found.push(Source { path: parts.join("/"), text: fs::read_to_string(&path)? });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// A parsed file.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
    /// Of the module that it is.
    pub(crate) module: Vec<String>,
    pub(crate) ast: syn::File,
}

impl File {
    /// The room of a file; none for the crate's root.
    pub(crate) fn room(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    pub(crate) fn place(&self, line: usize) -> crate::Place {
        crate::Place { file: self.path.clone(), line }
    }
}

fn module_of(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let root = parts.len() == 1 && matches!(parts[0].as_str(), "lib" | "main");
    if root || parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// Parses the sources; files that belong to tests are left out.
pub(crate) fn parse(sources: &[Source]) -> Result<Vec<File>, ParseError> {
    let mut files = vec![];
    for source in sources {
        let ast =
            syn::parse_file(&source.text).map_err(|cause| ParseError { path: source.path.clone(), cause })?;
        let (path, text) = (source.path.clone(), source.text.clone());
        files.push(File { module: module_of(&path), path, text, ast });
    }
    let mut tests: Vec<Vec<String>> = vec![];
    for file in &files {
        if is_test(&file.ast.attrs) || file.module.last().is_some_and(|name| name == "tests") {
            tests.push(file.module.clone());
        }
        for item in &file.ast.items {
            if let syn::Item::Mod(module) = item
                && is_test(&module.attrs)
            {
                tests.push(file.module.iter().cloned().chain([module.ident.to_string()]).collect());
            }
        }
    }
    files.retain(|file| !tests.iter().any(|test| file.module.starts_with(test)));
    files.sort_by(|a, b| (a.module.len(), &a.path).cmp(&(b.module.len(), &b.path)));
    Ok(files)
}

/// Whether an item is there only for tests.
pub(crate) fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        if attr.path().segments.last().is_some_and(|last| last.ident == "test") {
            return true;
        }
        let is_cfg = attr.path().is_ident("cfg");
        is_cfg && attr.parse_args::<syn::Meta>().is_ok_and(|meta| needs_test(&meta))
    })
}

fn needs_test(condition: &syn::Meta) -> bool {
    match condition {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("all") => {
            let parse = syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated;
            list.parse_args_with(parse).is_ok_and(|all| all.iter().any(needs_test))
        }
        _ => false,
    }
}

/// The attributes of an item.
pub(crate) fn attrs(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item::*;
    match item {
        Const(x) => &x.attrs,
        Enum(x) => &x.attrs,
        ExternCrate(x) => &x.attrs,
        Fn(x) => &x.attrs,
        ForeignMod(x) => &x.attrs,
        Impl(x) => &x.attrs,
        Macro(x) => &x.attrs,
        Mod(x) => &x.attrs,
        Static(x) => &x.attrs,
        Struct(x) => &x.attrs,
        Trait(x) => &x.attrs,
        TraitAlias(x) => &x.attrs,
        Type(x) => &x.attrs,
        Union(x) => &x.attrs,
        Use(x) => &x.attrs,
        _ => &[],
    }
}

/// The first line of something.
pub(crate) fn line(spanned: &impl Spanned) -> usize {
    spanned.span().start().line
}

/// The lines that something takes.
pub(crate) fn lines(spanned: &impl Spanned) -> usize {
    let span = spanned.span();
    span.end().line + 1 - span.start().line
}
