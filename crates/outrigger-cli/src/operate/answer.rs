//! What came of a question, for people or as JSON.

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;
use crate::printer::line;

/// Prints what came of a question: text, or an object with `--json`.
///
/// # Errors
/// What the question came to, if that is a failure; see [`or_tell`].
pub(super) fn print<T>(
    as_json: bool,
    result: Result<T, Failure>,
    object: impl FnOnce(&T) -> Value,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let found = or_tell(as_json, result)?;
    match as_json {
        true => output::plain(&format!("{}\n", line(&object(&found)))),
        false => output::text(&text(&found)),
    }
}

/// With `--json`, prints a failure as the member `error` of an object.
pub(super) fn or_tell<T>(as_json: bool, result: Result<T, Failure>) -> Result<T, Failure> {
    if let (Err(failure), true) = (&result, as_json) {
        output::plain(&format!("{}\n", line(&json!({"error": failure}))))?;
    }
    result
}
