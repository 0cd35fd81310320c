//! What stands in a macro's tokens: expressions and blocks where they parse, else paths and method calls as they stand.

use proc_macro2::{Delimiter, Group, Ident, Spacing, TokenStream, TokenTree};

/// A part of a macro's tokens.
pub(crate) enum Part {
    Block(Vec<syn::Stmt>),
    Expr(Box<syn::Expr>),
    /// A path of at least two segments.
    Path(Vec<Ident>),
    /// A method's name before its arguments, on what is not known.
    Call(Ident),
}

/// The parts of an invocation.
pub(crate) fn parts(tokens: TokenStream) -> Vec<Part> {
    let mut found = vec![];
    for piece in pieces(tokens) {
        match syn::parse2::<syn::Expr>(piece.iter().cloned().collect()) {
            Ok(expr) => found.push(Part::Expr(Box::new(expr))),
            Err(_) => scan(&piece, true, &mut found),
        }
    }
    found
}

/// The parts of a definition, which has `$`s in it: paths and calls only.
pub(crate) fn rough(tokens: TokenStream) -> Vec<Part> {
    let mut found = vec![];
    scan(&tokens.into_iter().collect::<Vec<_>>(), false, &mut found);
    found
}

/// Splits at what stands between expressions: `,` `;` `=>` `=`; the marks of tracing before a value are left out.
fn pieces(tokens: TokenStream) -> Vec<Vec<TokenTree>> {
    let mut pieces = vec![vec![]];
    let mut tokens = tokens.into_iter().peekable();
    let mut joined = false;
    while let Some(token) = tokens.next() {
        let starts = pieces.last().is_none_or(Vec::is_empty);
        if let TokenTree::Punct(punct) = &token {
            let (char, was_joined) = (punct.as_char(), joined);
            joined = punct.spacing() == Spacing::Joint;
            let arrow = char == '='
                && joined
                && matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == '>');
            if arrow {
                tokens.next();
                joined = false;
            }
            if arrow || matches!(char, ',' | ';') || char == '=' && !joined && !was_joined {
                pieces.push(vec![]);
                continue;
            }
            if starts && matches!(char, '%' | '?') {
                continue;
            }
        } else {
            joined = false;
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(token);
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn scan(tokens: &[TokenTree], parse: bool, found: &mut Vec<Part>) {
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => scan_group(group, parse, found),
            TokenTree::Ident(ident) => {
                let after_dot = at > 0 && is_punct(&tokens[at - 1], '.');
                let mut path = vec![ident.clone()];
                while let Some(TokenTree::Ident(next)) = tokens.get(at + 3)
                    && is_punct(&tokens[at + 1], ':')
                    && is_punct(&tokens[at + 2], ':')
                {
                    path.push(next.clone());
                    at += 3;
                }
                let turbofish = tokens.get(at + 1).is_some_and(|next| is_punct(next, ':'));
                let arguments = matches!(tokens.get(at + 1), Some(TokenTree::Group(group))
                    if group.delimiter() == Delimiter::Parenthesis);
                if after_dot && path.len() == 1 && (arguments || turbofish) {
                    found.push(Part::Call(ident.clone()));
                } else if path.len() > 1 {
                    found.push(Part::Path(path));
                }
            }
            _ => {}
        }
        at += 1;
    }
}

fn scan_group(group: &Group, parse: bool, found: &mut Vec<Part>) {
    if parse && group.delimiter() == Delimiter::Brace {
        let block = syn::parse::Parser::parse2(syn::Block::parse_within, group.stream());
        if let Ok(statements) = block {
            found.push(Part::Block(statements));
            return;
        }
    }
    if parse {
        found.extend(parts(group.stream()));
    } else {
        scan(&group.stream().into_iter().collect::<Vec<_>>(), false, found);
    }
}

fn is_punct(token: &TokenTree, char: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == char)
}
