//! Known words, and the nearest one to a word that is not known.

/// The entry of `table` with this name; else a sentence with the nearest name and all of them.
pub(crate) fn lookup<T: Copy>(what: &str, word: &str, table: &[(&str, T)]) -> Result<T, String> {
    let found = table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    found.ok_or_else(|| unknown(what, word, table.iter().map(|(name, _)| *name)))
}

/// Says that `word` is not known, and which words are.
pub(crate) fn unknown<'a>(
    what: &str,
    word: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let all = names.clone().collect::<Vec<_>>().join(", ");
    let plain = word.to_lowercase().replace('_', "-");
    match names.min_by_key(|name| strsim::damerau_levenshtein(&plain, name)) {
        Some(near) => format!("unknown {what} '{word}'; did you mean '{near}'? (known: {all})"),
        None => format!("unknown {what} '{word}': there is none here"),
    }
}
