//! Paths and texts that somebody else chose, safe to print.

use std::path::Path;

use outrigger_wire::EXCERPT_LIMIT;
use outrigger_wire::text::{printable, shortened};

/// How many names an error lists of those that a folder has.
const LISTED: usize = 5;

/// The path on one line, without anything that moves a cursor.
pub(crate) fn path(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

/// The beginning of the text between backticks.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", printable(&shortened(text, EXCERPT_LIMIT)))
}

/// The first of `names`, after `before`; nothing if there are none.
pub(crate) fn listed(before: &str, names: &[String]) -> Option<String> {
    let mut shown: Vec<String> = names.iter().take(LISTED).map(|name| quoted(name)).collect();
    if names.len() > LISTED {
        shown.push(format!("{} more", names.len() - LISTED));
    }
    (!shown.is_empty()).then(|| format!("{before} {}", shown.join(", ")))
}
