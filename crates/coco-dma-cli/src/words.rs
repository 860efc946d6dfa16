//! Known words, and the nearest one to a word that is not known.

use coco_dma::regime::PlatformName;

/// A platform by its name.
pub(crate) fn platform(text: &str) -> Result<PlatformName, String> {
    lookup("platform", text, &PlatformName::ALL.map(|platform| (platform.name(), platform)))
}

/// The entry of `table` with this name; else a sentence with the nearest name and all of them.
pub(crate) fn lookup<T: Copy>(what: &str, word: &str, table: &[(&str, T)]) -> Result<T, String> {
    table
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, value)| *value)
        .ok_or_else(|| unknown(what, word, table.iter().map(|(name, _)| *name)))
}

/// Says that `word` is not known, and which words are.
pub(crate) fn unknown<'a>(
    what: &str,
    word: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let all = names.clone().collect::<Vec<_>>().join(", ");
    match nearest(word, names) {
        Some(near) => format!("unknown {what} '{word}'; did you mean '{near}'? (known: {all})"),
        None => format!("unknown {what} '{word}' (known: {all})"),
    }
}

/// The name that is nearest in spelling.
pub(crate) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    names.min_by_key(|name| strsim::damerau_levenshtein(&word, name))
}
