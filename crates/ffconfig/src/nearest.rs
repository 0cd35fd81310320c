//! Which known word somebody meant.

/// Longer texts are no slips of the pen, and comparing them costs the product of the lengths.
const CHARS_MAX: usize = 64;

/// The known word that is nearest to `word`, when it is near enough to have been meant: a third of its
/// letters may differ, but at least one.
///
/// ```
/// assert_eq!(ffconfig::nearest("netprot", ["netport", "app"]).as_deref(), Some("netport"));
/// ```
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if word.is_empty() || word.len() > CHARS_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|other| other.len() <= CHARS_MAX)
        // Texts of too different a length are too far apart, and most are told apart by that alone.
        .filter(|other| other.chars().count().abs_diff(word.chars().count()) <= allowed)
        .map(|other| (strsim::osa_distance(&word, &other.to_lowercase()), other))
        .filter(|(distance, other)| *distance <= allowed && *distance < other.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["netport", "rootport", "app", "db"];
        assert_eq!(nearest("netprot", known).as_deref(), Some("netport"));
        assert_eq!(nearest("NetPort", known).as_deref(), Some("netport"));
        assert_eq!(nearest("rotport", known).as_deref(), Some("rootport"));
        assert_eq!(nearest("ap", known).as_deref(), Some("app"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
