//! Turns an annotated function into the function and a route, and gathers every fault of it first.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, ItemFn, Lit, Meta, MetaNameValue, Result, ReturnType, Type,
};

use crate::facts::{Facts, Key};

pub(crate) fn expand(facts: Result<Facts>, item: TokenStream) -> TokenStream {
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let fault = Error::new_spanned(&item, "a handler is an async fn").into_compile_error();
            return quote! { #item #fault };
        }
    };
    let mut faults = Vec::new();
    let types = argument_types(&function, &mut faults);
    let facts = facts.map_err(|e| faults.push(e)).ok();
    let faults = faults.into_iter().reduce(|mut all, more| {
        all.combine(more);
        all
    });
    match (facts, faults) {
        (Some(facts), None) => {
            let listed = listed(&function, &facts, &types);
            quote! { #function #listed }
        }
        (_, faults) => {
            let faults = faults.map(Error::into_compile_error);
            quote! { #function #faults }
        }
    }
}

fn argument_types(function: &ItemFn, faults: &mut Vec<Error>) -> Vec<Type> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        faults.push(Error::new(signature.fn_token.span(), "a handler is an async fn"));
    }
    if !signature.generics.params.is_empty() {
        faults.push(Error::new(signature.generics.span(), "a handler has no generic parameters"));
    }
    let mut types = Vec::new();
    for argument in &signature.inputs {
        match argument {
            FnArg::Typed(typed) => types.push((*typed.ty).clone()),
            FnArg::Receiver(this) => {
                faults.push(Error::new(this.span(), "a handler is a free function: take State<T> for state"));
            }
        }
    }
    types
}

/// The type of the function's name, and its route. Each extractor is named with the span of its
/// argument's type, so that a type that is no extractor is reported at the argument.
fn listed(function: &ItemFn, facts: &Facts, types: &[Type]) -> TokenStream {
    let name = &function.sig.ident;
    let visibility = &function.vis;
    let key = match &facts.key {
        Key::Net(command) => quote! { ::ffserver::handler::Key::Net(#command) },
        Key::Default => quote! { ::ffserver::handler::Key::Default },
        Key::Root(method) => {
            let method = method.as_ref().map_or_else(|| name.to_string(), syn::LitStr::value);
            quote! { ::ffserver::handler::Key::Root((#method).into()) }
        }
        Key::Node(method) => {
            let method = method.as_ref().map_or_else(|| name.to_string(), syn::LitStr::value);
            quote! { ::ffserver::handler::Key::Node((#method).into()) }
        }
        Key::Remote(parent, method) => {
            let method = method.as_ref().map_or_else(|| name.to_string(), syn::LitStr::value);
            quote! { ::ffserver::handler::Key::Remote { parent: (#parent).into(), method: (#method).into() } }
        }
        Key::Admin(command) => {
            let command = command.as_ref().map_or_else(|| name.to_string(), syn::LitStr::value);
            quote! { ::ffserver::handler::Key::Admin((#command).into()) }
        }
    };
    let concurrent = facts.concurrent;
    // A type that is no reply is reported at the type.
    let reply = match &function.sig.output {
        ReturnType::Type(_, ty) => ty.span(),
        ReturnType::Default => Span::call_site(),
    };
    let arguments: Vec<_> = (0..types.len()).map(|n| format_ident!("argument_{n}")).collect();
    let extract = types.iter().zip(&arguments).map(|(ty, argument)| {
        quote_spanned! { ty.span() =>
            let #argument = <#ty as ::ffserver::handler::FromRequest>::from_request(&mut request)?;
        }
    });
    let check = types.iter().map(|ty| {
        quote_spanned! { ty.span() => <#ty as ::ffserver::handler::FromRequest>::check(facts)?; }
    });
    let is_command = matches!(facts.key, Key::Admin(_));
    let reply = if is_command {
        quote_spanned! { reply =>
            ::ffserver::handler::IntoResult::into_result(#name(#(#arguments),*).await)
        }
    } else {
        quote_spanned! { reply =>
            ::ffserver::handler::IntoReply::into_reply(#name(#(#arguments),*).await)
        }
    };
    let described = is_command.then(|| {
        let help = first_paragraph(&function.attrs);
        let fields = types.iter().map(|ty| {
            quote_spanned! { ty.span() => <#ty as ::ffserver::handler::FromRequest>::fields() }
        });
        quote! { .described(#help, <[&[&'static str]]>::concat(&[#(#fields),*])) }
    });
    quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types, dead_code, unreachable_pub, missing_docs)]
        #visibility struct #name {}

        impl ::ffserver::handler::Listed for #name {
            fn route() -> ::ffserver::handler::Route {
                #[allow(unused_mut, unused_variables)]
                fn run(mut request: ::ffserver::handler::Request) -> ::ffserver::handler::HandlerFuture {
                    ::std::boxed::Box::pin(async move {
                        #(#extract)*
                        ::core::mem::drop(request);
                        #reply
                    })
                }
                #[allow(unused_variables)]
                fn check(
                    facts: &::ffserver::handler::CheckContext<'_>,
                ) -> ::core::result::Result<(), ::std::string::String> {
                    #(#check)*
                    ::core::result::Result::Ok(())
                }
                ::ffserver::handler::Route::new(#key, ::core::stringify!(#name), run)
                    .checked_by(check)
                    .at(::core::file!(), ::core::line!())
                    .concurrent(#concurrent)
                    #described
            }
        }
    }
}

/// The first paragraph of the docs of a function, in one line.
fn first_paragraph(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| {
        let Meta::NameValue(MetaNameValue { path, value, .. }) = &attribute.meta else { return None };
        let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = value else { return None };
        path.is_ident("doc").then(|| text.value().trim().to_owned())
    };
    let lines: Vec<String> = attributes.iter().filter_map(line).take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
}
