//! How values of a file or of a plugin are shown in messages.

use outrigger_wire::EXCERPT_LIMIT;
use outrigger_wire::text::{printable, shortened};

/// The value between backticks, [`escaped`].
pub(crate) fn quoted(value: &str) -> String {
    format!("`{}`", escaped(value))
}

/// The beginning of the value on one line; what moves a cursor or cannot be seen is escaped.
pub(crate) fn escaped(value: &str) -> String {
    printable(&shortened(value, EXCERPT_LIMIT)).into_owned()
}

/// `1 problem`, `2 problems`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// The words as a sentence part: `` `a`, `b` or `c` ``.
pub(crate) fn alternatives<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word.as_ref())).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// `key value` and `key:value` with a `:` and a space.
pub(crate) fn with_colon(text: &str) -> String {
    match (text.split_once(':'), text.split_once(' ')) {
        (Some((key, value)), _) if !key.contains(' ') => format!("{key}: {value}"),
        (_, Some((key, value))) => format!("{key}: {}", value.trim_start()),
        _ => format!("{text}:"),
    }
}

/// The known word that is nearest to `word`, when one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let folded = fold(word);
    if let Some(&(_, meant)) = SYNONYMS.iter().find(|(from, _)| *from == folded)
        && let Some(found) = known.iter().find(|known| **known == meant)
    {
        return Some(found);
    }
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&folded, &fold(known)), *known))
        .filter(|(distance, known)| *distance <= (known.len().max(word.len()) / 3).clamp(1, 3))
        .collect();
    near.sort_unstable();
    match near.as_slice() {
        // Two that are as near: neither was certainly meant.
        [(first, _), (second, _), ..] if first == second => None,
        [(_, nearest), ..] => Some(nearest),
        [] => None,
    }
}

/// Words that people write for ours and that no letter count finds.
const SYNONYMS: &[(&str, &str)] = &[
    ("env", "environment"),
    ("fs", "filesystem"),
    ("files", "filesystem"),
    ("net", "network"),
    ("netrpc", "rpc"),
    ("net_rpc", "rpc"),
    ("perms", "permissions"),
    ("binary", "entrypoint"),
    ("command", "entrypoint"),
    ("outbound", "egress"),
    ("inbound", "ingress"),
    ("remove", "delete"),
    ("child", "children"),
    ("none", "off"),
];

fn fold(word: &str) -> String {
    word.to_lowercase().replace(['-', ' '], "_")
}

/// The decimal number in digits that begin with a zero, which some readers of YAML take for octal
/// ones; `None` for any other text.
pub(crate) fn without_leading_zeros(text: &str) -> Option<&str> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let decimal = text.trim_start_matches('0');
    let decimal = if decimal.is_empty() { "0" } else { decimal };
    (digits && text.len() > 1 && text.starts_with('0')).then_some(decimal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_and_marked() {
        let shown = quoted(&"x".repeat(500));
        assert_eq!(shown, format!("`{}… (+380 bytes)`", "x".repeat(120)));
    }

    #[test]
    fn control_and_bidirectional_characters_are_escaped() {
        assert_eq!(
            quoted("a\u{1b}[31m\u{202e}b\n"),
            "`a\\u{1b}[31m\\u{202e}b\\n`"
        );
    }

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("grcp", &["rpc", "grpc"]), Some("grpc"));
        assert_eq!(
            nearest("permisions", &["path", "permissions"]),
            Some("permissions")
        );
        assert_eq!(
            nearest("Best_Effort", &["require", "best-effort", "off"]),
            Some("best-effort")
        );
        assert_eq!(nearest("netrpc", &["rpc", "grpc"]), Some("rpc"));
        assert_eq!(nearest("banana", &["path", "permissions"]), None);
        assert_eq!(nearest("ngress", &["egress", "ingress"]), None);
        assert_eq!(nearest("ingres", &["egress", "ingress"]), Some("ingress"));
    }
}
