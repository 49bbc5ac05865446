//! `outrigger call` on a plugin that speaks net/rpc.
//!
//! Such a plugin describes nothing: the caller knows the name, the method and
//! the type of the argument; only the reply says what it is.

use std::error::Error;
use std::time::Duration;

use outrigger_gob::{Encoded, Value};
use outrigger_host::netrpc::{CallError, CallErrorKind, Client, HostSession, SessionError};
use outrigger_host::{PluginExited, Transport};
use outrigger_wire::Excerpt;

use crate::args::CallingArgs;
use crate::establish::{self, Introduced};
use crate::failure::{Exit, Failure, chain, printable};
use crate::fromgob::GobJson;
use crate::gotext;
use crate::gotype::{GoType, GoTypes};
use crate::granting::Granting;
use crate::grpc::UNARY_TIMEOUT;
use crate::input::{self, Source};
use crate::launch::StartedPlugin;
use crate::printer::{Ending, Printer};
use crate::steps::Step;
use crate::{json, texts, togob};

/// How long a plugin may take to make an object.
pub(crate) const DISPENSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest reply that is printed, in bytes of JSON. Fields that were left
/// out are printed too, so that a small reply can become any size.
const MOST_SHOWN: usize = 256 << 20;

/// The types that the command line names.
pub(crate) struct Types(GoTypes);

impl Types {
    /// Reads `--type-def`.
    ///
    /// # Errors
    /// `type-invalid`.
    pub(crate) fn new(definitions: &[(String, String)]) -> Result<Self, Failure> {
        GoTypes::new(definitions).map(Self)
    }

    /// Reads `--type`.
    ///
    /// # Errors
    /// `type-invalid`.
    pub(crate) fn argument(&self, text: Option<&str>) -> Result<Option<GoType>, Failure> {
        let argument = text.map(|text| {
            self.0.parse(text).map_err(|reason| {
                let message = format!("`--type {}` is no type in Go's syntax", printable(text));
                Failure::usage("type-invalid", message).note(reason)
            })
        });
        argument.transpose()
    }
}

/// Calls the methods of one object.
pub(crate) struct Caller<'a> {
    session: &'a StartedPlugin,
    object: Client,
    types: Types,
    timeout: Option<Duration>,
    _introduced: Option<Introduced>,
}

impl<'a> Caller<'a> {
    /// Dispenses the object and introduces the host.
    ///
    /// # Errors
    /// What is wrong with the name, or what the plugin said of it.
    pub(crate) async fn new(
        session: &'a StartedPlugin,
        control: &HostSession,
        options: &CallingArgs,
        granting: &Granting,
        types: Types,
        printer: &mut Printer,
    ) -> Result<Self, Failure> {
        let name = options.name.as_deref().ok_or_else(name_missing)?;
        let object = dispense(control, name)
            .await
            .map_err(|refused| refused.failure(session))?;
        let introduced = match &options.establish {
            Some(name) => {
                let introduced = establish::over_net_rpc(session, &object, granting, name).await?;
                Some(printer.introduced(introduced))
            }
            None => None,
        };
        let limit = options.timeout.unwrap_or(UNARY_TIMEOUT);
        Ok(Self {
            session,
            object,
            types,
            timeout: (!limit.is_zero()).then_some(limit),
            _introduced: introduced,
        })
    }

    /// Calls a method and prints the reply.
    ///
    /// # Errors
    /// What is wrong with the argument, or how the call failed.
    ///
    /// # Cancel safety
    /// When the future is dropped the method may still be running.
    pub(crate) async fn call(
        &mut self,
        step: &Step,
        input: Source,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let stated = self.types.argument(step.go_type.as_deref())?;
        let data = input::only_value(input).await?;
        let argument = togob::argument(data.as_ref(), stated.as_ref(), &self.types.0)
            .map_err(|misfit| unsuitable(misfit, stated.as_ref(), &self.types))?;
        let ending = |reply_type: Option<String>, failure: Option<&str>| Ending::NetRpc {
            reply_type,
            failure: failure.map(str::to_owned),
        };
        printer.ending(ending(None, None));
        printer.begin(Transport::NetRpc, "unary")?;
        let method = step.method.dotted();
        let reply = match exchange(&self.object, &method, &argument, self.timeout).await {
            Ok(reply) => reply,
            Err(Unanswered::Late(limit)) => return Err(late(limit, &argument, &method)),
            Err(Unanswered::Failed(error)) => {
                printer.ending(ending(None, error.failure()));
                return Err(failed(&error, &argument, step, self.session));
            }
        };
        printer.ending(ending(Some(reply.ty().to_string()), None));
        show(&reply, &method, printer)
    }
}

/// Prints a reply.
fn show(reply: &Encoded, method: &str, printer: &mut Printer) -> Result<(), Failure> {
    let unreadable = |reason: String| {
        let message = format!("the reply of `{method}` cannot be shown");
        Failure::new(Exit::Failed, "reply-invalid", message).note(printable(&reason))
    };
    let value = reply
        .to_value()
        .map_err(|error| unreadable(error.to_string()))?;
    let text = json::line_within(&GobJson(&value), MOST_SHOWN)
        .map_err(|error| unreadable(error.to_string()))?;
    printer.reply(&text, &texts::of_gob(&value))
}

/// Why a call has no reply.
enum Unanswered {
    Late(Duration),
    Failed(CallError),
}

async fn exchange(
    object: &Client,
    method: &str,
    argument: &Value,
    limit: Option<Duration>,
) -> Result<Encoded, Unanswered> {
    let call = object.call_encoded(method, argument);
    let reply = match limit {
        Some(limit) => tokio::time::timeout(limit, call)
            .await
            .map_err(|_| Unanswered::Late(limit))?,
        None => call.await,
    };
    let reply = reply.map_err(Unanswered::Failed)?;
    Ok(reply.encoded().clone())
}

fn name_missing() -> Failure {
    Failure::usage(
        "plugin-name-missing",
        "a net/rpc plugin is called by one of the names in its set, and `--plugin` names none",
    )
    .note("net/rpc cannot list them")
    .help(NAMES)
}

/// Where names can be found.
pub(crate) const NAMES: &str = "the names are the keys of the `PluginSet` in the source of the plugin or of its host; \
     often there is one, which is what the program is called";

fn unsuitable(misfit: togob::Misfit, stated: Option<&GoType>, types: &Types) -> Failure {
    let message = format!(
        "the data does not fit at `{}`: {}",
        misfit.path, misfit.problem
    );
    let mut failure = Failure::usage("data-invalid", message);
    if let Some(described) = stated.and_then(|ty| types.0.describe(ty, 2)) {
        failure = failure.note(format!("the argument is to be a `{described}` (`--type`)"));
    }
    misfit.help.into_iter().fold(failure, Failure::help)
}

/// Why a name was not dispensed.
pub(crate) enum Refused {
    /// The plugin has no such name.
    Unknown(String),
    /// The plugin refused it, with this text.
    Said(String, String),
    /// No answer came in time.
    Late(String),
    /// The way to the object failed.
    Unreached(String, SessionError),
}

/// Asks for the object called `name`.
///
/// # Errors
/// See [`Refused`].
///
/// # Cancel safety
/// The plugin forgets the object when nobody fetches it.
pub(crate) async fn dispense(control: &HostSession, name: &str) -> Result<Client, Refused> {
    let own = || printable(name);
    let error = match tokio::time::timeout(
        DISPENSE_TIMEOUT,
        control.dispense(name, DISPENSE_TIMEOUT),
    )
    .await
    {
        Ok(Ok(object)) => return Ok(object),
        Ok(Err(error)) => error,
        Err(_) => return Err(Refused::Late(own())),
    };
    let said = match &error {
        // The same deadline, noticed by the one or the other.
        SessionError::Call(error)
            if matches!(
                error.kind(),
                CallErrorKind::TimedOut(_) | CallErrorKind::NotSent(_)
            ) =>
        {
            return Err(Refused::Late(own()));
        }
        SessionError::Call(error) => error.failure(),
        _ => None,
    };
    Err(match said {
        Some(text) if text.starts_with("unknown plugin type: ") => Refused::Unknown(own()),
        Some(text) => Refused::Said(own(), Excerpt::new(text.as_bytes()).to_string()),
        None => Refused::Unreached(own(), error),
    })
}

impl Refused {
    /// What happened, in one phrase.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Unknown(_) => "the plugin has no such name".to_owned(),
            Self::Said(_, text) => format!("the plugin refused: {text}"),
            Self::Late(_) => format!("no answer within {} s", DISPENSE_TIMEOUT.as_secs()),
            Self::Unreached(_, error) => chain(error),
        }
    }

    fn failure(&self, session: &StartedPlugin) -> Failure {
        match self {
            Self::Unknown(name) => Failure::usage(
                "unknown-plugin-name",
                format!("the plugin has no `{name}` (`--plugin`)"),
            )
            .note("net/rpc cannot list the names it has")
            .help(NAMES),
            Self::Said(name, said) => {
                let failure = Failure::new(
                    Exit::Failed,
                    "dispense-failed",
                    format!("the plugin did not dispense `{name}`: {said}"),
                );
                match said.contains("protocol not supported") {
                    true => failure.help(
                        "it has the name, but for gRPC: offer the version that speaks gRPC with `--app-version`",
                    ),
                    false => failure,
                }
            }
            Self::Late(name) => Failure::new(
                Exit::Failed,
                "dispense-failed",
                format!("the plugin did not dispense `{name}`: {}", self.text()),
            ),
            Self::Unreached(name, error) => {
                let reason = printable(&error.to_string());
                let message = format!("the plugin did not dispense `{name}`: {reason}");
                let failure = Failure::new(Exit::Failed, error.code(), message);
                bereaved(failure, error, session)
            }
        }
    }
}

/// Adds how the plugin ended, where that is the reason, or what is.
fn bereaved(failure: Failure, error: &(dyn Error + 'static), session: &StartedPlugin) -> Failure {
    match PluginExited::behind(error) {
        Some(exited) => session.epitaph(failure, exited),
        None => failure.caused_by(error),
    }
}

/// Why the call has no reply.
fn failed(error: &CallError, argument: &Value, step: &Step, session: &StartedPlugin) -> Failure {
    let method = step.method.dotted();
    match error.kind() {
        CallErrorKind::Failed(text) => {
            let sent = gotext::Sent {
                ty: argument.ty().to_string(),
                stated: step.go_type.is_some(),
            };
            gotext::explained(text, &step.method, &sent)
        }
        CallErrorKind::Argument(reason) => {
            Failure::usage("data-invalid", "the data cannot be sent as gob")
                .note(printable(&reason.to_string()))
        }
        kind => {
            let message = format!("`{method}` has no reply: {}", printable(&kind.to_string()));
            let failure = Failure::new(Exit::Failed, error.code(), message);
            bereaved(failure, kind, session)
        }
    }
}

fn late(limit: Duration, argument: &Value, method: &str) -> Failure {
    let limit = limit.as_secs_f64();
    let message = format!("no reply of `{method}` within {limit} s (`--timeout`)");
    let failure = Failure::new(Exit::Failed, "netrpc-timed-out", message)
        .note("the method may still have been running: net/rpc cannot cancel it");
    match is_nil(argument) {
        true => failure.help(
            "the argument was nil, and a Go plugin without this method never answers that: \
             check the name, or give it something else (`--data`, `--type`)",
        ),
        false => failure,
    }
}

fn is_nil(value: &Value) -> bool {
    matches!(value, Value::Interface(held) if held.is_nil())
}

#[cfg(test)]
mod tests {
    use outrigger_host::netrpc::{BROKER_WAIT, Budget};
    use outrigger_transport::Fate;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_plugin_that_does_not_dispense_is_late() {
        let (near, _far) = tokio::io::duplex(64 << 10);
        let started =
            HostSession::start(Box::new(near), Fate::new(), Budget::default(), BROKER_WAIT);
        let (control, _output) = started.await.expect("a session");
        let refused = dispense(&control, "cat").await.expect_err("no answer");
        assert!(matches!(refused, Refused::Late(_)), "{}", refused.text());
    }
}
