//! Turns an annotated struct into a record: its table, its columns, and the way from one to the other.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitStr, Result, Type};

/// Names that belong to the framework's own columns.
const TAKEN: [&str; 2] = ["version", "holder"];

pub(crate) fn expand(item: TokenStream) -> TokenStream {
    syn::parse2(item).and_then(|input| record(&input)).unwrap_or_else(Error::into_compile_error)
}

#[derive(Default)]
struct TableFacts {
    table: Option<LitStr>,
    database: Option<LitStr>,
}

#[derive(Default)]
struct FieldFacts {
    key: bool,
    auto: bool,
    owner: bool,
    column: Option<LitStr>,
}

struct Column {
    field: Ident,
    ty: Type,
    name: String,
}

fn record(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    if !input.generics.params.is_empty() {
        return Err(Error::new(input.generics.span(), "a record has no generic parameters"));
    }
    let facts = table_facts(&input.attrs)?;
    let table = facts.table.ok_or_else(|| {
        Error::new(name.span(), "the table is missing: #[record(table = \"account\")] above the struct")
    })?;
    check_name(&table.value(), table.span())?;
    let database = facts.database.map_or_else(String::new, |name| name.value());
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(name.span(), "a record is a struct"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new(name.span(), "a record is a struct with named fields"));
    };
    let (mut columns, mut key, mut owner, mut auto) = (Vec::new(), None, None, false);
    for (place, field) in fields.named.iter().enumerate() {
        let Some(ident) = field.ident.clone() else { continue };
        let facts = field_facts(&field.attrs)?;
        if facts.key && key.replace(place).is_some() {
            return Err(Error::new(ident.span(), "a record has one key"));
        }
        if facts.owner && owner.replace(place).is_some() {
            return Err(Error::new(ident.span(), "a record has one owner"));
        }
        auto |= facts.auto;
        let (column, span) = match &facts.column {
            Some(column) => (column.value(), column.span()),
            None => (ident.to_string().trim_start_matches("r#").to_owned(), ident.span()),
        };
        check_name(&column, span)?;
        if TAKEN.iter().any(|taken| column.eq_ignore_ascii_case(taken)) {
            let text = format!("the column `{column}` is the framework's own; choose another name");
            return Err(Error::new(span, text));
        }
        columns.push(Column { field: ident, ty: field.ty.clone(), name: column });
    }
    let key = key.ok_or_else(|| {
        Error::new(name.span(), "the key is missing: #[record(key)] or #[record(key, auto)] at one field")
    })?;
    Ok(implementation(name, &table.value(), &database, &columns, key, owner, auto))
}

fn implementation(
    name: &Ident,
    table: &str,
    database: &str,
    columns: &[Column],
    key: usize,
    owner: Option<usize>,
    auto: bool,
) -> TokenStream {
    let shapes = columns.iter().map(|Column { ty, name, .. }| {
        quote_spanned! { ty.span() =>
            ::ffserver::record::Column {
                name: #name,
                kind: <#ty as ::ffserver::record::Field>::KIND,
                nullable: <#ty as ::ffserver::record::Field>::NULLABLE,
            }
        }
    });
    let owner = match owner {
        Some(owner) => quote! { ::core::option::Option::Some(#owner) },
        None => quote! { ::core::option::Option::None },
    };
    let (key_field, key_type) = (&columns[key].field, &columns[key].ty);
    let key_bound = quote_spanned! { key_type.span() => type Key = #key_type; };
    // Each use of a field has the span of its type, so that a type that is no field is reported there, and once.
    let values = columns.iter().map(|Column { field, ty, .. }| {
        quote_spanned! { ty.span() => <#ty as ::ffserver::record::Field>::to_value(&self.#field) }
    });
    let heaps = columns.iter().map(|Column { field, ty, .. }| {
        quote_spanned! { ty.span() => <#ty as ::ffserver::record::Field>::heap(&self.#field) }
    });
    let readings = columns.iter().map(|Column { field, ty, name }| {
        let read = quote_spanned! { ty.span() => <#ty as ::ffserver::record::Field>::from_value };
        quote! {
            #field: {
                let value = values.next().unwrap_or(::ffserver::db::Value::Null);
                #read(value).map_err(|reason| ::ffserver::record::Misfit { column: #name, reason })?
            }
        }
    });
    quote! {
        impl ::ffserver::record::Record for #name {
            #key_bound

            const SHAPE: ::ffserver::record::Shape = ::ffserver::record::Shape {
                database: #database,
                table: #table,
                columns: &[#(#shapes),*],
                key: #key,
                owner: #owner,
                auto: #auto,
            };

            fn key(&self) -> &Self::Key {
                &self.#key_field
            }

            fn set_key(&mut self, key: Self::Key) {
                self.#key_field = key;
            }

            fn values(&self) -> ::std::vec::Vec<::ffserver::db::Value> {
                ::std::vec![#(#values),*]
            }

            fn from_values(
                values: ::std::vec::Vec<::ffserver::db::Value>,
            ) -> ::core::result::Result<Self, ::ffserver::record::Misfit> {
                let mut values = values.into_iter();
                ::core::result::Result::Ok(Self { #(#readings),* })
            }

            fn bytes(&self) -> usize {
                ::core::mem::size_of::<Self>() #(+ #heaps)*
            }
        }
    }
}

fn table_facts(attributes: &[Attribute]) -> Result<TableFacts> {
    let mut facts = TableFacts::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("record")) {
        attribute.parse_nested_meta(|meta| {
            let slot = if meta.path.is_ident("table") {
                &mut facts.table
            } else if meta.path.is_ident("database") {
                &mut facts.database
            } else {
                return Err(meta.error("only `table` and `database` may stand here"));
            };
            *slot = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(facts)
}

fn field_facts(attributes: &[Attribute]) -> Result<FieldFacts> {
    let mut facts = FieldFacts::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("record")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("key") {
                facts.key = true;
            } else if meta.path.is_ident("auto") {
                facts.auto = true;
            } else if meta.path.is_ident("owner") {
                facts.owner = true;
            } else if meta.path.is_ident("column") {
                facts.column = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error("only `key`, `auto`, `owner` and `column` may stand here"));
            }
            Ok(())
        })?;
        if facts.auto && !facts.key {
            return Err(Error::new(attribute.span(), "only a key is `auto`"));
        }
    }
    Ok(facts)
}

/// What stands in statements: nothing that would have to be escaped.
fn check_name(name: &str, span: proc_macro2::Span) -> Result<()> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let first = name.bytes().next();
    if plain && name.len() <= 63 && first.is_some_and(|byte| !byte.is_ascii_digit()) {
        return Ok(());
    }
    Err(Error::new(span, format!("`{name}` is no name: letters, digits and `_`, 63 at most, no digit first")))
}
