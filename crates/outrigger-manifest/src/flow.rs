//! Values as YAML writes them between brackets: `[pull, "*"]`.

use crate::message::escaped;
use crate::tree::{Scalar, scalar};

/// A flow list of texts, quoted where YAML would need it.
pub(crate) fn list_text<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    let shown: Vec<String> = entries.map(word_text).collect();
    format!("[{}]", shown.join(", "))
}

/// One of them: `read`, `"*"`.
pub(crate) fn word_text(word: &str) -> String {
    let simple = !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_./-+=".contains(c))
        && scalar(word) == Scalar::Text
        && word != "-";
    if simple {
        word.to_owned()
    } else {
        format!("\"{}\"", escaped(word))
    }
}
