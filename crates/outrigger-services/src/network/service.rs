//! `outrigger.host.v1.Network` for one plugin's connection.

use std::sync::Arc;
use std::time::Instant as Clock;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use outrigger_manifest::{HostService, Protocol};
use outrigger_transport::OwnedTask;
use outrigger_wire::proto::host::*;
use tonic::{Request, Response, Status, Streaming};

use super::account::Account;
use super::deadline::{Activity, Watch};
use super::egress::{Allowance, Destination, Dialled, Egress, Lookups};
use super::hello::HelloGuard;
use super::http::{Prepared, Reply, ReplyBody};
use super::listen::{self, Arrival, Arrivals, Waiting};
use super::pump::{Part, Pump, Received, Sent};
use super::udp::{self, Opened, Reach};
use super::{failure, rules};
use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::leases::Slot;
use crate::operation::{Described, Operation, described};
use crate::proto::host::network_server::Network;
use crate::rate::Sampler;
use crate::running::{Caller, Running};
use crate::session::Session;
use crate::streaming::{self, Replies};

described! {
    operation("resolve"), ResolveRequest { host, port }
    operation("http"), HttpRequest { method, url as url }
    operation("listen"), ListenRequest { port, address }
    operation("reject"), RejectRequest { connection }
}

/// [`HttpRequest`], answered as a stream.
const HTTP_STREAM: Operation = operation("http_stream");
/// A connection that arrives at a port.
const INCOMING: Operation = operation("incoming").on_lease();

const fn operation(name: &'static str) -> Operation {
    Operation::new(HostService::Network, name)
}

pub(crate) const OPERATIONS: &[Operation] = &[
    ResolveRequest::OPERATION,
    ConnectRequest::OPERATION,
    HttpRequest::OPERATION,
    HTTP_STREAM,
    ListenRequest::OPERATION,
    INCOMING,
    AcceptRequest::OPERATION,
    RejectRequest::OPERATION,
    OpenUdpRequest::OPERATION,
];

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

/// Connections turned away at one port that leave a record each, per second;
/// the next record counts the others: whoever knocks must not be able to fill the
/// audit log.
const TURNED_AWAY_RECORDS: u64 = 10;
/// Room for what surrounds a reply's body in a message, and each of its fields,
/// in bytes.
const AROUND_BODY: usize = 1024;
const AROUND_FIELD: usize = 16;

/// The network of one plugin's connection.
#[derive(Clone)]
pub(crate) struct NetworkService {
    session: Arc<Session>,
    egress: Arc<Egress>,
    lookups: Lookups,
}

impl NetworkService {
    pub(crate) fn new(session: Arc<Session>, egress: Arc<Egress>) -> Self {
        let lookups = Lookups::new(&egress.limits);
        Self::sharing(session, egress, lookups)
    }

    /// One that shares its lookups with another of the same plugin.
    pub(crate) fn sharing(session: Arc<Session>, egress: Arc<Egress>, lookups: Lookups) -> Self {
        Self {
            session,
            egress,
            lookups,
        }
    }

    pub(crate) fn egress(&self) -> &Arc<Egress> {
        &self.egress
    }

    /// The name lookups that all services of the connection share.
    pub(crate) fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    /// A connection to `host` at `port`, judged and noted in the record of
    /// `running`. `timeout_ms` is the plugin's wish, 0 for none.
    pub(crate) async fn dial(
        &self,
        running: &Running,
        host: &str,
        port: u32,
        timeout_ms: u64,
    ) -> Result<Dialled, Fault> {
        let limit = self.egress.limits.connect_timeout;
        let allowed = Allowance::new(timeout_ms, limit, "connect_timeout", limit);
        let grants = self.session.grants();
        let (lookups, progress) = (&self.lookups, running.progress());
        let dialled = self
            .egress
            .connect(grants, lookups, host, port, allowed, progress);
        dialled.await
    }

    /// The socket for datagrams that the first message of a call asks for, judged
    /// and noted in the record of `running`.
    pub(crate) async fn open(
        &self,
        running: &Running,
        wanted: &OpenUdpRequest,
    ) -> Result<Opened, Fault> {
        let (lookups, progress) = (&self.lookups, running.progress());
        match &wanted.part {
            Some(open_udp_request::Part::Connect(target)) => {
                let limit = self.egress.limits.connect_timeout;
                let allowed = Allowance::new(target.timeout_ms, limit, "connect_timeout", limit);
                let (grants, host) = (self.session.grants(), &target.host);
                let connected =
                    self.egress
                        .connect_udp(grants, lookups, host, target.port, allowed, progress);
                let (socket, remote) = connected.await?;
                Opened::to(socket, remote).map_err(|error| failure::io(&error))
            }
            Some(open_udp_request::Part::Bind(bind)) => {
                let reach = Reach {
                    egress: self.egress.clone(),
                    session: self.session.clone(),
                    lookups: lookups.clone(),
                };
                Opened::at(reach, &bind.address, bind.port, progress).await
            }
            _ => Err(Fault::abuse(
                "the first message names neither a target nor a port",
            )),
        }
    }

    /// Begins an operation whose requests come one after another: its record shows
    /// the first one.
    async fn begin_stream<Q: Described>(
        &self,
        request: Request<Streaming<Q>>,
    ) -> Result<(Running, Q, Streaming<Q>), Status> {
        let (caller, mut messages) = Caller::of(request);
        let mut running = self.session.begin_call(Q::OPERATION, &caller, |_| {})?;
        match streaming::first(&self.session, &mut messages).await {
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
            rules::egress(self.session.grants(), protocol, &host, port)
        };
        match (granted(Protocol::Tcp), granted(Protocol::Udp)) {
            (Err(_), Ok(_)) => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }

    /// Sends a request, and as many further ones as its redirects ask for and
    /// the plugin wants followed; each has a record of its own, and the last
    /// one is still open.
    async fn request(
        &self,
        operation: Operation,
        request: Request<HttpRequest>,
    ) -> Result<Answer, Status> {
        let (caller, request) = Caller::of(request);
        let show = |shown: &mut Arguments| request.show(shown);
        let mut running = self.session.begin_call(operation, &caller, show)?;
        let limits = &self.egress.limits;
        let usual = self.session.limits().call_timeout;
        let (asked, most) = (request.timeout_ms, limits.total_timeout);
        let allowed = Allowance::new(asked, usual, "call_timeout", most);
        let mut redirects = request.follow_redirects;
        let checked = if redirects > limits.redirects {
            let most = limits.redirects;
            Err(Fault::abuse(format!(
                "at most {most} redirects can be followed"
            )))
        } else {
            Prepared::new(request, limits)
        };
        let started = checked.and_then(|prepared| Ok((prepared, self.session.slot()?)));
        let (mut prepared, mut slot) = match started {
            Ok(started) => started,
            Err(fault) => return Err(running.fail(&fault)),
        };
        loop {
            let sent = prepared.body_len() as u64;
            self.session.pace(sent).await;
            let grants = self.session.grants();
            let sending = prepared.send(&self.egress, grants, &self.lookups, allowed, &running);
            let next = match sending.await {
                Err(fault) => Err(fault),
                Ok(reply) if redirects == 0 => Ok((reply, None)),
                Ok(reply) => prepared.redirected(&reply).map(|next| (reply, next)),
            };
            match next {
                Err(fault) => return Err(running.fail(&fault)),
                Ok((reply, None)) => {
                    let url = prepared.url.to_string();
                    return Ok(Answer {
                        running,
                        slot,
                        reply,
                        url,
                        allowed,
                    });
                }
                Ok((reply, Some(next))) => {
                    drop(reply);
                    drop(slot);
                    running.end(None);
                    redirects -= 1;
                    prepared = next;
                    running = self.session.begin_call(operation, &caller, |shown| {
                        shown
                            .text("method", prepared.method.as_str())
                            .url("url", &prepared.url.to_string())
                            .flag("redirect", true);
                    })?;
                    slot = match self.session.slot() {
                        Ok(slot) => slot,
                        Err(fault) => return Err(running.fail(&fault)),
                    };
                }
            }
        }
    }

    /// The record of a connection that arrived at a port, and of as many `more`
    /// that were turned away without one.
    fn record_arrival(&self, port: u16, arrival: &Arrival, more: u64) -> Result<(), Status> {
        let (remote, why, rule) = match arrival {
            Arrival::Named { remote, rule, .. } => (remote, None, Some(rule)),
            Arrival::TurnedAway { remote, why } => (remote, Some(why), None),
            Arrival::Expired { remote } => (remote, None, None),
        };
        let caller = Caller::default();
        let running = self.session.begin_call(INCOMING, &caller, |shown| {
            shown.number("port", port).shown("from", remote);
            shown.number("more", more);
        })?;
        match (why, rule) {
            (Some(why), _) => running.end(Some(why)),
            (None, Some(rule)) => {
                running.allowed_by(rule);
                running.end(None);
            }
            (None, None) => {
                let text = "the plugin did not take it in time (`unclaimed_timeout`)";
                let fault = Fault::failed_as("unclaimed", tonic::Code::DeadlineExceeded, text);
                running.end(Some(&fault));
            }
        }
        Ok(())
    }
}

/// A reply whose body is still to come.
struct Answer {
    running: Running,
    slot: Slot,
    reply: Reply,
    url: String,
    allowed: Allowance,
}

impl Answer {
    fn head(&mut self) -> HttpResponse {
        HttpResponse {
            status: u32::from(self.reply.status.as_u16()),
            headers: std::mem::take(&mut self.reply.headers),
            body: Bytes::new(),
            url: self.url.clone(),
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
            let limit = self.egress.limits.resolve_timeout;
            let allowed = Allowance::new(0, limit, "resolve_timeout", limit);
            let (grants, lookups) = (self.session.grants(), &self.lookups);
            let (host, port, progress) = (&request.host, request.port, running.progress());
            let wanted = Destination {
                protocol: self.protocol(host, port),
                host,
                port,
            };
            let judged = self
                .egress
                .judge(grants, lookups, wanted, allowed, progress);
            let judged = judged.await?;
            let texts = judged
                .addresses
                .iter()
                .map(|address| address.ip().to_string());
            Ok(ResolveResponse {
                addresses: texts.collect(),
            })
        };
        self.session.call(request, work).await
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
            let slot = self.session.slot()?;
            let (host, port) = (&target.host, target.port);
            let dialled = self.dial(&running, host, port, target.timeout_ms).await?;
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
        let pump = Pump::new(
            dialled.stream,
            messages,
            guard,
            account,
            &self.egress.limits,
        );
        let first = futures_util::stream::iter([Ok(connected)]);
        Ok(Response::new(Box::pin(first.chain(replies(pump)))))
    }

    async fn http(&self, request: Request<HttpRequest>) -> Result<Response<HttpResponse>, Status> {
        let mut answer = self.request(HttpRequest::OPERATION, request).await?;
        let head = answer.head();
        let fields = head.headers.iter();
        let around: usize = fields
            .map(|field| field.name.len() + field.value.len() + AROUND_FIELD)
            .sum();
        let room = self.session.limits().message;
        let room = room.saturating_sub(AROUND_BODY + around + head.url.len());
        let body = answer.allowed.within(answer.reply.body.whole(room)).await;
        let body = match body {
            Ok(body) => body,
            Err(fault) => return Err(answer.running.fail(&fault)),
        };
        self.session.pace(body.len() as u64).await;
        answer.running.read(body.len() as u64);
        let response = HttpResponse { body, ..head };
        answer.running.finish(Ok(response)).map(Response::new)
    }

    type HttpStreamStream = Replies<HttpStreamResponse>;

    async fn http_stream(
        &self,
        request: Request<HttpRequest>,
    ) -> Result<Response<Self::HttpStreamStream>, Status> {
        let mut answer = self.request(HTTP_STREAM, request).await?;
        let head = HttpStreamResponse {
            part: Some(http_stream_response::Part::Head(answer.head())),
        };
        let limits = &self.egress.limits;
        let account = Arc::new(Account::new(answer.running, answer.slot));
        let (activity, cut) = (Arc::new(Activity::new(limits)), answer.reply.body.cut());
        let body = StreamedBody {
            watch: Watch::new(activity.clone(), account.clone(), move || cut.abort()),
            body: answer.reply.body,
            rest: Bytes::new(),
            activity,
            account,
            chunk: limits.chunk.max(1),
        };
        let first = futures_util::stream::iter([Ok(head)]);
        let parts = futures_util::stream::unfold(Some(body), async |body| {
            let mut body = body?;
            let next = body.next().await;
            if let Some(late) = body.watch.told() {
                return Some((Err(late), None));
            }
            match next {
                Ok(Some(data)) => {
                    let part = Some(http_stream_response::Part::Data(data));
                    Some((Ok(HttpStreamResponse { part }), Some(body)))
                }
                Ok(None) => {
                    body.account.end();
                    None
                }
                Err(fault) => Some((Err(body.account.fail(fault)), None)),
            }
        });
        Ok(Response::new(Box::pin(first.chain(parts))))
    }

    type ListenStream = Replies<ListenResponse>;

    async fn listen(
        &self,
        request: Request<ListenRequest>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        let (caller, request) = Caller::of(request);
        let operation = ListenRequest::OPERATION;
        let show = |shown: &mut Arguments| request.show(shown);
        let running = self.session.begin_call(operation, &caller, show)?;
        let open = async {
            let slot = self.session.slot()?;
            let (grants, lookups) = (self.session.grants(), &self.lookups);
            let (address, port) = (&request.address, request.port);
            let progress = running.progress();
            let bound =
                listen::bind(&self.egress, grants, lookups, address, port, progress).await?;
            Ok((slot, bound))
        };
        let (slot, bound) = match open.await {
            Ok(open) => open,
            Err(fault) => return Err(running.fail(&fault)),
        };
        let listening = ListenResponse {
            part: Some(listen_response::Part::Listening(bound.address.to_string())),
        };
        let listening_until_dropped = Listening {
            service: self.clone(),
            port: bound.address.port(),
            arrivals: Arrivals::new(bound),
            account: Account::new(running, slot),
            turned_away: Sampler::new(TURNED_AWAY_RECORDS, Clock::now()),
        };
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
            let waiting = self.session.give_back::<Waiting>(&name)?;
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
        let pump = Pump::new(stream, messages, guard, account, &self.egress.limits);
        Ok(Response::new(Box::pin(replies(pump))))
    }

    async fn reject(
        &self,
        request: Request<RejectRequest>,
    ) -> Result<Response<RejectResponse>, Status> {
        let work = async |running: &Running, request: RejectRequest| {
            let waiting = self.session.give_back::<Waiting>(&request.connection)?;
            running.allowed_by(&waiting.rule);
            Ok(RejectResponse {})
        };
        self.session.call(request, work).await
    }

    type OpenUdpStream = Replies<OpenUdpResponse>;

    async fn open_udp(
        &self,
        request: Request<Streaming<OpenUdpRequest>>,
    ) -> Result<Response<Self::OpenUdpStream>, Status> {
        let (running, wanted, messages) = self.begin_stream(request).await?;
        let open = async {
            let slot = self.session.slot()?;
            Ok((slot, self.open(&running, &wanted).await?))
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
        let replies = udp::replies(opened, messages, account, &self.egress.limits);
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

/// A reply's body on its way to a plugin.
struct StreamedBody {
    body: ReplyBody,
    /// Of a part that is larger than a message should be.
    rest: Bytes,
    activity: Arc<Activity>,
    watch: Watch,
    account: Arc<Account>,
    chunk: usize,
}

impl StreamedBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        if self.rest.is_empty() {
            // Ends, too, when the watch closes the connection.
            match self.body.next().await? {
                Some(part) => self.rest = part,
                None => return Ok(None),
            }
        }
        let size = self.rest.len().min(self.chunk);
        let data = self.rest.split_to(size);
        self.activity.note();
        self.account.received(data.len()).await;
        self.activity.note();
        Ok(Some(data))
    }
}

/// A port that a plugin listens on: closed when this is dropped.
struct Listening {
    service: NetworkService,
    port: u16,
    arrivals: Arrivals,
    /// Ends, as cancelled, with the call: that is how listening ends.
    account: Account,
    turned_away: Sampler,
}

impl Listening {
    /// The next connection that the plugin may take.
    async fn next(&mut self) -> Incoming {
        let service = &self.service;
        loop {
            let (grants, session) = (service.session.grants(), &service.session);
            let next = self
                .arrivals
                .next(&service.egress, grants, &service.lookups, session);
            let arrival = next.await;
            let more = match arrival {
                Arrival::TurnedAway { .. } => self.turned_away.sample(Clock::now()),
                Arrival::Named { .. } | Arrival::Expired { .. } => Some(0),
            };
            let Some(more) = more else {
                tracing::debug!(port = self.port, ?arrival, "a connection is turned away");
                continue;
            };
            let recorded = service.record_arrival(self.port, &arrival, more);
            let Arrival::Named { lease, remote, .. } = arrival else {
                continue;
            };
            if recorded.is_err() {
                // Too many operations per second: nobody may come in unrecorded.
                drop(session.give_back::<Waiting>(&lease));
                continue;
            }
            self.expire(lease.clone());
            return Incoming {
                connection: lease,
                remote_address: remote.to_string(),
            };
        }
    }
}

impl Listening {
    /// Sees to it that a connection does not wait for ever, also while the plugin
    /// takes no names.
    fn expire(&mut self, lease: String) {
        let (service, port, named) = (self.service.clone(), self.port, lease.clone());
        let expiry = OwnedTask::spawn(async move {
            let (egress, session) = (&service.egress, &service.session);
            if let Some(remote) = listen::unclaimed(egress, session, &named).await {
                let _ = service.record_arrival(port, &Arrival::Expired { remote }, 0);
            }
        });
        self.arrivals.wait(lease, expiry);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let session = &self.service.session;
        let more = self.turned_away.rest() + self.arrivals.close(session);
        session.recorder().left_out(INCOMING, more, |shown| {
            shown.number("port", self.port);
        });
        // The plugin ends listening by giving the call up: nothing went wrong.
        self.account.end();
    }
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
