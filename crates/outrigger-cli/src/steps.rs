//! Which calls to make, in which order: from flags, from a script, from a line
//! that somebody typed.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::de::IgnoredAny;

use crate::descriptors::MethodName;
use crate::failure::{Failure, printable};

/// What stands on the command line without a flag.
pub(crate) const WORDS: &str = "words";
/// The word that is no name of a plugin.
pub(crate) const STDIN: &str = "-";

/// The largest script that is read, and the longest line of one, in bytes.
pub(crate) const LONGEST: u64 = 64 << 20;

/// One call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub(crate) method: MethodName,
    pub(crate) input: Input,
    /// net/rpc: the type of the argument.
    pub(crate) go_type: Option<String>,
}

/// Where request messages come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// None were given.
    Absent,
    /// JSON on the command line.
    Text(String),
    /// A file with JSON.
    File(PathBuf),
    /// Standard input, read while the call runs.
    Stdin,
}

impl Input {
    /// As after `--data`: `-`, `@FILE`, or JSON.
    fn new(data: &str) -> Self {
        match (data, data.strip_prefix('@')) {
            ("-", _) => Self::Stdin,
            (_, Some(file)) => Self::File(file.into()),
            (text, None) => Self::Text(text.to_owned()),
        }
    }
}

/// The calls that the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Calls {
    /// In this order; there is at least one.
    Named(Vec<Step>),
    /// Those of a script; `-` is stdin.
    Script(PathBuf),
}

/// The flags that name calls. Their order says which data belongs to which method.
#[derive(Clone, Debug, Args)]
struct Flags {
    /// The method to call, such as `grpc.health.v1.Health/Check`, or `Plugin.Speak` over net/rpc;
    /// may be repeated: the calls are made one after the other on the one plugin.
    #[arg(
        long = "method",
        value_name = "SERVICE/METHOD | SERVICE.METHOD",
        required_unless_present = "script",
        conflicts_with = "script"
    )]
    methods: Vec<MethodName>,

    /// Request messages as JSON, one per line; `@FILE` reads a file, `-` reads stdin. With several
    /// methods, it belongs to the one before it.
    #[arg(
        long,
        value_name = "JSON | @FILE | -",
        allow_hyphen_values = true,
        conflicts_with = "script"
    )]
    data: Vec<String>,

    /// net/rpc: the argument's type in Go's syntax, such as `map[string]int`.
    /// Without it, the one that the JSON implies. With several methods, it belongs to the one before it.
    #[arg(long = "type", value_name = "GO-TYPE", conflicts_with = "script")]
    types: Vec<String>,

    /// Make the calls of a file, one a line: a method and its JSON. `-` reads stdin.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

impl Args for Calls {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}

impl FromArgMatches for Calls {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = Flags::from_arg_matches(matches)?;
        let at = |name: &str| -> Vec<usize> {
            matches
                .indices_of(name)
                .map_or_else(Vec::new, Iterator::collect)
        };
        let words = matches.try_get_many::<String>(WORDS).ok().flatten();
        let from_stdin = words.into_iter().flatten().any(|word| word == STDIN);
        flags.calls(from_stdin, &at("methods"), &at("data"), &at("types"))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Flags {
    /// The calls, where the flags stand at these places of the command line.
    fn calls(
        self,
        from_stdin: bool,
        methods: &[usize],
        data: &[usize],
        types: &[usize],
    ) -> Result<Calls, clap::Error> {
        if from_stdin && (self.script.is_some() || !data.is_empty()) {
            return Err(misused("`-` takes the place of `--data`"));
        }
        if let Some(script) = self.script {
            return Ok(Calls::Script(script));
        }
        let mut data = assigned("--data", self.data, data, methods)?;
        let mut types = assigned("--type", self.types, types, methods)?;
        if from_stdin {
            match methods.len() {
                1 => data[0] = Some("-".to_owned()),
                _ => {
                    return Err(misused(
                        "`-` is for one `--method`; write `--data -` after one",
                    ));
                }
            }
        }
        let steps: Vec<Step> = self
            .methods
            .into_iter()
            .enumerate()
            .map(|(at, method)| Step {
                method,
                input: data[at]
                    .take()
                    .map_or(Input::Absent, |data| Input::new(&data)),
                go_type: types[at].take(),
            })
            .collect();
        if steps
            .iter()
            .filter(|step| step.input == Input::Stdin)
            .count()
            > 1
        {
            return Err(misused("only one call can read its data from stdin"));
        }
        Ok(Calls::Named(steps))
    }
}

/// For each method its value of a flag: the one that follows it. One method
/// may have it in front, too.
fn assigned(
    flag: &str,
    values: Vec<String>,
    places: &[usize],
    methods: &[usize],
) -> Result<Vec<Option<String>>, clap::Error> {
    let mut own = vec![None; methods.len()];
    for (value, place) in values.into_iter().zip(places) {
        let before = methods.iter().filter(|method| *method < place).count();
        let at = match (before.checked_sub(1), methods.len()) {
            (Some(at), _) => at,
            (None, 1) => 0,
            (None, _) => {
                return Err(misused(&format!(
                    "with several methods, `{flag}` stands after the `--method` it belongs to"
                )));
            }
        };
        if own[at].replace(value).is_some() {
            return Err(misused(&format!("one `--method` has two `{flag}`")));
        }
    }
    Ok(own)
}

fn misused(text: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ArgumentConflict, format!("{text}\n"))
}

/// What a line of a script, or of the shell, says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// Nothing, or a comment.
    Empty,
    Call(Step),
    /// Its JSON is not complete: the next line belongs to it.
    Unfinished,
}

/// Reads one line: `METHOD`, `METHOD JSON …` or `METHOD @FILE`; `#` begins a comment.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn line(text: &str) -> Result<Line, String> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(Line::Empty);
    }
    let (method, data) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let method: MethodName = method
        .parse()
        .map_err(|reason| format!("`{}` is no method: {reason}", printable(method)))?;
    let input = match data.trim() {
        "" => Input::Absent,
        "-" => return Err("data from stdin is for the command line; write the JSON here".into()),
        data if data.starts_with('@') => Input::new(data),
        data => match complete(data) {
            Ok(true) => Input::Text(data.to_owned()),
            Ok(false) => return Ok(Line::Unfinished),
            Err(reason) => return Err(format!("its data is no JSON: {reason}")),
        },
    };
    Ok(Line::Call(Step {
        method,
        input,
        go_type: None,
    }))
}

/// Whether JSON values are complete, as far as they are JSON.
fn complete(data: &str) -> Result<bool, String> {
    for value in serde_json::Deserializer::from_str(data).into_iter::<IgnoredAny>() {
        match value {
            Ok(_) => {}
            Err(error) if error.is_eof() => return Ok(false),
            Err(error) => return Err(printable(&error.to_string())),
        }
    }
    Ok(true)
}

/// Puts lines together until they are one call.
#[derive(Default)]
pub(crate) struct Assembly {
    text: String,
    number: u64,
}

impl Assembly {
    /// Takes the next line; gives a call once one is complete.
    ///
    /// # Errors
    /// `script-invalid`; the line is forgotten then.
    pub(crate) fn push(&mut self, next: &str) -> Result<Option<Step>, Failure> {
        self.number += 1;
        self.text.push_str(next);
        if self.text.len() as u64 > LONGEST {
            self.text.clear();
            return Err(self.invalid("it is too long; data can come from a file: `METHOD @FILE`"));
        }
        match line(&self.text) {
            Ok(Line::Unfinished) => {
                self.text.push('\n');
                Ok(None)
            }
            read => {
                self.text.clear();
                match read {
                    Ok(Line::Call(step)) => Ok(Some(step)),
                    Ok(_) => Ok(None),
                    Err(reason) => Err(self.invalid(&reason)),
                }
            }
        }
    }

    /// The end of the lines.
    ///
    /// # Errors
    /// `script-invalid` when a call is not complete.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        match self.is_empty() {
            true => Ok(()),
            false => Err(self.invalid("its JSON is not complete")),
        }
    }

    /// Whether no call is begun.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn invalid(&self, reason: &str) -> Failure {
        let message = format!("line {} is no call: {reason}", self.number);
        Failure::usage("script-invalid", message)
            .help("a line is a method and its JSON: `proto.KV/Get {\"key\": \"a\"}`")
    }
}

/// The calls of a script, all of them read before the first is made.
///
/// # Errors
/// `script-unreadable` and `script-invalid`.
pub(crate) fn script(path: &Path) -> Result<Vec<Step>, Failure> {
    use std::io::Read as _;
    let unreadable = |reason: String| {
        let path = printable(&path.display().to_string());
        let message = format!("the script `{path}` could not be read");
        Failure::usage("script-unreadable", message).note(reason)
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > LONGEST {
        return Err(unreadable(format!(
            "it is longer than {} MiB",
            LONGEST >> 20
        )));
    }
    let mut assembly = Assembly::default();
    let mut steps = Vec::new();
    for line in text.lines() {
        steps.extend(assembly.push(line)?);
    }
    assembly.end()?;
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Only {
        #[command(flatten)]
        calls: Calls,
        #[arg(id = WORDS, num_args = 0..=2)]
        words: Vec<String>,
    }

    fn calls(args: &[&str]) -> Result<Calls, clap::Error> {
        use clap::Parser as _;
        let all = ["test"].iter().chain(args);
        Only::try_parse_from(all).map(|only| only.calls)
    }

    fn step(method: &str, input: Input, go_type: Option<&str>) -> Step {
        Step {
            method: method.parse().expect("a name"),
            input,
            go_type: go_type.map(str::to_owned),
        }
    }

    #[test]
    fn data_belongs_to_the_method_before_it() {
        let text = |text: &str| Input::Text(text.to_owned());
        let named = calls(&[
            "--method", "a.B/C", "--data", "1", "--method", "a.B/D", "--method", "a.B/E", "--type",
            "int", "--data", "@f",
        ]);
        let steps = vec![
            step("a.B/C", text("1"), None),
            step("a.B/D", Input::Absent, None),
            step("a.B/E", Input::File("f".into()), Some("int")),
        ];
        assert_eq!(named.expect("good"), Calls::Named(steps));
        // A single method takes it from anywhere, as ever.
        let one = Calls::Named(vec![step("a.B/C", text("1"), Some("int"))]);
        assert_eq!(
            calls(&["--type", "int", "--data", "1", "--method", "a.B/C"]).expect("good"),
            one
        );
    }

    #[test]
    fn request_messages_come_from_text_a_file_or_stdin() {
        let input = |args: &[&str]| {
            let all: Vec<&str> = ["--method", "a.B/C"].iter().chain(args).copied().collect();
            match calls(&all).expect("good arguments") {
                Calls::Named(mut steps) => steps.remove(0).input,
                Calls::Script(_) => panic!("no script"),
            }
        };
        assert_eq!(input(&[]), Input::Absent);
        assert_eq!(input(&["--data", "{}"]), Input::Text("{}".into()));
        assert_eq!(input(&["--data", "-1"]), Input::Text("-1".into()));
        assert_eq!(input(&["--data", "@a b"]), Input::File("a b".into()));
        assert_eq!(input(&["--data", "-"]), Input::Stdin);
        assert_eq!(input(&["-"]), Input::Stdin);
    }

    #[test]
    fn data_that_belongs_to_no_method_or_to_none_alone_is_refused() {
        for args in [
            &["--data", "1", "--method", "a.B/C", "--method", "a.B/D"][..],
            &["--method", "a.B/C", "--data", "1", "--data", "2"],
            &[
                "--method", "a.B/C", "--data", "-", "--method", "a.B/D", "--data", "-",
            ],
            &["--method", "a.B/C", "--method", "a.B/D", "-"],
            &["--method", "a.B/C", "--script", "f"],
            &["--script", "f", "-"],
            &[],
        ] {
            assert!(calls(args).is_err(), "{args:?}");
        }
        assert_eq!(
            calls(&["--script", "-"]).expect("good"),
            Calls::Script("-".into())
        );
    }

    #[test]
    fn a_line_is_a_method_and_its_json() {
        let text = |text: &str| Input::Text(text.to_owned());
        for (given, read) in [
            ("", Line::Empty),
            ("  # a.B/C {}", Line::Empty),
            ("a.B/C", Line::Call(step("a.B/C", Input::Absent, None))),
            (
                "a.B/C\t{} {}",
                Line::Call(step("a.B/C", text("{} {}"), None)),
            ),
            (
                "Plugin.Get \"a b\"",
                Line::Call(step("Plugin.Get", text("\"a b\""), None)),
            ),
            (
                "a.B/C @a b",
                Line::Call(step("a.B/C", Input::File("a b".into()), None)),
            ),
            ("a.B/C {\"a\":", Line::Unfinished),
        ] {
            assert_eq!(line(given), Ok(read), "{given}");
        }
        for bad in ["a", "a.B/C }", "a.B/C -", "\u{1b}[2J {}"] {
            let reason = line(bad).expect_err(bad);
            assert!(!reason.contains('\u{1b}'), "{reason}");
        }
    }

    #[test]
    fn lines_are_put_together_until_their_json_is_complete() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.push("a.B/C {"), Ok(None));
        assert_eq!(
            assembly
                .push("  # no comment within JSON")
                .expect_err("no JSON")
                .code,
            "script-invalid"
        );
        assert_eq!(assembly.push("a.B/C {"), Ok(None));
        assert!(assembly.end().is_err());
        let step = assembly.push("}").expect("good").expect("a call");
        assert_eq!(step.input, Input::Text("{\n}".to_owned()));
        assert_eq!(assembly.end(), Ok(()));
        let failure = assembly.push("nonsense").expect_err("no call");
        assert!(
            failure.message.starts_with("line 5 is no call"),
            "{}",
            failure.message
        );
    }
}
