//! The introduction of `hostserve.v1`: the host serves on a broker id and tells
//! the plugin, which connects to it and names itself.

use std::str::FromStr as _;
use std::time::Duration;

use http::uri::PathAndQuery;
use outrigger_gob::Value as GobValue;
use outrigger_host::netrpc::{CallErrorKind, Client};
use outrigger_host::{Channel, Serving};
use outrigger_wire::Excerpt;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use crate::codec::DynamicCodec;
use crate::descriptors::{self, Catalogue, MethodName};
use crate::failure::{Exit, Failure, printable};
use crate::granting::Granting;
use crate::launch::StartedPlugin;
use crate::status;

/// How long a plugin may take to connect to the host and to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of an introduction. The services are there as long as this is.
pub(crate) struct Introduced {
    _serving: Serving,
    /// What the plugin calls itself.
    pub(crate) client_id: Option<String>,
    pub(crate) notes: Vec<String>,
}

/// Serves the host's services to the plugin on a new broker id.
///
/// # Errors
/// The code of the broker's error. A plugin without a broker is none: it may
/// need nothing of the host.
pub(crate) async fn offer(
    session: &StartedPlugin,
    granting: &Granting,
) -> Result<Serving, Failure> {
    session
        .plugin
        .serve(&granting.services)
        .await
        .map_err(|error| {
            let message = "the host's services could not be offered to the plugin";
            Failure::new(Exit::Failed, error.code(), message)
                .note(printable(&error.to_string()))
                .caused_by(&error)
        })
}

/// What to say of a plugin that has no broker, where that matters.
pub(crate) fn unreachable(session: &StartedPlugin) -> Option<&'static str> {
    session.plugin.broker().is_missing().then_some(
        "the plugin has no broker (`plugin.GRPCBroker`): \
         it cannot reach the services of the host",
    )
}

/// Introduces the host over gRPC. `metadata` is sent along, as with the call itself.
///
/// # Errors
/// What is wrong with the method; `establish-unsuitable` and `establish-failed`.
///
/// # Cancel safety
/// The services are taken back when the future is dropped.
pub(crate) async fn over_grpc(
    session: &StartedPlugin,
    channel: &Channel,
    granting: &Granting,
    catalogue: &Catalogue,
    name: &MethodName,
    metadata: MetadataMap,
) -> Result<Introduced, Failure> {
    let method = descriptors::method(catalogue, name)?;
    let unary = !method.is_client_streaming() && !method.is_server_streaming();
    let field = only_number(&method.input()).filter(|_| unary);
    let field = field.ok_or_else(|| {
        let message = format!(
            "`{}` cannot introduce the host",
            printable(&name.to_string())
        );
        Failure::usage("establish-unsuitable", message)
            .note("it must take one message that has exactly one `uint32` field, for the broker id")
    })?;
    let serving = offer(session, granting).await?;
    let mut message = DynamicMessage::new(method.input());
    message.set_field(&field, Value::U32(serving.id().0));
    let mut request = Request::new(message);
    *request.metadata_mut() = metadata;
    let answer = tokio::time::timeout(PATIENCE, ask(channel, &method, request)).await;
    let unreachable = unreachable(session);
    let explained = |failure: Failure| unreachable.into_iter().fold(failure, Failure::note);
    let status = match answer {
        Ok(Ok(reply)) => {
            let mut introduced = introduced(serving, &reply, name).map_err(explained)?;
            if introduced.client_id.is_some() {
                introduced.notes.extend(unreachable.map(str::to_owned));
            }
            return Ok(introduced);
        }
        Ok(Err(status)) => status,
        Err(_) => return Err(explained(late(name))),
    };
    if status.code() == Code::Unimplemented {
        return Ok(unneeded(serving, name));
    }
    let said = Excerpt::new(status.message().as_bytes());
    let failure = failed(name).note(format!("{}: {said}", status::name(status.code())));
    Err(match outrigger_host::PluginExited::behind(&status) {
        Some(exited) => session.epitaph(failure, exited),
        None => explained(failure),
    })
}

async fn ask(
    channel: &Channel,
    method: &prost_reflect::MethodDescriptor,
    mut request: Request<DynamicMessage>,
) -> Result<DynamicMessage, Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = PathAndQuery::from_str(&path)
        .map_err(|_| Status::internal("the method's name does not fit into a path"))?;
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    request.set_timeout(PATIENCE);
    let reply = grpc
        .unary(request, path, DynamicCodec::caller(method))
        .await?;
    Ok(reply.into_inner())
}

/// The only field that a broker id fits into.
fn only_number(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    let mut fields = message
        .fields()
        .filter(|field| field.kind() == Kind::Uint32 && !field.is_list());
    fields.next().filter(|_| fields.next().is_none())
}

/// What a plugin answered: an error, its id, or that it needs nothing.
fn introduced(
    serving: Serving,
    reply: &DynamicMessage,
    name: &MethodName,
) -> Result<Introduced, Failure> {
    let text = |field: &str| -> Option<String> {
        let value = reply.get_field_by_name(field)?;
        let text = value.as_str()?;
        (!text.is_empty()).then(|| Excerpt::new(text.as_bytes()).to_string())
    };
    if let Some(error) = text("error") {
        return Err(failed(name).note(format!("the plugin says {error}")));
    }
    let client_id = text("client_id").map(|id| id.trim_matches('"').to_owned());
    // A reply that has no field for the id says nothing by not filling it.
    let says_none = reply.get_field_by_name("client_id").is_some() && client_id.is_none();
    let note =
        "the plugin named no client id: it says that it needs no services of the host".to_owned();
    Ok(Introduced {
        _serving: serving,
        client_id,
        notes: says_none.then_some(note).into_iter().collect(),
    })
}

fn unneeded(serving: Serving, name: &MethodName) -> Introduced {
    let name = printable(&name.to_string());
    Introduced {
        _serving: serving,
        client_id: None,
        notes: vec![format!(
            "the plugin does not implement `{name}`: it needs no services of the host"
        )],
    }
}

/// Introduces the host over net/rpc: the argument is the broker id.
///
/// # Errors
/// `establish-failed`.
///
/// # Cancel safety
/// The services are taken back when the future is dropped.
pub(crate) async fn over_net_rpc(
    session: &StartedPlugin,
    object: &Client,
    granting: &Granting,
    name: &MethodName,
) -> Result<Introduced, Failure> {
    let serving = offer(session, granting).await?;
    let id = GobValue::Uint(serving.id().0.into());
    let method = name.dotted();
    let call = object.call_encoded(&method, &id);
    let Ok(answer) = tokio::time::timeout(PATIENCE, call).await else {
        return Err(late(name));
    };
    match answer {
        Ok(_) => Ok(Introduced {
            _serving: serving,
            client_id: None,
            notes: Vec::new(),
        }),
        Err(error) => match error.kind() {
            CallErrorKind::Failed(text) if text.starts_with("rpc: can't find ") => {
                Ok(unneeded(serving, name))
            }
            CallErrorKind::Failed(text) => {
                let said = Excerpt::new(text.as_bytes());
                Err(failed(name).note(format!("the plugin says {said}")))
            }
            kind => Err(failed(name)
                .note(printable(&kind.to_string()))
                .caused_by(kind)),
        },
    }
}

fn failed(name: &MethodName) -> Failure {
    let message = format!(
        "the plugin did not take the host's services (`--establish {}`)",
        printable(&name.to_string())
    );
    Failure::new(Exit::Failed, "establish-failed", message)
}

fn late(name: &MethodName) -> Failure {
    failed(name).note(format!("no answer within {} s", PATIENCE.as_secs()))
}

/// The field `host_service` of a call's own request, for a broker id.
pub(crate) fn field(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    let field = message.get_field_by_name("host_service")?;
    (field.kind() == Kind::Uint32 && !field.is_list()).then_some(field)
}
