//! `outrigger config`: every setting and where it comes from, or what is wrong with them.

use std::fmt::Write as _;

use anstyle::Style;
use outrigger::{Coded as _, Configuration, Error, ErrorKind, Setting};
use serde_json::{Value, json};

use crate::args::ConfigArgs;
use crate::failure::{Exit, Failure, printable};
use crate::snippet::Listing;
use crate::{files, json, output};

/// Reads the configuration, and prints its values or its problems.
///
/// # Errors
/// `configuration-invalid` after the problems were printed, and `configuration-unreadable`.
pub(crate) fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let configure = args.configured.configure();
    let path = configure.path();
    let mut object = serde_json::Map::new();
    object.insert("file".into(), json!(path));
    let result = match configure.read() {
        Ok(configuration) => {
            object.insert("settings".into(), json!(configuration.settings()));
            match args.json {
                true => Ok(()),
                false => output::text(&settings(&configuration)),
            }
        }
        Err(error) => {
            // What was read a moment ago; only its lines are shown.
            let bytes = path.and_then(|path| std::fs::read(path).ok());
            let (problems, failure) = refuse(&error, &bytes.unwrap_or_default());
            object.insert("problems".into(), problems.into());
            object.insert("error".into(), json!(failure));
            Err(failure)
        }
    };
    if args.json {
        let text = json::pretty(&object).unwrap_or_else(|_| "null".to_owned());
        output::plain(&(text + "\n"))?;
    }
    result
}

/// Shows the problems, and gives them for the object.
fn refuse(error: &Error, bytes: &[u8]) -> (Vec<Value>, Failure) {
    let ErrorKind::Configuration(all) = error.kind() else {
        return (Vec::new(), files::failure(error));
    };
    let mut values = Vec::new();
    for problems in all {
        let listing = Listing::new(printable(problems.file()), bytes);
        for problem in problems {
            output::finding(&files::problem_text(problem, &listing));
            let mut value = json!(problem);
            if let Value::Object(members) = &mut value {
                members.insert("file".to_owned(), problems.file().into());
            }
            values.push(value);
        }
    }
    let failure = Failure::new(Exit::Failed, error.code(), error.to_string());
    (values, failure)
}

/// A line for each setting, beneath its section.
fn settings(configuration: &Configuration) -> String {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let mut text = String::new();
    let mut last = None;
    for setting in configuration.settings() {
        let (section, name) = section_and_name(setting);
        if last != Some(section) {
            let line = if last.is_some() { "\n" } else { "" };
            let _ = writeln!(text, "{line}{bold}{}{bold:#}", printable(section));
            last = Some(section);
        }
        let effect = if setting.takes_effect {
            ""
        } else {
            ", no effect yet"
        };
        let source = printable(&setting.source.to_string());
        let (name, value) = (printable(name), setting.shown());
        let _ = writeln!(
            text,
            "  {name:<27} {value:<18} {dim}{source}{effect}{dim:#}"
        );
    }
    text
}

fn section_and_name(setting: &Setting) -> (&str, &str) {
    setting.key.rsplit_once('.').unwrap_or(("", &setting.key))
}
