//! Operators of a config, as tests make them.

use ffkeys::operator_hash;

/// The hash of a token, as a config has it.
#[must_use]
pub fn hash(token: &str) -> String {
    let hex: String = operator_hash(token).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
