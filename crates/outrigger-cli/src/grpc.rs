//! Calls on a plugin that speaks gRPC.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use http::uri::PathAndQuery;
use outrigger_host::{
    BrokerError, BrokerId, Channel, MAX_MESSAGE, PluginExited, ServiceSet, Serving, Transport,
};
use prost_reflect::{DynamicMessage, FieldDescriptor, MethodDescriptor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use crate::args::CallingArgs;
use crate::canned::Canned;
use crate::codec::{self, DynamicCodec};
use crate::descriptors::{self, Catalogue, MethodName};
use crate::establish::{self, Introduced};
use crate::failure::{Exit, Failure, printable};
use crate::fill::Fill;
use crate::granting::Granting;
use crate::input::Source;
use crate::launch::{self, StartedPlugin};
use crate::offer::Place;
use crate::printer::{Ending, Printer};
use crate::requests::{mistake, requests};
use crate::status::{self, StatusReport};
use crate::steps::Step;
use crate::texts;
use crate::witness::Witness;

/// How long a unary call may take unless told otherwise.
pub(crate) const UNARY_TIMEOUT: Duration = Duration::from_secs(60);

/// What may end a call that is tried before its plugin knows its host.
const BEFORE_INTRODUCTION: [Code; 4] = [
    Code::Unknown,
    Code::FailedPrecondition,
    Code::Internal,
    Code::Unavailable,
];

/// Makes calls on one plugin, one after the other.
pub(crate) struct Caller<'a> {
    session: &'a StartedPlugin,
    channel: Channel,
    options: &'a CallingArgs,
    granting: &'a Granting,
    metadata: MetadataMap,
    catalogue: Catalogue,
    introduced: Option<Introduced>,
    canned: Vec<Canned>,
    witness: Witness,
    /// What is served to the plugin goes on until the session ends: it may come
    /// back to a service that an earlier call told it of.
    servings: Vec<Serving>,
    /// The queues of calls that a mistake ended: while they exist, the plugin
    /// cannot take what it got for everything.
    given_up: Vec<mpsc::Sender<DynamicMessage>>,
}

impl<'a> Caller<'a> {
    /// Learns what there is to call, checks the calls that are known already,
    /// introduces the host and offers what is to be served.
    ///
    /// # Errors
    /// What is wrong with the plugin's description, the names of the methods, the
    /// introduction or the services.
    ///
    /// # Cancel safety
    /// What was offered is taken back when the future is dropped.
    pub(crate) async fn new(
        session: &'a StartedPlugin,
        channel: Channel,
        options: &'a CallingArgs,
        granting: &'a Granting,
        metadata: MetadataMap,
        known: &[Step],
        printer: &mut Printer,
    ) -> Result<Self, Failure> {
        let catalogue = described(&channel, options).await?;
        let canned: Vec<Canned> = options
            .serve
            .iter()
            .map(|offer| Canned::load(offer, &catalogue))
            .collect::<Result<_, _>>()?;
        let mut caller = Self {
            session,
            channel,
            options,
            granting,
            metadata,
            catalogue,
            introduced: None,
            canned,
            witness: Witness::new(options.plugin.json),
            servings: Vec::new(),
            given_up: Vec::new(),
        };
        caller.check(known)?;
        caller.serve_fixed().await?;
        if let Some(name) = &options.establish {
            let metadata = caller.metadata.clone();
            let (channel, catalogue) = (&caller.channel, &caller.catalogue);
            let introduced =
                establish::over_grpc(session, channel, granting, catalogue, name, metadata);
            caller.introduced = Some(printer.introduced(introduced.await?));
        }
        Ok(caller)
    }

    /// The calls that are known must have methods, and one of them room for what is served.
    fn check(&self, known: &[Step]) -> Result<(), Failure> {
        let mut inputs = Vec::new();
        for step in known {
            inputs.push(descriptors::method(&self.catalogue, &step.method)?.input());
        }
        let Some(last) = inputs.last() else {
            return Ok(());
        };
        for canned in &self.canned {
            let mut room = matches!(canned.place, Place::Id(_));
            for input in &inputs {
                room |= canned
                    .field(input, self.own_field(input).as_ref())?
                    .is_some();
            }
            if !room {
                return Err(canned.homeless(last));
            }
        }
        Ok(())
    }

    /// Serves what the plugin dials under an id that it knows.
    async fn serve_fixed(&mut self) -> Result<(), Failure> {
        let mut sets: BTreeMap<u32, ServiceSet> = BTreeMap::new();
        for canned in &self.canned {
            if let Place::Id(id) = canned.place {
                self.add(sets.entry(id).or_default(), canned);
            }
        }
        for (id, set) in sets {
            let serving = self.session.plugin.broker().serve(BrokerId(id), set).await;
            self.servings
                .push(serving.map_err(|error| unserved(&error))?);
        }
        Ok(())
    }

    fn add(&self, set: &mut ServiceSet, canned: &Canned) {
        set.add_named(canned.service, canned.answering(&self.witness));
    }

    /// The methods there are, as they are called.
    pub(crate) fn methods(&self) -> Vec<String> {
        let services = descriptors::list(&self.catalogue);
        let names = services.iter().flat_map(|service| {
            let methods = service.methods.iter();
            methods.map(move |method| format!("{}/{}", service.name, method.name))
        });
        names.collect()
    }

    /// Finds a method.
    ///
    /// # Errors
    /// As [`descriptors::method`].
    pub(crate) fn method(&self, name: &MethodName) -> Result<MethodDescriptor, Failure> {
        descriptors::method(&self.catalogue, name)
    }

    /// What the plugin called of the services that were offered to it.
    pub(crate) fn witness(&self) -> Option<&Witness> {
        (!self.canned.is_empty()).then_some(&self.witness)
    }

    /// Makes one call.
    ///
    /// # Errors
    /// What is wrong with the method or its data, or how the call failed.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub(crate) async fn call(
        &mut self,
        step: &Step,
        input: Source,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let method = self.method(&step.method)?;
        let (client, server) = (method.is_client_streaming(), method.is_server_streaming());
        let fills = self.fills(&method).await?;
        printer.begin(Transport::Grpc, descriptors::kind(client, server))?;
        let timeout = match self.options.timeout {
            Some(limit) => (!limit.is_zero()).then_some(limit),
            None => (!client && !server).then_some(UNARY_TIMEOUT),
        };
        let (requests, mistakes) = requests(input, &method, fills)?;
        let mut request = Request::new(ReceiverStream::new(requests));
        *request.metadata_mut() = self.metadata.clone();
        if let Some(limit) = timeout {
            request.set_timeout(limit);
        }
        let exchange = exchange(self.channel.clone(), request, &method, printer);
        let ended = tokio::select! {
            // A mistake in the input ends the call before its stream seems complete.
            biased;
            (failure, queue) = mistake(mistakes) => {
                self.given_up.push(queue);
                return Err(failure);
            }
            ended = within(timeout, exchange) => ended,
        };
        match ended {
            Ok(()) => Ok(()),
            Err(Ended::Output(failure)) => Err(failure),
            Err(Ended::Status(status)) => {
                let report = StatusReport::new(&status, method.parent_pool());
                let failure = report.failure(&step.method);
                printer.ending(Ending::Grpc(Some(report)));
                let failure = self.explained(&status, failure, &step.method, timeout);
                let offered = self.introduced.is_some() || !self.servings.is_empty();
                let unreachable = establish::unreachable(self.session).filter(|_| offered);
                Err(unreachable.into_iter().fold(failure, Failure::note))
            }
        }
    }

    /// The broker ids for the call's own requests, where those have fields for them.
    async fn fills(&mut self, method: &MethodDescriptor) -> Result<Vec<Fill>, Failure> {
        let mut fills = Vec::new();
        let own = self.own_field(&method.input());
        if let Some(field) = &own {
            // It is another id than that of the introduction: each can be dialled once.
            let serving = establish::offer(self.session, self.granting).await?;
            fills.push(Fill {
                path: vec![field.clone()],
                id: serving.id().0,
            });
            self.servings.push(serving);
        }
        // What goes into one field is served on one id.
        let mut sets: Vec<(Vec<FieldDescriptor>, ServiceSet)> = Vec::new();
        for canned in &self.canned {
            let Some(path) = canned.field(&method.input(), own.as_ref())? else {
                continue;
            };
            match sets.iter_mut().find(|(known, _)| *known == path) {
                Some((_, set)) => self.add(set, canned),
                None => {
                    let mut set = ServiceSet::new();
                    self.add(&mut set, canned);
                    sets.push((path, set));
                }
            }
        }
        for (path, set) in sets {
            let serving = self.serve(set).await?;
            let id = serving.id().0;
            fills.push(Fill { path, id });
            self.servings.push(serving);
        }
        Ok(fills)
    }

    /// Serves on an id that was not used before.
    async fn serve(&self, set: ServiceSet) -> Result<Serving, Failure> {
        let broker = self.session.plugin.broker();
        let fixed = |id: &BrokerId| self.canned.iter().any(|c| c.place == Place::Id(id.0));
        let mut id = broker.next_id();
        while fixed(&id) {
            id = broker.next_id();
        }
        broker
            .serve(id, set)
            .await
            .map_err(|error| unserved(&error))
    }

    /// The field `host_service`, where the host's services are to be served.
    fn own_field(&self, message: &prost_reflect::MessageDescriptor) -> Option<FieldDescriptor> {
        let wanted = self.granting.plugin.is_some() || self.options.establish.is_some();
        establish::field(message).filter(|_| wanted)
    }

    /// Adds what is known beyond the status.
    fn explained(
        &self,
        status: &Status,
        failure: Failure,
        method: &MethodName,
        timeout: Option<Duration>,
    ) -> Failure {
        if let Some(exited) = PluginExited::behind(status) {
            // Its last words follow; the status has only the last line of them.
            let name = status::name(status.code());
            let (code, end) = (status.code() as i32, &exited.report.status);
            let message =
                format!("`{method}` failed with {name} ({code}): the plugin {end}").into();
            let failure = self.session.last_words(Failure { message, ..failure });
            return self.unintroduced(failure, method, true);
        }
        let failure = match (status.code(), timeout) {
            (Code::DeadlineExceeded, Some(limit)) => failure.note(format!(
                "the call had {} s (`--timeout`)",
                limit.as_secs_f64()
            )),
            (Code::ResourceExhausted, _) => failure.note(
                "a plugin on go-plugin takes requests of up to 4 MiB unless its author raised that",
            ),
            _ => failure,
        };
        match BEFORE_INTRODUCTION.contains(&status.code()) {
            true => self.unintroduced(failure, method, false),
            false => failure,
        }
    }

    /// Says that a plugin may want to know its host first, where its service says so.
    fn unintroduced(&self, failure: Failure, method: &MethodName, died: bool) -> Failure {
        let introduction = descriptors::introduction(&self.catalogue, &method.service);
        let Some(own) = introduction.filter(|own| own != method) else {
            return failure;
        };
        if self.options.establish.is_some() {
            return failure;
        }
        let own = printable(&own.to_string());
        let what = match died {
            true => "a plugin that is called before its host was introduced may end like this",
            false => "a plugin that is called before its host was introduced may answer like this",
        };
        failure.help(format!(
            "its service has `{own}`, which was not called: {what}; try `--establish {own}`"
        ))
    }
}

fn unserved(error: &BrokerError) -> Failure {
    let message = "the service of `--serve` could not be offered to the plugin";
    Failure::new(Exit::Failed, error.code(), message)
        .note(printable(&error.to_string()))
        .caused_by(error)
}

/// What there is to call: from a file, from reflection, or known without either.
async fn described(channel: &Channel, options: &CallingArgs) -> Result<Catalogue, Failure> {
    let patience = options.timeout.filter(|limit| !limit.is_zero());
    let patience = patience.unwrap_or(UNARY_TIMEOUT);
    let served: Vec<String> = options.serve.iter().map(|o| o.service.clone()).collect();
    let description = async {
        match &options.descriptors {
            Some(path) => descriptors::from_file(path),
            None => launch::describe_or_standard(channel, &served).await,
        }
    };
    tokio::time::timeout(patience, description)
        .await
        .unwrap_or_else(|_| {
            let seconds = patience.as_secs_f64();
            let message =
                format!("the plugin did not describe itself within {seconds} s (`--timeout`)");
            Err(Failure::new(Exit::Failed, "reflection-timeout", message))
        })
}

/// Why a call ended early.
enum Ended {
    Status(Box<Status>),
    Output(Failure),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

async fn exchange(
    channel: Channel,
    request: Request<ReceiverStream<DynamicMessage>>,
    method: &MethodDescriptor,
    printer: &mut Printer,
) -> Result<(), Ended> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = PathAndQuery::from_str(&path)
        .map_err(|_| Status::internal("the method's name does not fit into a path"))?;
    let mut grpc = Grpc::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    grpc.ready().await?;
    let codec = DynamicCodec::caller(method);
    let mut replies = grpc.streaming(request, path, codec).await?.into_inner();
    let mut count = 0_u64;
    while let Some(reply) = replies.message().await? {
        count += 1;
        printer
            .reply(&codec::text(&reply), &texts::of_message(&reply))
            .map_err(Ended::Output)?;
    }
    match (
        count,
        descriptors::kind(method.is_client_streaming(), method.is_server_streaming()),
    ) {
        (0, "unary") => {
            return Err(Status::internal("the plugin ended the call without a reply").into());
        }
        // Published plugins do this; what they were sent has arrived.
        (0, "client-stream") => {
            printer.note("the plugin ended the call without a reply".to_owned());
        }
        _ => {}
    }
    printer.ending(Ending::Grpc(Some(StatusReport::ok())));
    Ok(())
}

async fn within(
    limit: Option<Duration>,
    exchange: impl Future<Output = Result<(), Ended>>,
) -> Result<(), Ended> {
    let Some(limit) = limit else {
        return exchange.await;
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(ended) => ended,
        Err(_) => {
            let text = format!(
                "not finished within {} s (`--timeout`)",
                limit.as_secs_f64()
            );
            Err(Status::deadline_exceeded(text).into())
        }
    }
}
