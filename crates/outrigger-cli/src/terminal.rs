//! A terminal on which lines are typed, with history and completion.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc as channel;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Behavior, Config, Context, Editor, Helper};
use tokio::sync::mpsc;

use crate::failure::{Exit, Failure};
use crate::input;
use crate::steps::{self, Line};

/// The terminal of this process, whatever its stdin is.
const TTY: &str = "/dev/tty";
/// How many lines of the past are kept.
const HISTORY: usize = 1000;

/// What somebody typed.
pub(crate) enum Typed {
    Line(String),
    /// Ctrl-C: the line is to be forgotten.
    Interrupted,
    /// Ctrl-D.
    End,
    /// The terminal cannot be read any more.
    Failed(String),
}

/// Reads lines in a thread of its own, one whenever it is asked.
pub(crate) struct Terminal {
    prompts: channel::Sender<String>,
    typed: mpsc::Receiver<Typed>,
    _restored: Restored,
}

impl Terminal {
    /// Opens the terminal; `words` are completed at the beginning of a line, and
    /// lines are kept in the file `history`.
    ///
    /// # Errors
    /// `input-failed`.
    pub(crate) fn open(words: Vec<String>, history: Option<&Path>) -> Result<Self, Failure> {
        let restored = Restored::new().map_err(|error| failed(&error.to_string()))?;
        let config = Config::builder()
            // Stdin was taken away from the plugin, and from the editor with it.
            .behavior(Behavior::PreferTerm)
            .max_history_size(HISTORY)
            .and_then(|config| config.history_ignore_dups(true))
            .map(|config| config.auto_add_history(true).build())
            .map_err(|error| failed(&error.to_string()))?;
        let mut editor = Editor::<Typing, FileHistory>::with_config(config)
            .map_err(|error| failed(&error.to_string()))?;
        editor.set_helper(Some(Typing { words }));
        let history = history.map(Path::to_owned);
        if let Some(path) = history.as_ref().filter(|path| path.exists()) {
            editor
                .load_history(path)
                .map_err(|error| failed(&format!("the history cannot be read: {error}")))?;
        }
        let (prompts, asked) = channel::channel();
        let (answer, typed) = mpsc::channel(1);
        input::beside(move || type_lines(editor, history, &asked, &answer))?;
        Ok(Self {
            prompts,
            typed,
            _restored: restored,
        })
    }

    /// Waits for the next line.
    pub(crate) async fn next(&mut self, prompt: &str) -> Typed {
        let gone = || Typed::Failed("its reader stopped".to_owned());
        match self.prompts.send(prompt.to_owned()) {
            Ok(()) => self.typed.recv().await.unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }
}

fn failed(reason: &str) -> Failure {
    let message = "the terminal cannot be used";
    Failure::new(Exit::Internal, "input-failed", message).note(reason.to_owned())
}

/// Reads a line for each prompt.
fn type_lines(
    mut editor: Editor<Typing, FileHistory>,
    history: Option<PathBuf>,
    asked: &channel::Receiver<String>,
    answer: &mpsc::Sender<Typed>,
) {
    while let Ok(prompt) = asked.recv() {
        let typed = match editor.readline(&prompt) {
            Ok(line) => Typed::Line(line),
            Err(ReadlineError::Interrupted) => Typed::Interrupted,
            Err(ReadlineError::Eof) => Typed::End,
            Err(error) => Typed::Failed(error.to_string()),
        };
        if let (Typed::Line(_), Some(path)) = (&typed, &history)
            && let Err(error) = editor.append_history(path)
        {
            tracing::warn!(%error, "the history could not be kept");
        }
        if answer.blocking_send(typed).is_err() {
            return;
        }
    }
}

/// Gives the terminal back as it was, also where a line was being typed when the
/// command ended.
struct Restored {
    terminal: File,
    before: Termios,
}

impl Restored {
    fn new() -> std::io::Result<Self> {
        let terminal = File::open(TTY)?;
        let before = tcgetattr(&terminal)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// What the editor knows about lines.
struct Typing {
    words: Vec<String>,
}

impl Completer for Typing {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..position];
        let begun = before
            .rsplit(char::is_whitespace)
            .next()
            .unwrap_or_default();
        let start = position - begun.len();
        let first = matches!(before[..start].trim(), "" | "help");
        let found = match first {
            true => completed(begun, &self.words),
            false => Vec::new(),
        };
        Ok((start, found))
    }
}

/// The words that begin like this, or else those with a part that does.
fn completed(begun: &str, words: &[String]) -> Vec<String> {
    let starting = |matches: &dyn Fn(&str) -> bool| -> Vec<String> {
        let words = words.iter().filter(|word| matches(word));
        words.cloned().collect()
    };
    let whole = starting(&|word| word.starts_with(begun));
    match whole.is_empty() {
        true => starting(&|word| word.split(['.', '/']).any(|part| part.starts_with(begun))),
        false => whole,
    }
}

impl Validator for Typing {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match steps::line(context.input()) {
            Ok(Line::Unfinished) => ValidationResult::Incomplete,
            _ => ValidationResult::Valid(None),
        })
    }
}

impl Hinter for Typing {
    type Hint = String;
}

impl Highlighter for Typing {}

impl Helper for Typing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_completed_from_their_beginning_or_from_a_part() {
        let words = [
            "exit",
            "help",
            "proto.KV/Get",
            "proto.KV/Put",
            "grpc.health.v1.Health/Check",
        ];
        let words = words.map(str::to_owned);
        let completed = |begun: &str| completed(begun, &words);
        assert_eq!(completed("proto.KV/G"), ["proto.KV/Get"]);
        assert_eq!(completed("proto"), ["proto.KV/Get", "proto.KV/Put"]);
        assert_eq!(completed("Get"), ["proto.KV/Get"]);
        assert_eq!(completed("h"), ["help"]);
        assert_eq!(completed("Health"), ["grpc.health.v1.Health/Check"]);
        assert!(completed("none").is_empty());
        assert_eq!(completed("").len(), 5);
    }
}
