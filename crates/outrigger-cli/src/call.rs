//! `outrigger call`: any methods of any plugin, one after the other.

use std::io::BufRead as _;
use std::path::Path;

use outrigger_host::Transport;
use serde_json::json;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;

use crate::args::{CallArgs, CallingArgs};
use crate::failure::{Exit, Failure};
use crate::granting::{self, Granting, Target};
use crate::input::{self, Source};
use crate::launch::{self, Start, StartedPlugin};
use crate::printer::{Form, Printer};
use crate::steps::{self, Assembly, Calls, Step};
use crate::{grpc, metadata, netrpc};

/// Starts the plugin, makes the calls, prints the replies, ends the plugin; returns the exit code.
///
/// # Errors
/// What kept the plugin from starting, what is wrong with the arguments, or
/// how the only call failed.
///
/// # Cancel safety
/// Dropping the future ends the plugin; replies already printed stay printed.
pub(crate) async fn run(args: &CallArgs) -> Result<u8, Failure> {
    let options = &args.calling;
    let several = !matches!(&args.calls, Calls::Named(steps) if steps.len() == 1);
    let mut printer = Printer::new(Form::of(options.plugin.json, several), several);
    if let (Calls::Named(steps), false) = (&args.calls, several) {
        printer.call(steps[0].method.to_string());
    }
    let result = session(args, several, &mut printer).await;
    let told = result.as_ref().map(|_| ()).map_err(Clone::clone);
    printer.finish(&told)?;
    result
}

async fn session(args: &CallArgs, several: bool, printer: &mut Printer) -> Result<u8, Failure> {
    let options = &args.calling;
    let mut plan = Plan::of(&args.calls)?;
    let prepared = Prepared::new(options, plan.known())?;
    let target = granting::complete(&options.plugin)?;
    let start = launch::start(&target).await;
    let result = match &start {
        Ok(start) => with_plugin(args, several, prepared, &target, start, &mut plan, printer).await,
        Err(failure) => Err(failure.clone()),
    };
    report(options, &target.granting, printer);
    result
}

async fn with_plugin(
    args: &CallArgs,
    several: bool,
    prepared: Prepared,
    target: &Target,
    start: &Start,
    plan: &mut Plan,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let known = plan.known();
    let mut caller = Caller::new(start, &args.calling, prepared, target, known, printer).await?;
    let result = match several {
        true => caller.sequence(plan, args.keep_going, printer).await,
        false => caller.single(plan, printer).await,
    };
    caller.end(printer).await;
    result
}

/// Tells what the host did for the plugin, if it was offered anything.
pub(crate) fn report(options: &CallingArgs, granting: &Granting, printer: &mut Printer) {
    printer.notes.extend(granting.audit.finish());
    if granting.plugin.is_none() && granting.audit.counts().refused > 0 {
        let note = "nothing is granted without `--manifest`";
        printer.notes.push(note.to_owned());
    }
    if granting.plugin.is_some() || options.establish.is_some() {
        let counts = granting.audit.counts();
        let client = printer.client_id.take();
        printer.host = Some(json!({"client_id": client, "operations": counts}));
    }
}

/// The calls to make.
enum Plan {
    /// All of them are known before the plugin is started, and the data of those
    /// on the command line is opened.
    Known(Vec<Step>, std::vec::IntoIter<(Step, Option<Source>)>),
    /// They come from stdin.
    Read(mpsc::Receiver<Result<Step, Failure>>),
}

impl Plan {
    fn of(calls: &Calls) -> Result<Self, Failure> {
        let (steps, open) = match calls {
            Calls::Script(path) if path == Path::new("-") => return read_stdin().map(Self::Read),
            Calls::Script(path) => (steps::script(path)?, false),
            Calls::Named(steps) => (steps.clone(), true),
        };
        let opened = steps.iter().map(|step| {
            let source = open.then(|| Source::open(step.input.clone())).transpose()?;
            Ok((step.clone(), source))
        });
        let opened: Vec<_> = opened.collect::<Result<_, Failure>>()?;
        Ok(Self::Known(steps, opened.into_iter()))
    }

    fn known(&self) -> &[Step] {
        match self {
            Self::Known(steps, _) => steps,
            Self::Read(_) => &[],
        }
    }

    /// The next call.
    async fn next(&mut self) -> Option<Result<(Step, Source), Failure>> {
        let next = match self {
            Self::Known(_, steps) => Ok(steps.next()?),
            Self::Read(steps) => steps.recv().await?.map(|step| (step, None)),
        };
        Some(next.and_then(|(step, source)| {
            let source = source.map_or_else(|| Source::open(step.input.clone()), Ok)?;
            Ok((step, source))
        }))
    }

    /// How many known calls are left.
    fn left(&self) -> usize {
        match self {
            Self::Known(_, steps) => steps.len(),
            Self::Read(_) => 0,
        }
    }
}

/// Reads calls from stdin, each when it is wanted.
fn read_stdin() -> Result<mpsc::Receiver<Result<Step, Failure>>, Failure> {
    let lines = input::stdin()?;
    let (queue, steps) = mpsc::channel(1);
    input::beside(move || {
        let mut assembly = Assembly::default();
        for line in lines.lines() {
            let step = match line {
                Ok(line) => assembly.push(&line).transpose(),
                Err(error) => Some(Err(unreadable(&error))),
            };
            if let Some(step) = step
                && queue.blocking_send(step).is_err()
            {
                return;
            }
        }
        if let Err(failure) = assembly.end() {
            let _ = queue.blocking_send(Err(failure));
        }
    })?;
    Ok(steps)
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Internal, "input-failed", "stdin could not be read").note(error.to_string())
}

/// What can be checked before a plugin is started.
pub(crate) struct Prepared {
    metadata: MetadataMap,
    types: netrpc::Types,
}

impl Prepared {
    /// Reads metadata and types.
    ///
    /// # Errors
    /// `metadata-invalid` and `type-invalid`.
    pub(crate) fn new(options: &CallingArgs, known: &[Step]) -> Result<Self, Failure> {
        let types = netrpc::Types::new(&options.type_defs)?;
        for step in known {
            types.argument(step.go_type.as_deref())?;
        }
        Ok(Self {
            metadata: metadata::read(&options.metadata)?,
            types,
        })
    }
}

/// Makes calls on one plugin, whatever it speaks.
pub(crate) struct Caller<'a> {
    session: &'a StartedPlugin,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Grpc(Box<grpc::Caller<'a>>),
    NetRpc(Box<netrpc::Caller<'a>>),
}

impl<'a> Caller<'a> {
    /// Makes ready for calls; `known` are those that will be made, as far as that is known.
    ///
    /// # Errors
    /// `option-unsupported`, and as the caller of the protocol. The plugin is ended then.
    pub(crate) async fn new(
        start: &'a Start,
        options: &'a CallingArgs,
        prepared: Prepared,
        target: &'a Target,
        known: &[Step],
        printer: &mut Printer,
    ) -> Result<Self, Failure> {
        let made = async {
            let protocol = match start {
                Start::Grpc(..) => Transport::Grpc,
                Start::NetRpc(..) => Transport::NetRpc,
            };
            if let Some(option) = unsupported(options, known, protocol) {
                return Err(launch::option_unsupported(option, protocol, target));
            }
            let granting = &target.granting;
            let session = start.session();
            let kind = match start {
                Start::Grpc(session, channel) => Kind::Grpc(Box::new(
                    grpc::Caller::new(
                        session,
                        channel.clone(),
                        options,
                        granting,
                        prepared.metadata,
                        known,
                        printer,
                    )
                    .await?,
                )),
                Start::NetRpc(session, control) => Kind::NetRpc(Box::new(
                    netrpc::Caller::new(
                        session,
                        control,
                        options,
                        granting,
                        prepared.types,
                        printer,
                    )
                    .await?,
                )),
            };
            Ok(Self { session, kind })
        };
        let made = made.await;
        if made.is_err() {
            start.session().end().await;
        }
        made
    }

    /// The methods that the plugin is known to have.
    pub(crate) fn methods(&self) -> Vec<String> {
        match &self.kind {
            Kind::Grpc(caller) => caller.methods(),
            Kind::NetRpc(_) => Vec::new(),
        }
    }

    /// The caller of a plugin that describes its methods.
    pub(crate) fn grpc(&self) -> Option<&grpc::Caller<'a>> {
        match &self.kind {
            Kind::Grpc(caller) => Some(caller),
            Kind::NetRpc(_) => None,
        }
    }

    /// Makes one call.
    ///
    /// # Errors
    /// What is wrong with the method or its data, or how the call failed.
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up; over net/rpc its method may go on.
    pub(crate) async fn call(
        &mut self,
        step: &Step,
        source: Source,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        printer.call(match &self.kind {
            Kind::Grpc(_) => step.method.to_string(),
            Kind::NetRpc(_) => step.method.dotted(),
        });
        match &mut self.kind {
            Kind::Grpc(caller) => caller.call(step, source, printer).await,
            Kind::NetRpc(caller) => caller.call(step, source, printer).await,
        }
    }

    /// Whether the plugin is still there.
    pub(crate) fn alive(&self) -> bool {
        self.session.alive()
    }

    /// Ends the plugin, then what was served to it, and hands over what was seen
    /// of its own calls.
    pub(crate) async fn end(self, printer: &mut Printer) {
        self.session.end().await;
        if let Kind::Grpc(caller) = &self.kind
            && let Some((served, note)) = caller.witness().and_then(|witness| witness.told())
        {
            printer.served = Some(served);
            printer.notes.extend(note);
        }
    }

    async fn single(&mut self, plan: &mut Plan, printer: &mut Printer) -> Result<u8, Failure> {
        let Some(next) = plan.next().await else {
            return Ok(0);
        };
        let (step, source) = next?;
        let result = self.call(&step, source, printer).await;
        printer.called(&result)?;
        result.map(|()| 0)
    }

    /// Makes the calls of a plan; returns the exit code of the first that failed.
    async fn sequence(
        &mut self,
        plan: &mut Plan,
        keep_going: bool,
        printer: &mut Printer,
    ) -> Result<u8, Failure> {
        let mut code = 0;
        while let Some(next) = plan.next().await {
            let result = match next {
                Ok((step, source)) => {
                    let result = self.call(&step, source, printer).await;
                    printer.called(&result)?;
                    result
                }
                // What is no call cannot be passed over: data may belong to it.
                Err(failure) => return Err(failure),
            };
            let Err(failure) = result else { continue };
            code = if code == 0 { failure.exit as u8 } else { code };
            if !keep_going || !self.alive() {
                let left = plan.left();
                if left > 0 {
                    let calls = if left == 1 { "call was" } else { "calls were" };
                    printer.notes.push(format!(
                        "{left} further {calls} not made{}",
                        if keep_going {
                            ": the plugin is gone"
                        } else {
                            " (`--keep-going`)"
                        }
                    ));
                }
                break;
            }
        }
        Ok(code)
    }
}

/// An option that means nothing to the protocol that the plugin speaks.
fn unsupported(options: &CallingArgs, known: &[Step], protocol: Transport) -> Option<&'static str> {
    let typed = known.iter().any(|step| step.go_type.is_some());
    Some(match protocol {
        Transport::Grpc if options.name.is_some() => "--plugin",
        Transport::Grpc if typed => "--type",
        Transport::Grpc if !options.type_defs.is_empty() => "--type-def",
        Transport::NetRpc if !options.metadata.is_empty() => "--metadata",
        Transport::NetRpc if options.descriptors.is_some() => "--descriptors",
        Transport::NetRpc if !options.serve.is_empty() => "--serve",
        _ => return None,
    })
}
