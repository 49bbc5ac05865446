//! UDP on a plugin's behalf: a socket that leads to one granted place, or a port
//! that granted origins may send to. The socket itself stays with the host, which
//! judges each datagram, counts it, and never waits for the plugin.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use outrigger_manifest::{HostService, Protocol};
use outrigger_transport::OwnedTask;
use outrigger_wire::proto::host::open_udp_request::Part as Asked;
use outrigger_wire::proto::host::open_udp_response::Part;
use outrigger_wire::proto::host::{Connected, Datagram, OpenUdpRequest, OpenUdpResponse};
use rustix::io::Errno;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::account::Account;
use super::datagrams::Datagrams;
use super::deadline::{Activity, Watch};
use super::dial;
use super::egress::{Egress, Lookups};
use super::failure;
use super::listen;
use super::origins::Origins;
use super::settings::NetworkLimits;
use crate::arguments::Arguments;
use crate::fault::{self, Fault};
use crate::operation::{Described, Operation};
use crate::progress::Progress;
use crate::session::Session;

/// The full name of the operation, for what the plugin is told.
pub(crate) const OPERATION: &str = "network.open_udp";
/// The most contents of one datagram, in bytes: what IPv4 carries.
pub(crate) const LONGEST: usize = 65_507;
/// Room for every datagram that there can be, in bytes.
const ROOM: usize = 64 << 10;
/// What the headers of a datagram count for, in bytes, where bytes are paced: an
/// empty one is not free.
const HEADERS: usize = 28;
/// How long receiving pauses after what was no answer of the network.
const BREATH: Duration = Duration::from_millis(100);

/// A socket that was granted and opened.
pub(crate) struct Opened {
    pub(crate) connected: Connected,
    socket: UdpSocket,
    side: Side,
}

/// Whose datagrams come in.
enum Side {
    /// Those of one peer, to which all others go.
    Peer {
        /// The address that was judged.
        judged: SocketAddr,
        /// Where the dialer led the socket: the same, unless it is a special one.
        led_to: SocketAddr,
    },
    Port(Box<Port>),
}

/// A port, and who may send to it.
struct Port {
    origins: Origins,
    /// What can only be let in by names that are being looked up, within the bytes
    /// that may wait for the plugin.
    asking: VecDeque<(Bytes, SocketAddr)>,
    reach: Reach,
}

/// What it takes to judge those who send to a port.
pub(crate) struct Reach {
    pub(crate) egress: Arc<Egress>,
    pub(crate) session: Arc<Session>,
    pub(crate) lookups: Lookups,
}

impl Opened {
    /// A socket that leads to `remote`, which was judged.
    pub(crate) fn to(socket: UdpSocket, remote: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            connected: Connected {
                remote_address: remote.to_string(),
                local_address: socket.local_addr()?.to_string(),
            },
            side: Side::Peer {
                judged: remote,
                led_to: socket.peer_addr()?,
            },
            socket,
        })
    }

    /// Binds `port` at `address`, if the grants cover it.
    pub(crate) async fn at(
        reach: Reach,
        address: &str,
        port: u32,
        progress: &Progress,
    ) -> Result<Self, Fault> {
        let grants = reach.session.grants();
        let address = listen::asked(grants, Protocol::Udp, address, port, progress)?;
        // One of a group could be bound, unlike with TCP.
        if !address.ip().is_unspecified() && !dial::is_single(address.ip()) {
            return Err(Fault::System(Errno::ADDRNOTAVAIL));
        }
        let socket = UdpSocket::bind(address).await;
        let socket = socket.map_err(|error| failure::io(&error))?;
        let local = socket.local_addr().map_err(|error| failure::io(&error))?;
        let port = local.port();
        let origins = Origins::of(&reach.egress, grants, &reach.lookups, Protocol::Udp, port).await;
        Ok(Self {
            connected: Connected {
                remote_address: String::new(),
                local_address: local.to_string(),
            },
            socket,
            side: Side::Port(Box::new(Port {
                origins,
                asking: VecDeque::new(),
                reach,
            })),
        })
    }

    /// What is carried from now on, and the socket that carries it.
    pub(crate) fn split(self, account: Account, limits: &NetworkLimits) -> (Arc<Flow>, Carrier) {
        let (activity, whom) = match &self.side {
            Side::Peer { judged, .. } => (Activity::new(limits), Whom::Peer(*judged)),
            // As listening, which lasts for as long as the plugin wants it.
            Side::Port(_) => {
                let heard = Heard::new(limits.senders);
                (Activity::endless(), Whom::Heard(Mutex::new(heard)))
            }
        };
        let flow = Arc::new(Flow {
            waiting: Datagrams::new(limits.datagram_bytes),
            whom,
            account: Arc::new(account),
            activity: Arc::new(activity),
        });
        let (socket, side) = (self.socket, self.side);
        (flow.clone(), Carrier { socket, side, flow })
    }
}

impl Described for OpenUdpRequest {
    const OPERATION: Operation = Operation::new(HostService::Network, "open_udp");

    fn show(&self, shown: &mut Arguments) {
        match &self.part {
            Some(Asked::Connect(target)) => {
                shown.text("host", &target.host).number("port", target.port);
            }
            Some(Asked::Bind(bind)) => {
                shown
                    .flag("listen", true)
                    .number("port", bind.port)
                    .text("address", &bind.address);
            }
            Some(Asked::Datagram(_) | Asked::Close(_)) | None => {}
        }
    }
}

/// What a plugin and its socket exchange.
pub(crate) struct Flow {
    /// What came for the plugin.
    pub(crate) waiting: Datagrams,
    pub(crate) account: Arc<Account>,
    pub(crate) activity: Arc<Activity>,
    whom: Whom,
}

/// To whom datagrams may go.
enum Whom {
    Peer(SocketAddr),
    /// To those who sent something that was let in.
    Heard(Mutex<Heard>),
}

impl Flow {
    /// The next message for the plugin, paced and counted; nothing at the end.
    ///
    /// # Errors
    /// Why it ended.
    pub(crate) async fn next(&self) -> Result<Option<OpenUdpResponse>, Fault> {
        let next = self.waiting.next().await?;
        if let Some(message) = &next
            && let Some(Part::Datagram(datagram)) = &message.part
        {
            self.account.pace(HEADERS).await;
            self.account.received(datagram.data.len()).await;
            self.activity.note();
        }
        Ok(next)
    }

    /// Tells the plugin what became of a datagram that it sent.
    pub(crate) fn tell(&self, fault: &Fault) {
        tracing::debug!(why = %fault.reason(), "a datagram of a plugin is not sent");
        if fault.is_refusal() {
            self.account.refused();
        }
        let failure = fault::failure(&fault.status(OPERATION));
        self.waiting.push(Part::Failure(failure));
    }

    /// Keeps a datagram that was let in, if there is room.
    fn keep(&self, data: &[u8], address: String) {
        let data = Bytes::copy_from_slice(data);
        if !self
            .waiting
            .push(Part::Datagram(Datagram { data, address }))
        {
            self.account.dropped();
        }
    }

    /// To whom a datagram goes; nothing for the peer that a socket is connected to.
    fn receiver(&self, address: &str) -> Result<Option<SocketAddr>, Fault> {
        let parsed = || {
            let parsed = address.parse::<SocketAddr>();
            parsed.map_err(|_| Fault::abuse("the address of a datagram is none"))
        };
        match &self.whom {
            Whom::Peer(_) if address.is_empty() => Ok(None),
            Whom::Peer(peer) if parsed()? == *peer => Ok(None),
            Whom::Peer(_) => Err(Fault::refused("the socket leads to another address")),
            Whom::Heard(heard) => {
                let asked = parsed()?;
                let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                let known = heard.find(canonical(asked)).map(Some);
                known.ok_or(Fault::refused("who gets a datagram has sent none"))
            }
        }
    }
}

/// The latest of those who sent something, each with the address by which the
/// socket knows it. Who was not heard of while as many others were, is forgotten.
struct Heard {
    latest: HashMap<SocketAddr, SocketAddr>,
    former: HashMap<SocketAddr, SocketAddr>,
    most: usize,
}

impl Heard {
    fn new(most: usize) -> Self {
        Self {
            latest: HashMap::new(),
            former: HashMap::new(),
            most: most.max(1),
        }
    }

    /// Remembers who sent; whether that is news.
    fn note(&mut self, remote: SocketAddr, raw: SocketAddr) -> bool {
        if self.latest.contains_key(&remote) {
            return false;
        }
        if self.latest.len() >= self.most {
            self.former = std::mem::take(&mut self.latest);
        }
        self.latest.insert(remote, raw);
        !self.former.contains_key(&remote)
    }

    fn find(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let latest = self.latest.get(&remote);
        latest.or_else(|| self.former.get(&remote)).copied()
    }
}

/// The one way to write an address: one of IPv4 is not written as one of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

/// The socket of a flow.
pub(crate) struct Carrier {
    socket: UdpSocket,
    side: Side,
    flow: Arc<Flow>,
}

impl Carrier {
    /// The two directions: taking what the network brings, which never ends, and
    /// sending what the plugin sends.
    pub(crate) fn both(&mut self) -> (impl Future<Output = ()> + Send, Sender<'_>) {
        let (socket, flow) = (&self.socket, &*self.flow);
        let receiving = receive(socket, &mut self.side, flow);
        (receiving, Sender { socket, flow })
    }
}

async fn receive(socket: &UdpSocket, side: &mut Side, flow: &Flow) {
    let mut buffer = vec![0; ROOM];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = side.looked_up(flow) => continue,
        };
        match received {
            Ok((length, remote)) => {
                let data = buffer.get(..length).unwrap_or_default();
                side.received(data, remote, flow);
            }
            Err(error) => {
                let fault = failure::io(&error);
                flow.tell(&fault);
                if !matches!(fault, Fault::System(errno) if is_answer(errno)) {
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

/// Whether an error is what the network answered to a datagram.
fn is_answer(errno: Errno) -> bool {
    [
        Errno::CONNREFUSED,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::NOPROTOOPT,
        Errno::PROTO,
        Errno::MSGSIZE,
        Errno::ACCESS,
        Errno::OPNOTSUPP,
    ]
    .contains(&errno)
}

impl Side {
    /// Waits until names of origins were looked up, and lets in whom they let in.
    async fn looked_up(&mut self, flow: &Flow) {
        match self {
            Self::Peer { .. } => std::future::pending().await,
            Self::Port(port) => {
                port.origins.looked_up().await;
                for (data, raw) in std::mem::take(&mut port.asking) {
                    let grants = port.reach.session.grants();
                    let verdict = port.origins.judge_now(grants, canonical(raw).ip());
                    judged(verdict, &data, raw, flow);
                }
            }
        }
    }

    /// Keeps what came for the plugin, if its sender may send.
    fn received(&mut self, data: &[u8], raw: SocketAddr, flow: &Flow) {
        match self {
            // It may have come in the moment before the socket had a peer.
            Self::Peer { led_to, .. } if (raw.ip(), raw.port()) != (led_to.ip(), led_to.port()) => {
                flow.account.refused();
            }
            Self::Peer { .. } => flow.keep(data, String::new()),
            Self::Port(port) => {
                let (reach, origin) = (&port.reach, canonical(raw).ip());
                let grants = reach.session.grants();
                let (egress, lookups) = (&reach.egress, &reach.lookups);
                match port.origins.judge(egress, grants, lookups, origin) {
                    Some(verdict) => judged(verdict, data, raw, flow),
                    None => {
                        let waiting: usize = port.asking.iter().map(|(data, _)| data.len()).sum();
                        let room = waiting + data.len() <= egress.limits.datagram_bytes;
                        if room && port.asking.len() < egress.limits.backlog {
                            let data = Bytes::copy_from_slice(data);
                            port.asking.push_back((data, raw));
                        } else {
                            flow.waiting.drop_one();
                            flow.account.dropped();
                        }
                    }
                }
            }
        }
    }
}

/// What becomes of a datagram at a port.
fn judged(verdict: Result<String, Fault>, data: &[u8], raw: SocketAddr, flow: &Flow) {
    let remote = canonical(raw);
    match verdict {
        Ok(rule) => {
            if let Whom::Heard(heard) = &flow.whom {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.note(remote, raw) {
                    flow.account.allowed_by(&format!("{rule}: from {remote}"));
                }
            }
            flow.keep(data, remote.to_string());
        }
        Err(why) => {
            tracing::debug!(%remote, why = %why.reason(), "a datagram is turned away");
            flow.account.refused();
        }
    }
}

/// Sends what a plugin sends.
pub(crate) struct Sender<'a> {
    socket: &'a UdpSocket,
    pub(crate) flow: &'a Flow,
}

impl Sender<'_> {
    /// Does what a message of the plugin says; whether it was the last one.
    ///
    /// # Errors
    /// The message makes no sense here, so that the socket ends.
    pub(crate) async fn take(&self, message: OpenUdpRequest) -> Result<bool, Fault> {
        match message.part {
            Some(Asked::Datagram(datagram)) => {
                self.flow.activity.note();
                if let Err(fault) = self.send(&datagram).await {
                    self.flow.tell(&fault);
                }
                Ok(false)
            }
            Some(Asked::Close(close)) => Ok(close),
            Some(Asked::Connect(_) | Asked::Bind(_)) => Err(Fault::abuse(
                "after the first message only datagrams and the end may follow",
            )),
            None => Ok(false),
        }
    }

    async fn send(&self, datagram: &Datagram) -> Result<(), Fault> {
        let data = &datagram.data;
        if data.len() > LONGEST {
            return Err(Fault::System(Errno::MSGSIZE));
        }
        let to = self.flow.receiver(&datagram.address)?;
        self.flow.account.pace(HEADERS).await;
        self.flow.account.sent(data.len()).await;
        let send = async || match to {
            Some(to) => self.socket.send_to(data, to).await,
            None => self.socket.send(data).await,
        };
        match send().await {
            Ok(_) => Ok(()),
            // What the network answered to one before; this one did not leave.
            Err(error) if Errno::from_io_error(&error).is_some_and(is_answer) => {
                self.flow.tell(&failure::io(&error));
                match send().await {
                    Ok(_) => Ok(()),
                    // Told already.
                    Err(again) if again.raw_os_error() == error.raw_os_error() => Ok(()),
                    Err(again) => Err(failure::io(&again)),
                }
            }
            Err(error) => Err(failure::io(&error)),
        }
    }
}

/// A socket that a plugin uses by a call: it closes when this is dropped, which
/// is how a plugin ends it.
struct Call {
    flow: Arc<Flow>,
    watch: Watch,
    over: bool,
    _carrying: OwnedTask,
}

/// The replies of a call that uses a socket, after the first.
pub(crate) fn replies(
    opened: Opened,
    messages: Streaming<OpenUdpRequest>,
    account: Account,
    limits: &NetworkLimits,
) -> impl futures_util::Stream<Item = Result<OpenUdpResponse, Status>> + Send + use<> {
    let (flow, carrier) = opened.split(account, limits);
    let (cut, stopped) = oneshot::channel::<()>();
    let (activity, account) = (flow.activity.clone(), flow.account.clone());
    let call = Call {
        watch: Watch::new(activity, account, move || drop(cut)),
        flow,
        over: false,
        _carrying: OwnedTask::spawn(async move {
            tokio::select! {
                () = carry(carrier, messages) => {}
                // Also while the plugin takes no reply.
                _ = stopped => {}
            }
        }),
    };
    futures_util::stream::unfold(call, async |mut call| Some((call.next().await?, call)))
}

async fn carry(mut carrier: Carrier, mut messages: Streaming<OpenUdpRequest>) {
    let (receiving, sender) = carrier.both();
    let sending = async {
        loop {
            let taken = match messages.message().await {
                Ok(Some(message)) => sender.take(message).await,
                // It sends no more; keeping its messages keeps the call open.
                Ok(None) => return std::future::pending().await,
                Err(status) => Err(Fault::unread(&status)),
            };
            match taken {
                Ok(false) => {}
                Ok(true) => return sender.flow.waiting.end(Ok(())),
                Err(fault) => return sender.flow.waiting.end(Err(fault)),
            }
        }
    };
    tokio::select! {
        () = receiving => {}
        () = sending => {}
    }
}

impl Call {
    async fn next(&mut self) -> Option<Result<OpenUdpResponse, Status>> {
        if self.over {
            return None;
        }
        let next = tokio::select! {
            next = self.flow.next() => Some(next),
            late = self.watch.late() => {
                self.over = true;
                return Some(Err(late));
            }
        };
        if let Some(late) = self.watch.told() {
            self.over = true;
            return Some(Err(late));
        }
        match next? {
            Ok(Some(message)) => Some(Ok(message)),
            Ok(None) => {
                self.over = true;
                self.flow.account.end();
                None
            }
            Err(fault) => {
                self.over = true;
                Some(Err(self.flow.account.fail(fault)))
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Giving the call up is how a socket is closed: nothing went wrong.
        self.flow.account.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_were_heard_last_are_known_and_no_more_than_so_many() {
        let mut heard = Heard::new(10);
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        for port in 1..=1000 {
            assert!(heard.note(address(port), address(port)));
            assert!(!heard.note(address(port), address(port)));
            assert!(heard.latest.len() + heard.former.len() <= 20);
        }
        for port in 991..=1000 {
            assert_eq!(heard.find(address(port)), Some(address(port)));
        }
        assert_eq!(heard.find(address(980)), None);
    }
}
