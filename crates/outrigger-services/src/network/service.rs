//! `outrigger.host.v1.Network` for one plugin's connection.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use outrigger_manifest::{HostService, Protocol};
use outrigger_wire::proto::host::*;
use tonic::{Request, Response, Status, Streaming};

use super::account::Account;
use super::egress::{Allowance, Destination, Egress};
use super::hello::HelloGuard;
use super::http_calls;
use super::listen::{self, Waiting};
use super::listening::{INCOMING, Listening};
use super::pump::{Part, Pump, Received, Sent};
use super::rules;
use super::udp::{self, Opened};
use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::operation::{Described, Operation, described};
use crate::proto::host::network_server::Network;
use crate::running::{Caller, Running};
use crate::session::Session;
use crate::streaming::{self, Replies};

described! {
    /// What the service can be asked for.
    pub(crate) const OPERATIONS and [
        ConnectRequest::OPERATION,
        HTTP_STREAM,
        INCOMING,
        AcceptRequest::OPERATION,
        OpenUdpRequest::OPERATION,
    ];
    operation("resolve"), ResolveRequest { host, port }
    operation("http"), HttpRequest { method, url as url }
    operation("listen"), ListenRequest { port, address }
    operation("reject"), RejectRequest { connection }
}

/// [`HttpRequest`], answered as a stream.
const HTTP_STREAM: Operation = operation("http_stream");
const fn operation(name: &'static str) -> Operation {
    Operation::new(HostService::Network, name)
}

impl Described for ConnectRequest {
    const OPERATION: Operation = operation("connect");

    fn show(&self, shown: &mut Arguments) {
        if let Some(connect_request::Part::Target(target)) = &self.part {
            shown.text("host", &target.host).number("port", target.port);
        }
    }
}

impl Described for AcceptRequest {
    const OPERATION: Operation = operation("accept");

    fn show(&self, shown: &mut Arguments) {
        if let Some(accept_request::Part::Connection(name)) = &self.part {
            shown.id("connection", name);
        }
    }
}

/// The network of one plugin's connection.
pub(crate) struct NetworkService(Egress);

impl NetworkService {
    pub(crate) fn new(egress: Egress) -> Self {
        Self(egress)
    }

    fn session(&self) -> &Arc<Session> {
        self.0.session()
    }

    /// Begins an operation whose requests come one after another: its record shows
    /// the first one.
    async fn begin_stream<Q: Described>(
        &self,
        request: Request<Streaming<Q>>,
    ) -> Result<(Running, Q, Streaming<Q>), Status> {
        let (caller, mut messages) = Caller::of(request);
        let mut running = self.session().begin_call(Q::OPERATION, &caller, |_| {})?;
        match streaming::first(self.session(), &mut messages).await {
            Ok(first) => {
                running.show(|shown| first.show(shown));
                Ok((running, first, messages))
            }
            Err(fault) => Err(running.fail(&fault)),
        }
    }

    /// What is granted of a place that may be meant for TCP or for UDP.
    fn protocol(&self, host: &str, port: u32) -> Protocol {
        let granted = |protocol| {
            let (host, port) = (rules::host(host)?, rules::port(port)?);
            rules::egress(self.0.grants(), protocol, &host, port)
        };
        match (granted(Protocol::Tcp), granted(Protocol::Udp)) {
            (Err(_), Ok(_)) => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }
}

#[tonic::async_trait]
impl Network for NetworkService {
    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let work = async |running: &Running, request: ResolveRequest| {
            let limit = self.0.limits().resolve_timeout;
            let allowed = Allowance::new(0, limit, "resolve_timeout", limit);
            let (host, port, progress) = (&request.host, request.port, running.progress());
            let wanted = Destination {
                protocol: self.protocol(host, port),
                host,
                port,
            };
            let judged = self.0.judge(wanted, allowed, progress).await?;
            let texts = judged
                .addresses
                .iter()
                .map(|address| address.ip().to_string());
            Ok(ResolveResponse {
                addresses: texts.collect(),
            })
        };
        self.session().call(request, work).await
    }

    type ConnectStream = Replies<ConnectResponse>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (running, first, messages) = self.begin_stream(request).await?;
        let target = match first.part {
            Some(connect_request::Part::Target(target)) => target,
            _ => return Err(running.fail(&Fault::abuse("the first message names no target"))),
        };
        let open = async {
            let slot = self.session().slot()?;
            let (host, port) = (&target.host, target.port);
            let dialled = self.0.dial(&running, host, port, target.timeout_ms).await?;
            Ok((slot, dialled))
        };
        let (slot, dialled) = match open.await {
            Ok(open) => open,
            Err(fault) => return Err(running.fail(&fault)),
        };
        let connected = Connected {
            remote_address: dialled.remote.to_string(),
            local_address: dialled.local.to_string(),
        };
        let connected = ConnectResponse {
            part: Some(connect_response::Part::Connected(connected)),
        };
        let guard = HelloGuard::new(match &dialled.host {
            outrigger_manifest::Host::Name(name) => Some(name.as_str()),
            outrigger_manifest::Host::Address(_) => None,
        });
        let account = Arc::new(Account::new(running, slot));
        let pump = Pump::new(dialled.stream, messages, guard, account, self.0.limits());
        let first = futures_util::stream::iter([Ok(connected)]);
        Ok(Response::new(Box::pin(first.chain(replies(pump)))))
    }

    async fn http(&self, request: Request<HttpRequest>) -> Result<Response<HttpResponse>, Status> {
        let operation = HttpRequest::OPERATION;
        let reply = http_calls::whole(&self.0, operation, request).await;
        reply.map(Response::new)
    }

    type HttpStreamStream = Replies<HttpStreamResponse>;

    async fn http_stream(
        &self,
        request: Request<HttpRequest>,
    ) -> Result<Response<Self::HttpStreamStream>, Status> {
        let replies = http_calls::streamed(&self.0, HTTP_STREAM, request).await;
        replies.map(Response::new)
    }

    type ListenStream = Replies<ListenResponse>;

    async fn listen(
        &self,
        request: Request<ListenRequest>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        let (caller, request) = Caller::of(request);
        let operation = ListenRequest::OPERATION;
        let show = |shown: &mut Arguments| request.show(shown);
        let running = self.session().begin_call(operation, &caller, show)?;
        let open = async {
            let slot = self.session().slot()?;
            let (address, port) = (&request.address, request.port);
            let bound = listen::bind(&self.0, address, port, running.progress()).await?;
            Ok((slot, bound))
        };
        let (slot, bound) = match open.await {
            Ok(open) => open,
            Err(fault) => return Err(running.fail(&fault)),
        };
        let listening = ListenResponse {
            part: Some(listen_response::Part::Listening(bound.address.to_string())),
        };
        let account = Account::new(running, slot);
        let listening_until_dropped = Listening::new(self.0.clone(), bound, account);
        let first = futures_util::stream::iter([Ok(listening)]);
        let named = futures_util::stream::unfold(listening_until_dropped, async |mut listening| {
            let incoming = listening.next().await;
            let part = Some(listen_response::Part::Incoming(incoming));
            Some((Ok(ListenResponse { part }), listening))
        });
        Ok(Response::new(Box::pin(first.chain(named))))
    }

    type AcceptStream = Replies<AcceptResponse>;

    async fn accept(
        &self,
        request: Request<Streaming<AcceptRequest>>,
    ) -> Result<Response<Self::AcceptStream>, Status> {
        let (running, first, messages) = self.begin_stream(request).await?;
        let name = match first.part {
            Some(accept_request::Part::Connection(name)) => name,
            _ => return Err(running.fail(&Fault::abuse("the first message names no connection"))),
        };
        let take = || {
            let waiting = self.session().give_back::<Waiting>(&name)?;
            let stream = waiting.take()?;
            Ok((waiting, stream))
        };
        let (waiting, stream) = match take() {
            Ok(taken) => taken,
            Err(fault) => return Err(running.fail(&fault)),
        };
        running.allowed_by(&waiting.rule);
        running.allowed_by(&format!("from {}", waiting.remote));
        let account = Arc::new(Account::new(running, waiting));
        let guard = HelloGuard::new(None);
        let pump = Pump::new(stream, messages, guard, account, self.0.limits());
        Ok(Response::new(Box::pin(replies(pump))))
    }

    async fn reject(
        &self,
        request: Request<RejectRequest>,
    ) -> Result<Response<RejectResponse>, Status> {
        let work = async |running: &Running, request: RejectRequest| {
            let waiting = self.session().give_back::<Waiting>(&request.connection)?;
            running.allowed_by(&waiting.rule);
            Ok(RejectResponse {})
        };
        self.session().call(request, work).await
    }

    type OpenUdpStream = Replies<OpenUdpResponse>;

    async fn open_udp(
        &self,
        request: Request<Streaming<OpenUdpRequest>>,
    ) -> Result<Response<Self::OpenUdpStream>, Status> {
        let (running, wanted, messages) = self.begin_stream(request).await?;
        let open = async {
            let slot = self.session().slot()?;
            Ok((slot, Opened::open(&self.0, &running, &wanted).await?))
        };
        let (slot, opened) = match open.await {
            Ok(open) => open,
            Err(fault) => return Err(running.fail(&fault)),
        };
        let first = OpenUdpResponse {
            part: Some(open_udp_response::Part::Opened(opened.connected.clone())),
            dropped: 0,
        };
        let account = Account::new(running, slot);
        let replies = udp::replies(opened, messages, account, self.0.limits());
        let first = futures_util::stream::iter([Ok(first)]);
        Ok(Response::new(Box::pin(first.chain(replies))))
    }
}

/// The messages of an open connection; dropping them closes it.
fn replies<Q: Sent, R: Received>(pump: Pump<Q, R>) -> impl Stream<Item = Result<R, Status>> + Send {
    futures_util::stream::unfold(pump, async |mut pump| {
        let reply = pump.next().await?;
        Some((reply, pump))
    })
}

impl Sent for ConnectRequest {
    fn part(self) -> Part {
        match self.part {
            Some(connect_request::Part::Data(data)) => Part::Data(data),
            Some(connect_request::Part::Finish(true)) => Part::Finish,
            Some(connect_request::Part::Finish(false)) | None => Part::Data(Bytes::new()),
            Some(connect_request::Part::Target(_)) => Part::Misplaced,
        }
    }
}

impl Received for ConnectResponse {
    fn data(data: Bytes) -> Self {
        let part = Some(connect_response::Part::Data(data));
        Self { part }
    }

    fn finish() -> Self {
        let part = Some(connect_response::Part::Finish(true));
        Self { part }
    }
}

impl Sent for AcceptRequest {
    fn part(self) -> Part {
        match self.part {
            Some(accept_request::Part::Data(data)) => Part::Data(data),
            Some(accept_request::Part::Finish(true)) => Part::Finish,
            Some(accept_request::Part::Finish(false)) | None => Part::Data(Bytes::new()),
            Some(accept_request::Part::Connection(_)) => Part::Misplaced,
        }
    }
}

impl Received for AcceptResponse {
    fn data(data: Bytes) -> Self {
        let part = Some(accept_response::Part::Data(data));
        Self { part }
    }

    fn finish() -> Self {
        let part = Some(accept_response::Part::Finish(true));
        Self { part }
    }
}
