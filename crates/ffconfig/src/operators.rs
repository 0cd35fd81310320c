//! The operators of `master.operators`: the hash of each one's token, and what the entries say about each other.

use std::collections::HashSet;
use std::fmt;

use crate::fields::Fields;
use crate::report::Report;

/// An operator of `master.operators`: whoever sends the token of that hash. Its `Debug` does not show the hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Operator {
    /// `name`: who it is, in the audit and as user name in a browser. Required, and nobody else's.
    pub name: String,
    /// `role`: what the operator may do. Required.
    pub role: OperatorRole,
    /// `hash`: the SHA-256 of the operator's token. Required.
    pub hash: [u8; 32],
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.role)
    }
}

/// What an operator may do. The greater one may do all that the lesser may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperatorRole {
    /// `read`: to look.
    Read,
    /// `operate`: to command, too.
    Operate,
}

impl fmt::Display for OperatorRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Operate => "operate",
        })
    }
}

/// What a hash begins with: another one may follow it one day.
const SCHEME: &str = "sha256:";

/// The hash of a text `sha256:HEX`; `None` when it is none.
pub(crate) fn hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(SCHEME)?;
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// Checks that each hash is one, and that nobody has the name or the token of somebody else: the audit names one person.
pub(crate) fn check(master: &Fields, report: &mut Report<'_>) {
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    for fields in master.list("operators").iter().filter_map(|placed| placed.fields()) {
        if let Some(name) = fields.text("name").filter(|name| !names.insert(name.to_owned())) {
            report.fault(fields.place_of("name"), format!("`{name}` is an operator already"));
        }
        match fields.text("hash").map(hash) {
            Some(Some(hash)) if !hashes.insert(hash) => {
                report.fault(fields.place_of("hash"), "another operator has this token");
            }
            Some(None) => {
                let message = "it is no `sha256:` with 64 hexadecimal digits: `master token NAME --role ROLE` makes one";
                report.fault(fields.place_of("hash"), message);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_its_scheme_and_64_digits() {
        let digits = "0f".repeat(32);
        assert_eq!(hash(&format!("sha256:{digits}")), Some([0x0f; 32]));
        assert_eq!(hash(&format!("sha256:{}", digits.to_uppercase())), Some([0x0f; 32]));
        for wrong in [
            digits.clone(),
            format!("sha512:{digits}"),
            "sha256:".into(),
            format!("sha256:{}+f", &digits[2..]),
        ] {
            assert_eq!(hash(&wrong), None, "{wrong}");
        }
    }
}
