//! `outrigger shell`: calls as they are typed, on one plugin.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::ShellArgs;
use crate::call::{self, Caller, Prepared};
use crate::descriptors::{self, MethodName};
use crate::failure::{Exit, Failure, printable};
use crate::granting;
use crate::input::{self, Source};
use crate::launch::{self, StartedPlugin};
use crate::output;
use crate::printer::{Form, Printer};
use crate::requests::field_type;
use crate::steps::{Assembly, Step};
use crate::terminal::{Terminal, Typed};

/// What is asked for in front of each line.
const PROMPT: &str = "outrigger> ";

/// What can be typed beside methods.
const COMMANDS: [&str; 4] = ["exit", "help", "methods", "quit"];

const HELP: &str = "\
METHOD [JSON]   call a method, such as `proto.KV/Get {\"key\": \"a\"}`, or `Plugin.Get \"a\"` over net/rpc;
                a stream of requests takes several, `@FILE` reads them from a file
methods         the methods that the plugin describes
help METHOD     the fields of its request and of its reply
exit, quit      end, as Ctrl-D does; the plugin ends, too
Ctrl-C gives up the call that runs, or the line. `#` begins a comment.
";

/// Starts the plugin and makes the calls that are typed until the end of the
/// input; returns the exit code.
///
/// # Errors
/// What kept the plugin from starting, or what is wrong with the arguments.
///
/// # Cancel safety
/// Dropping the future ends the plugin and restores the terminal.
pub(crate) async fn run(args: &ShellArgs) -> Result<u8, Failure> {
    let options = &args.calling;
    let terminal = std::io::stdin().is_terminal();
    let form = if options.plugin.json {
        Form::Lines
    } else {
        Form::Text
    };
    let mut printer = Printer::new(form, true);
    // Whoever types a call knows which one is answered.
    printer.headed = !terminal;
    let conversing = AtomicBool::new(false);
    let session = session(args, terminal, &conversing, &mut printer);
    let result = tokio::select! {
        result = session => result,
        // Dropping the session ends the plugin.
        () = interrupted_outside(&conversing), if terminal => return Ok(130),
    };
    let told = result.as_ref().map(|_| ()).map_err(Clone::clone);
    printer.finish(&told)?;
    result
}

/// An interrupt while nobody types: while the plugin starts, or ends.
async fn interrupted_outside(conversing: &AtomicBool) {
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else {
        return std::future::pending().await;
    };
    loop {
        interrupt.recv().await;
        if !conversing.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// `conversing` says whether an interrupt means the line or the call.
async fn session(
    args: &ShellArgs,
    terminal: bool,
    conversing: &AtomicBool,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let options = &args.calling;
    let prepared = Prepared::new(options, &[])?;
    let stdin = input::stdin()?;
    let target = granting::complete(&options.plugin)?;
    let start = launch::start(&target).await?;
    let mut caller = Caller::new(&start, options, prepared, &target, &[], printer).await?;
    let result = match Lines::open(args, terminal, stdin, &caller) {
        Ok(lines) => {
            if terminal {
                greet(&target.name(), &caller);
            }
            let mut shell = Shell {
                session: start.session(),
                lines,
                assembly: Assembly::default(),
                interactive: terminal,
                code: 0,
            };
            conversing.store(true, Ordering::Relaxed);
            let result = shell.converse(&mut caller, printer).await;
            conversing.store(false, Ordering::Relaxed);
            result
        }
        Err(failure) => Err(failure),
    };
    caller.end(printer).await;
    call::report(options, &target.granting, printer);
    result
}

fn greet(name: &str, caller: &Caller<'_>) {
    let known = match caller.methods().len() {
        0 => "it describes no methods".to_owned(),
        count => format!("{count} methods (Tab completes them)"),
    };
    output::note(&format!(
        "plugin `{name}`: {known}; `help` tells more, Ctrl-D ends"
    ));
}

/// Where lines come from.
enum Lines {
    Typed(Box<Terminal>),
    Piped(mpsc::Receiver<std::io::Result<String>>),
}

impl Lines {
    fn open(
        args: &ShellArgs,
        terminal: bool,
        stdin: std::io::BufReader<std::fs::File>,
        caller: &Caller<'_>,
    ) -> Result<Self, Failure> {
        if terminal {
            // A plugin chose the names; those of others would move the cursor.
            let plain = |c: char| c.is_ascii_alphanumeric() || "._/".contains(c);
            let methods = caller.methods().into_iter();
            let words = methods.filter(|name| name.chars().all(plain));
            let words = words.chain(COMMANDS.map(str::to_owned)).collect();
            let terminal = Terminal::open(words, args.history.as_deref())?;
            return Ok(Self::Typed(Box::new(terminal)));
        }
        let (queue, lines) = mpsc::channel(1);
        input::beside(move || {
            for line in stdin.lines() {
                if queue.blocking_send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self::Piped(lines))
    }

    async fn next(&mut self) -> Typed {
        match self {
            Self::Typed(terminal) => terminal.next(PROMPT).await,
            Self::Piped(lines) => match lines.recv().await {
                None => Typed::End,
                Some(Ok(line)) => Typed::Line(line),
                Some(Err(error)) => Typed::Failed(error.to_string()),
            },
        }
    }
}

/// A conversation about one plugin.
struct Shell<'a> {
    session: &'a StartedPlugin,
    lines: Lines,
    assembly: Assembly,
    interactive: bool,
    /// The exit code of the first call that failed.
    code: u8,
}

impl Shell<'_> {
    /// Does what is typed until the end; returns the exit code.
    async fn converse(
        &mut self,
        caller: &mut Caller<'_>,
        printer: &mut Printer,
    ) -> Result<u8, Failure> {
        loop {
            let line = match self.lines.next().await {
                Typed::Line(line) => line,
                Typed::Interrupted => {
                    self.assembly = Assembly::default();
                    continue;
                }
                Typed::End => {
                    if let Err(failure) = self.assembly.end() {
                        self.told(&failure, printer)?;
                    }
                    break;
                }
                Typed::Failed(reason) => {
                    let message = "no further line could be read";
                    return Err(Failure::new(Exit::Internal, "input-failed", message).note(reason));
                }
            };
            let step = match self.understood(&line, caller) {
                Ok(Entry::Call(step)) => step,
                Ok(Entry::Done) => continue,
                Ok(Entry::End) => break,
                Err(failure) => {
                    self.told(&failure, printer)?;
                    continue;
                }
            };
            // One that came before the call means nothing to it.
            let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| {
                let message = "interrupts cannot be taken";
                Failure::new(Exit::Internal, "runtime-failed", message).note(error.to_string())
            })?;
            self.call(&step, caller, &mut interrupt, printer).await?;
            if !caller.alive() {
                return Ok(Exit::Failed as u8);
            }
        }
        Ok(match self.interactive {
            true => 0,
            false => self.code,
        })
    }

    fn told(&mut self, failure: &Failure, printer: &mut Printer) -> Result<(), Failure> {
        self.failed(failure);
        printer.trouble(failure)
    }

    fn failed(&mut self, failure: &Failure) {
        if self.code == 0 {
            self.code = failure.exit as u8;
        }
    }

    /// What a line means; commands are carried out.
    fn understood(&mut self, line: &str, caller: &Caller<'_>) -> Result<Entry, Failure> {
        let mut words = line.split_whitespace();
        let (first, second) = match self.assembly.is_empty() {
            true => (words.next(), words.next()),
            // The line goes on with the JSON of the one before.
            false => (None, None),
        };
        match (first, second) {
            (Some("exit" | "quit"), None) => return Ok(Entry::End),
            (Some("help"), None) => output::text(HELP)?,
            (Some("help"), Some(method)) => output::text(&described(method, caller)?)?,
            (Some("methods"), None) => {
                let methods = caller.methods();
                let text = methods.iter().map(|name| printable(name) + "\n");
                output::text(&text.collect::<String>())?;
            }
            _ => return Ok(self.assembly.push(line)?.map_or(Entry::Done, Entry::Call)),
        }
        Ok(Entry::Done)
    }

    async fn call(
        &mut self,
        step: &Step,
        caller: &mut Caller<'_>,
        interrupt: &mut Signal,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        if !caller.alive() {
            let failure = self.ended();
            return self.told(&failure, printer);
        }
        let source = match Source::open(step.input.clone()) {
            Ok(source) => source,
            Err(failure) => return self.told(&failure, printer),
        };
        let result = tokio::select! {
            result = caller.call(step, source, printer) => result,
            _ = interrupt.recv(), if self.interactive => {
                let message = format!("`{}` was given up", step.method);
                Err(Failure::new(Exit::Failed, "call-cancelled", message))
            }
        };
        if let Err(failure) = &result {
            self.failed(failure);
        }
        printer.called(&result)
    }

    /// The plugin ended between two calls.
    fn ended(&self) -> Failure {
        let end = self.session.plugin.exited().map(|report| report.status);
        let end = end.map_or_else(|| "has ended".to_owned(), |status| status.to_string());
        let failure = Failure::new(Exit::Failed, "plugin-ended", format!("the plugin {end}"));
        self.session.last_words(failure)
    }
}

/// What a line was.
enum Entry {
    Call(Step),
    Done,
    End,
}

/// A method with the fields of its messages.
fn described(method: &str, caller: &Caller<'_>) -> Result<String, Failure> {
    let name: MethodName = method.parse().map_err(|reason| {
        let message = format!("`{}` is no method: {reason}", printable(method));
        Failure::usage("unknown-method", message)
    })?;
    let Some(caller) = caller.grpc() else {
        let message = "net/rpc describes no methods; they stand in the plugin's source";
        return Err(Failure::usage("unknown-method", message));
    };
    let method = caller.method(&name)?;
    let kind = descriptors::kind(method.is_client_streaming(), method.is_server_streaming());
    let mut text = format!("{} ({kind})\n", printable(&name.to_string()));
    for (what, message) in [("request", method.input()), ("reply", method.output())] {
        let _ = writeln!(text, "  {what} {}", printable(message.full_name()));
        for field in message.fields() {
            let own = format!("{}: {}", field.json_name(), field_type(&field));
            let _ = writeln!(text, "    {}", printable(&own));
        }
    }
    Ok(text)
}
