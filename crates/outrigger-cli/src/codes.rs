//! `outrigger explain`: what the code of an error means, and what to do.

use std::fmt::Write as _;

use anstyle::Style;
use serde::Serialize;

use crate::args::ExplainArgs;
use crate::failure::{Failure, near, printable};
use crate::{json, output};

/// A row for each code, beneath the heading of its field.
const PAGE: &str = include_str!("../docs/errors.md");

/// What is known of one code.
#[derive(Debug, Serialize)]
struct Explained<'p> {
    code: &'p str,
    field: &'p str,
    meaning: &'p str,
    causes: &'p str,
    advice: &'p str,
}

/// Prints what the code means, or all codes.
///
/// # Errors
/// `unknown-code`.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let all = explained();
    let Some(wanted) = &args.code else {
        return match args.json {
            true => print_json(&all),
            false => output::text(&list(&all)),
        };
    };
    // As it stands in a message, or alone.
    let code = wanted
        .trim_start_matches("error")
        .trim_matches(['[', ']', ':']);
    match all.iter().find(|explained| explained.code == code) {
        Some(explained) if args.json => print_json(explained),
        Some(explained) => output::text(&page(explained)),
        None => {
            let message = format!("no error has the code `{}`", printable(wanted));
            let failure = Failure::usage("unknown-code", message);
            let names = near(code, all.iter().map(|explained| explained.code));
            Err(match names.as_slice() {
                [] => failure.help("`outrigger explain` lists all codes"),
                names => failure.help(format!("did you mean `{}`?", names.join("` or `"))),
            })
        }
    }
}

fn print_json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = json::pretty(value).unwrap_or_else(|_| "null".to_owned());
    output::plain(&(text + "\n"))
}

fn explained() -> Vec<Explained<'static>> {
    let (mut field, mut all) = ("", Vec::new());
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            field = heading;
        }
        let Some(row) = line.strip_prefix("| `") else {
            continue;
        };
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        if let [code, meaning, causes, advice] = cells[..] {
            all.push(Explained {
                code: code.trim_end_matches('`'),
                field,
                meaning,
                causes,
                advice,
            });
        }
    }
    all
}

fn page(explained: &Explained<'_>) -> String {
    let bold = Style::new().bold();
    let mut text = format!("{bold}{}{bold:#}: {}\n", explained.code, explained.meaning);
    for (label, what) in [
        ("usual causes", explained.causes),
        ("what to do", explained.advice),
    ] {
        let _ = writeln!(text, "  {bold}{label}{bold:#}: {what}");
    }
    text
}

fn list(all: &[Explained<'_>]) -> String {
    let bold = Style::new().bold();
    let (mut text, mut field) = (String::new(), "");
    for explained in all {
        if explained.field != field {
            let line = if field.is_empty() { "" } else { "\n" };
            field = explained.field;
            let _ = writeln!(text, "{line}{bold}{field}{bold:#}");
        }
        let _ = writeln!(text, "  {:<28} {}", explained.code, explained.meaning);
    }
    text
}
