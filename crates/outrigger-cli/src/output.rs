//! The only place that prints.
#![allow(clippy::print_stderr)]

use std::io::{ErrorKind, Write as _};

use crate::failure::{Exit, Failure};

/// Writes text with terminal codes to stdout; the codes are left out where they do not belong.
///
/// # Errors
/// `output-failed` when stdout does not take it. A reader that went away is
/// not told apart: nobody is left to read the rest.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| failed(&error))
}

/// Writes exactly `text` to stdout.
///
/// # Errors
/// As [`text`].
pub(crate) fn plain(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| failed(&error))
}

fn failed(error: &std::io::Error) -> Failure {
    let code = if error.kind() == ErrorKind::BrokenPipe {
        OUTPUT_CLOSED
    } else {
        "output-failed"
    };
    Failure::new(Exit::Internal, code, "the output could not be written").note(error.to_string())
}

const OUTPUT_CLOSED: &str = "output-closed";

/// Tells people on stderr what went wrong.
pub(crate) fn failure(failure: &Failure) {
    if failure.code != OUTPUT_CLOSED {
        anstream::eprint!("{}", failure.render());
    }
}

/// Tells people on stderr something that is no failure.
pub(crate) fn note(text: &str) {
    let bold = anstyle::Style::new().bold();
    anstream::eprintln!("{bold}note{bold:#}: {text}");
}

/// Names on stderr what the next lines of stdout belong to.
pub(crate) fn heading(text: &str) {
    let bold = anstyle::Style::new().bold();
    anstream::eprintln!("{bold}{text}{bold:#}");
}

/// Tells people on stderr something about the line of stdout before it, or about
/// what happens meanwhile; as one write, as other threads write there, too.
pub(crate) fn aside(text: &str) {
    let dim = anstyle::Style::new().dimmed();
    audit(&format!("  {dim}{text}{dim:#}"));
}

/// Shows people on stderr what a check found.
pub(crate) fn finding(text: &str) {
    anstream::eprintln!("{text}");
}

/// Asks people on stderr something whose answer is typed on the same line.
pub(crate) fn ask(question: &str) {
    anstream::eprint!("{question}");
}

/// Shows people on stderr one decision, as one write: other threads write there, too.
pub(crate) fn audit(line: &str) {
    let line = format!("{line}\n");
    let mut err = anstream::stderr().lock();
    // There is nobody to tell when stderr is closed.
    let _ = err.write_all(line.as_bytes());
}
