//! What a session knows, and what each frame and each call does to it.
//!
//! Nothing here touches a connection, a task or a clock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::IoSlice;
use std::task::{Poll, Waker};

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::frame::{Flags, Header, Kind, go_away};
use super::wire::Wire;
use super::{CloseReason, Config, INITIAL_WINDOW, Role, Violation, YamuxError};

/// Answers to the peer (ping replies, resets) that may wait to be written. The
/// session reads nothing more while there are this many.
pub(super) const MAX_REPLIES: usize = 1024;

/// Bytes of one stream that may wait to be framed.
const STREAM_QUEUE: usize = 64 * 1024;

/// What a stream may always queue, however much the others have queued.
const STREAM_QUEUE_MIN: usize = 4 * 1024;

/// Bytes of all streams that may wait to be framed, give or take
/// [`STREAM_QUEUE_MIN`] for each stream.
const SESSION_QUEUE: usize = 1024 * 1024;

/// Bytes committed to the connection ahead of any later, more urgent frame.
const BATCH: usize = 128 * 1024;

/// Smallest buffer made for received data. Data that arrives in crumbs is put
/// together in such buffers, so that its bookkeeping stays below its size.
const MIN_CHUNK: usize = 512;

/// Received pieces from this size on are kept as they are.
pub(super) const KEEP_CHUNK: usize = 4 * 1024;

/// Names a stream for as long as anybody can ask for it. Ids can come back,
/// keys cannot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Key(u64);

/// What a stream says to its peer before anything else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Greeting {
    None,
    Syn,
    Ack,
}

/// This side's half of the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// Shut down; the FIN waits behind the data.
    Closing,
    Closed,
}

/// The end of a stream that was not two FINs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Reset,
    TimedOut,
}

struct Entry {
    id: u32,
    greeting: Greeting,
    /// Opened here and not accepted by the peer: counts as an open in flight.
    unaccepted: bool,
    /// The application has the stream, or may still accept it.
    wanted: bool,
    cut: Option<Cut>,
    deadline: Option<Instant>,

    sending: Sending,
    send_window: u32,
    queue: BytesMut,
    /// Position in the connection's output up to which this stream wrote.
    committed: u64,
    in_control: bool,
    in_data: bool,
    writer: Option<Waker>,

    received: VecDeque<BytesMut>,
    /// What the peer may still send.
    receive_window: u32,
    /// Credit to be announced.
    credit: u32,
    remote_closed: bool,
    reader: Option<Waker>,
}

impl Entry {
    fn new(id: u32) -> Entry {
        Entry {
            id,
            greeting: Greeting::None,
            unaccepted: false,
            wanted: true,
            cut: None,
            deadline: None,
            sending: Sending::Open,
            send_window: INITIAL_WINDOW,
            queue: BytesMut::new(),
            committed: 0,
            in_control: false,
            in_data: false,
            writer: None,
            received: VecDeque::new(),
            receive_window: INITIAL_WINDOW,
            credit: 0,
            remote_closed: false,
            reader: None,
        }
    }

    fn is_over(&self) -> bool {
        self.cut.is_some() || (self.sending == Sending::Closed && self.remote_closed)
    }

    fn has_unwritten(&self, written: u64) -> bool {
        !self.queue.is_empty() || self.sending == Sending::Closing || self.committed > written
    }
}

/// What is to be done once the state is unlocked.
#[derive(Default)]
pub(super) struct Effects {
    waker: Option<Waker>,
    more_wakers: Vec<Waker>,
    /// Opens in flight that are no longer.
    pub(super) permits: usize,
    /// Streams ready to be accepted.
    pub(super) accepts: usize,
    /// The session has just ended.
    pub(super) ended: bool,
    /// The session's task must look again.
    pub(super) wake_task: bool,
}

impl Effects {
    fn wake(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        match &self.waker {
            None => self.waker = Some(waker),
            Some(_) => self.more_wakers.push(waker),
        }
    }

    /// Wakes whoever waits for what has happened.
    pub(super) fn wake_all(self) {
        for waker in self.waker.into_iter().chain(self.more_wakers) {
            waker.wake();
        }
    }
}

/// The payload that follows a header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    key: Option<Key>,
    /// Bytes that have not arrived yet.
    pub(super) rest: usize,
    fin: bool,
}

/// What a reader finds.
pub(super) enum Received {
    Data,
    End,
    Wait,
}

/// What the session's task does next.
pub(super) enum Next {
    /// Reads, once the connection has something.
    Read,
    /// Writes only: the peer wants more answers than it takes.
    Write,
    /// Closes the connection: the session has ended.
    Close,
}

/// The state of one session.
pub(super) struct State {
    role: Role,
    config: Config,
    effects: Effects,
    reason: Option<CloseReason>,
    /// [`Session`](super::Session) and [`Stream`](super::Stream) values.
    handles: usize,

    entries: HashMap<Key, Entry>,
    /// The streams that the peer knows.
    ids: HashMap<u32, Key>,
    next_key: u64,
    next_id: u32,
    backlog: VecDeque<Key>,
    remote_go_away: bool,

    replies: VecDeque<Header>,
    control: VecDeque<Key>,
    data: VecDeque<Key>,
    queued: usize,
    written: u64,
    flushers: Vec<(u64, Key)>,
    /// The connection takes no more bytes, though it can still be read.
    write_broken_until: Option<Instant>,
    stalled_since: Option<Instant>,
    stalled: bool,
    /// Nobody can use the session any more; what is queued is still written.
    abandoned_until: Option<Instant>,

    pings: HashMap<u32, oneshot::Sender<()>>,
    next_ping: u32,
    ping_at: Option<Instant>,
    probe: Option<(u32, Instant)>,
    deadlines: BTreeSet<(Instant, Key)>,
    /// When the session's task wakes by itself.
    armed: Option<Instant>,
}

impl State {
    pub(super) fn new(role: Role, mut config: Config, now: Instant) -> State {
        config.window = config.window.max(INITIAL_WINDOW);
        State {
            role,
            effects: Effects::default(),
            reason: None,
            handles: 1,
            entries: HashMap::new(),
            ids: HashMap::new(),
            next_key: 0,
            next_id: match role {
                Role::Client => 1,
                Role::Server => 2,
            },
            backlog: VecDeque::new(),
            remote_go_away: false,
            replies: VecDeque::new(),
            control: VecDeque::new(),
            data: VecDeque::new(),
            queued: 0,
            written: 0,
            flushers: Vec::new(),
            write_broken_until: None,
            stalled_since: None,
            stalled: false,
            abandoned_until: None,
            pings: HashMap::new(),
            next_ping: 0,
            ping_at: config.keep_alive.map(|interval| now + interval),
            probe: None,
            deadlines: BTreeSet::new(),
            armed: None,
            config,
        }
    }

    pub(super) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn reason(&self) -> Option<&CloseReason> {
        self.reason.as_ref()
    }

    pub(super) fn streams(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn add_handle(&mut self) {
        self.handles += 1;
    }

    pub(super) fn drop_handle(&mut self) {
        self.handles -= 1;
        self.effects.wake_task |= self.handles == 0;
    }

    /// Decides what the session's task does next; `drained` says that nothing
    /// is committed and unwritten.
    pub(super) fn next_step(&mut self, drained: bool, now: Instant) -> Next {
        if self.handles == 0 {
            if drained && !self.has_frames() {
                self.end(CloseReason::Local);
            } else {
                self.abandoned_until
                    .get_or_insert(now + self.config.write_timeout);
            }
        }
        if self.is_reading_paused() && self.stalled {
            self.end(CloseReason::WriteTimeout(self.config.write_timeout));
        }
        match &self.reason {
            Some(_) => Next::Close,
            None if self.is_reading_paused() => Next::Write,
            None => Next::Read,
        }
    }

    fn has_frames(&self) -> bool {
        !(self.replies.is_empty() && self.control.is_empty() && self.data.is_empty())
    }

    #[cfg(test)]
    pub(super) fn set_next_id(&mut self, id: u32) {
        self.next_id = id;
    }

    // --- The session's end ---------------------------------------------------

    /// Ends the session, unless it has ended.
    pub(super) fn end(&mut self, reason: CloseReason) {
        if self.reason.is_some() {
            return;
        }
        if let CloseReason::Violation(_) = reason {
            self.drop_frames();
            self.replies
                .push_back(Header::go_away(go_away::PROTOCOL_ERROR));
        }
        self.reason = Some(reason);
        self.effects.ended = true;
        self.effects.wake_task = true;
        self.pings.clear();
        self.deadlines.clear();
        self.ids.clear();
        for key in self.backlog.drain(..) {
            self.entries.remove(&key);
        }
        for entry in self.entries.values_mut() {
            self.effects.wake(entry.reader.take());
            self.effects.wake(entry.writer.take());
        }
    }

    /// The connection takes no more bytes. What the peer wrote before it left
    /// is still read, until `until`.
    pub(super) fn break_writes(&mut self, until: Instant) {
        self.drop_frames();
        self.stalled_since = None;
        self.write_broken_until.get_or_insert(until);
        self.effects.wake_task = true;
        for entry in self.entries.values_mut() {
            self.effects.wake(entry.writer.take());
        }
    }

    fn drop_frames(&mut self) {
        self.replies.clear();
        self.control.clear();
        self.data.clear();
        self.queued = 0;
        for entry in self.entries.values_mut() {
            entry.queue = BytesMut::new();
            (entry.in_control, entry.in_data) = (false, false);
        }
    }

    /// Why nothing can be written on any stream.
    fn write_failure(&self) -> Option<YamuxError> {
        match (&self.reason, self.write_broken_until) {
            (Some(reason), _) => Some(YamuxError::SessionClosed(reason.clone())),
            (None, Some(_)) => Some(YamuxError::SessionClosed(CloseReason::Peer)),
            (None, None) => None,
        }
    }

    // --- Streams begin and end -----------------------------------------------

    fn insert(&mut self, entry: Entry) -> Key {
        let key = Key(self.next_key);
        self.next_key += 1;
        self.ids.insert(entry.id, key);
        self.entries.insert(key, entry);
        key
    }

    /// Why no stream can be opened.
    pub(super) fn open_failure(&self) -> Option<YamuxError> {
        self.write_failure()
            .or_else(|| self.remote_go_away.then_some(YamuxError::RemoteGoAway))
    }

    /// Opens a stream.
    pub(super) fn open(&mut self, now: Instant) -> Result<(Key, u32), YamuxError> {
        if let Some(error) = self.open_failure() {
            return Err(error);
        }
        let id = self.next_id;
        if id >= u32::MAX - 1 {
            return Err(YamuxError::StreamsExhausted);
        }
        self.next_id += 2;
        let mut entry = Entry::new(id);
        entry.greeting = Greeting::Syn;
        entry.unaccepted = true;
        let key = self.insert(entry);
        self.greet(key);
        self.set_deadline(key, Some(now + self.config.open_timeout));
        self.handles += 1;
        Ok((key, id))
    }

    /// Takes the next stream that the peer opened.
    pub(super) fn accept(&mut self) -> Option<(Key, u32)> {
        let key = self.backlog.pop_front()?;
        self.handles += 1;
        let entry = self.entries.get_mut(&key)?;
        let id = entry.id;
        if entry.cut.is_none() {
            entry.greeting = Greeting::Ack;
            self.greet(key);
        }
        Some((key, id))
    }

    fn greet(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            let extra = self.config.window - INITIAL_WINDOW;
            entry.receive_window += extra;
            entry.credit += extra;
        }
        self.queue_control(key);
    }

    fn queue_control(&mut self, key: Key) {
        if self.reason.is_none()
            && self.write_broken_until.is_none()
            && let Some(entry) = self.entries.get_mut(&key)
            && !entry.in_control
        {
            entry.in_control = true;
            self.control.push_back(key);
        }
    }

    fn queue_data(&mut self, key: Key) {
        if self.reason.is_none()
            && self.write_broken_until.is_none()
            && let Some(entry) = self.entries.get_mut(&key)
            && !entry.in_data
        {
            entry.in_data = true;
            self.data.push_back(key);
        }
    }

    fn set_deadline(&mut self, key: Key, deadline: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if let Some(old) = entry.deadline.take() {
            self.deadlines.remove(&(old, key));
        }
        let Some(new) = deadline else { return };
        if self.reason.is_none() {
            entry.deadline = Some(new);
            self.deadlines.insert((new, key));
            self.effects.wake_task |= self.armed.is_none_or(|armed| new < armed);
        }
    }

    /// Forgets a stream as far as it can be forgotten.
    fn settle(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if !entry.is_over() {
            return;
        }
        if self.ids.get(&entry.id) == Some(&key) {
            self.ids.remove(&entry.id);
        }
        if std::mem::take(&mut entry.unaccepted) {
            self.effects.permits += 1;
        }
        let keep = entry.wanted;
        self.set_deadline(key, None);
        if !keep {
            self.entries.remove(&key);
        }
    }

    /// Ends a stream at once, in both directions.
    fn cut(&mut self, key: Key, cut: Cut) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.cut = Some(cut);
        self.queued -= entry.queue.len();
        entry.queue = BytesMut::new();
        entry.received = VecDeque::new();
        self.effects.wake(entry.reader.take());
        self.effects.wake(entry.writer.take());
        self.settle(key);
    }

    fn close_sending(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if entry.sending != Sending::Open || entry.cut.is_some() {
            return;
        }
        entry.sending = Sending::Closing;
        let deadline = (!entry.remote_closed).then(|| now + self.config.close_timeout);
        self.queue_data(key);
        self.set_deadline(key, deadline);
    }

    /// The application drops the stream. Data still queued, and the FIN, are
    /// sent; data still to come is counted and thrown away, and earns the peer
    /// no more credit.
    pub(super) fn release(&mut self, key: Key, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.wanted = false;
            entry.received = VecDeque::new();
            (entry.reader, entry.writer) = (None, None);
        }
        self.close_sending(key, now);
        self.settle(key);
        if self.reason.is_some() && self.entries.get(&key).is_some_and(|entry| !entry.in_data) {
            self.entries.remove(&key);
        }
        self.effects.wake_task = true;
        self.drop_handle();
    }

    /// The connection is closed: nothing queued will ever be written.
    pub(super) fn finish(&mut self) {
        self.replies.clear();
        self.control.clear();
        self.data.clear();
        self.entries.retain(|_, entry| {
            entry.in_data = false;
            entry.wanted
        });
    }

    // --- Frames from the peer ------------------------------------------------

    /// Does what a header says. Returns the payload that follows.
    pub(super) fn on_header(
        &mut self,
        header: Header,
        now: Instant,
    ) -> Result<Payload, CloseReason> {
        let mut payload = Payload {
            key: None,
            rest: 0,
            fin: false,
        };
        match header.kind {
            Kind::Data => {
                payload.rest = header.length as usize;
                self.on_stream_frame(header, &mut payload)?;
            }
            Kind::WindowUpdate => self.on_stream_frame(header, &mut payload)?,
            Kind::Ping if header.flags.contains(Flags::SYN) => {
                self.replies
                    .push_back(Header::ping(Flags::ACK, header.length));
            }
            Kind::Ping => self.on_pong(header.length, now),
            Kind::GoAway if header.length == go_away::NORMAL => self.remote_go_away = true,
            Kind::GoAway => return Err(CloseReason::GoAway(header.length)),
        }
        Ok(payload)
    }

    fn on_stream_frame(
        &mut self,
        header: Header,
        payload: &mut Payload,
    ) -> Result<(), CloseReason> {
        let flags = header.flags;
        if flags.contains(Flags::SYN) {
            self.on_syn(header.stream)?;
        }
        let Some(&key) = self.ids.get(&header.stream) else {
            return Ok(());
        };
        if flags.contains(Flags::ACK) {
            self.on_ack(key);
        }
        if flags.contains(Flags::FIN) {
            if self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.remote_closed)
            {
                return Err(Violation::DuplicateFin(header.stream).into());
            }
            // The data of the same frame still comes before the end.
            match payload.rest {
                0 => self.on_fin(key),
                _ => payload.fin = true,
            }
        }
        if flags.contains(Flags::RST) {
            self.cut(key, Cut::Reset);
            return Ok(());
        }
        let Some(entry) = self.entries.get_mut(&key) else {
            return Ok(());
        };
        if header.kind == Kind::WindowUpdate {
            entry.send_window = entry.send_window.saturating_add(header.length);
            self.effects.wake(entry.writer.take());
            return Ok(());
        }
        if header.length > entry.receive_window {
            return Err(Violation::WindowExceeded {
                stream: header.stream,
                sent: header.length,
                window: entry.receive_window,
            }
            .into());
        }
        entry.receive_window -= header.length;
        payload.key = Some(key);
        Ok(())
    }

    fn on_syn(&mut self, id: u32) -> Result<(), CloseReason> {
        let is_odd = id % 2 == 1;
        if id == 0 || is_odd == (self.role == Role::Client) {
            return Err(Violation::ForeignStream(id).into());
        }
        if self.ids.contains_key(&id) {
            return Err(Violation::DuplicateStream(id).into());
        }
        if self.reason.is_some() {
            // The session was closed after this frame was read: nobody can accept
            // the stream, and nobody would forget it.
            return Ok(());
        }
        if self.backlog.len() >= self.config.accept_backlog
            || self.ids.len() >= self.config.max_streams
        {
            self.replies
                .push_back(Header::window_update(Flags::RST, id, 0));
            return Ok(());
        }
        let key = self.insert(Entry::new(id));
        self.backlog.push_back(key);
        self.effects.accepts += 1;
        Ok(())
    }

    fn on_ack(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if std::mem::take(&mut entry.unaccepted) {
            self.effects.permits += 1;
            if entry.sending == Sending::Open {
                self.set_deadline(key, None);
            }
        }
    }

    fn on_fin(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.remote_closed = true;
        self.effects.wake(entry.reader.take());
        // The peer has seen the stream, or has closed it too.
        self.set_deadline(key, None);
        self.settle(key);
    }

    fn on_pong(&mut self, number: u32, now: Instant) {
        if self.probe.is_some_and(|(probe, _)| probe == number) {
            self.probe = None;
            self.ping_at = self.config.keep_alive.map(|interval| now + interval);
        }
        if let Some(waiting) = self.pings.remove(&number) {
            // A caller that has gone does not need to know.
            let _ = waiting.send(());
        }
    }

    /// Takes received bytes by copying them.
    pub(super) fn on_bytes(&mut self, payload: &mut Payload, mut bytes: &[u8]) {
        payload.rest -= bytes.len();
        if let Some(entry) = self.wanting(payload) {
            if let Some(tail) = entry.received.back_mut() {
                let (fits, rest) = bytes.split_at(bytes.len().min(tail.capacity() - tail.len()));
                tail.extend_from_slice(fits);
                bytes = rest;
            }
            if !bytes.is_empty() {
                let mut tail = BytesMut::with_capacity(bytes.len().max(MIN_CHUNK));
                tail.extend_from_slice(bytes);
                entry.received.push_back(tail);
            }
        }
        self.after_bytes(payload);
    }

    /// Takes the content of `chunk`, without copying it if it is large.
    pub(super) fn on_chunk(&mut self, payload: &mut Payload, chunk: &mut BytesMut) {
        if chunk.len() < KEEP_CHUNK {
            self.on_bytes(payload, chunk);
            chunk.clear();
            return;
        }
        payload.rest -= chunk.len();
        match self.wanting(payload) {
            Some(entry) => entry.received.push_back(chunk.split()),
            None => chunk.clear(),
        }
        self.after_bytes(payload);
    }

    /// The stream of a payload, if anybody will read it.
    fn wanting(&mut self, payload: &Payload) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&payload.key?)?;
        (entry.wanted && entry.cut.is_none() && !entry.remote_closed).then_some(entry)
    }

    fn after_bytes(&mut self, payload: &mut Payload) {
        let Some(key) = payload.key else { return };
        if let Some(entry) = self.entries.get_mut(&key) {
            self.effects.wake(entry.reader.take());
        }
        if payload.rest == 0 && std::mem::take(&mut payload.fin) {
            self.on_fin(key);
        }
    }

    /// Whether so many answers wait that nothing more should be read.
    pub(super) fn is_reading_paused(&self) -> bool {
        self.replies.len() >= MAX_REPLIES
    }

    // --- The application reads -----------------------------------------------

    /// Moves received data into `into`, which is empty.
    pub(super) fn receive(
        &mut self,
        key: Key,
        into: &mut VecDeque<BytesMut>,
        waker: &Waker,
    ) -> Result<Received, YamuxError> {
        let Some(entry) = self.entries.get_mut(&key) else {
            return Ok(Received::End);
        };
        if entry.cut == Some(Cut::Reset) {
            return Err(YamuxError::StreamReset);
        }
        if !entry.received.is_empty() {
            std::mem::swap(&mut entry.received, into);
            return Ok(Received::Data);
        }
        if entry.remote_closed {
            return Ok(Received::End);
        }
        if entry.cut == Some(Cut::TimedOut) {
            return Err(YamuxError::CloseTimeout(self.config.close_timeout));
        }
        match &self.reason {
            Some(reason) if reason.is_orderly() => Ok(Received::End),
            Some(reason) => Err(YamuxError::SessionClosed(reason.clone())),
            None => {
                set_waker(&mut entry.reader, waker);
                Ok(Received::Wait)
            }
        }
    }

    /// The application has read `consumed` bytes. Returns whether a frame was
    /// queued.
    pub(super) fn consume(&mut self, key: Key, consumed: u32) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else {
            return false;
        };
        if entry.remote_closed || entry.cut.is_some() || self.reason.is_some() {
            return false;
        }
        entry.receive_window += consumed;
        entry.credit += consumed;
        self.queue_control(key);
        true
    }

    // --- The application writes ----------------------------------------------

    fn stream_write_failure(&self, entry: &Entry) -> Option<YamuxError> {
        match entry.cut {
            Some(Cut::Reset) => return Some(YamuxError::StreamReset),
            Some(Cut::TimedOut) => {
                return Some(YamuxError::CloseTimeout(self.config.close_timeout));
            }
            None => {}
        }
        self.write_failure()
    }

    /// Reserves window for a frame of at most `most` bytes to be written right
    /// now; returns the stream's id and the frame's length, or `None` if the
    /// stream has to queue or wait.
    pub(super) fn reserve(
        &mut self,
        key: Key,
        most: usize,
    ) -> Result<Option<(u32, u32)>, YamuxError> {
        if let Some(entry) = self.entries.get(&key)
            && let Some(error) = self.stream_write_failure(entry)
        {
            return Err(error);
        }
        if self.has_frames() {
            return Ok(None);
        }
        let Some(entry) = self.entries.get_mut(&key) else {
            return Err(YamuxError::StreamClosed);
        };
        if entry.sending != Sending::Open {
            return Err(YamuxError::StreamClosed);
        }
        let length = entry
            .send_window
            .min(u32::try_from(most).unwrap_or(u32::MAX));
        entry.send_window -= length;
        Ok((length > 0).then_some((entry.id, length)))
    }

    /// A frame written right now was not taken whole; the stream has written
    /// when the connection's output reaches `committed`.
    pub(super) fn set_committed(&mut self, key: Key, committed: u64) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.committed = committed;
        }
    }

    /// Queues as much of `body` as window and queue allow.
    pub(super) fn enqueue(
        &mut self,
        key: Key,
        body: &[IoSlice<'_>],
        waker: &Waker,
    ) -> Poll<Result<usize, YamuxError>> {
        if let Some(entry) = self.entries.get(&key)
            && let Some(error) = self.stream_write_failure(entry)
        {
            return Poll::Ready(Err(error));
        }
        let queue_room = SESSION_QUEUE
            .saturating_sub(self.queued)
            .clamp(STREAM_QUEUE_MIN, STREAM_QUEUE);
        let stalled = self.stalled;
        let Some(entry) = self.entries.get_mut(&key) else {
            return Poll::Ready(Err(YamuxError::StreamClosed));
        };
        if entry.sending != Sending::Open {
            return Poll::Ready(Err(YamuxError::StreamClosed));
        }
        let room = queue_room.saturating_sub(entry.queue.len());
        if room == 0 && stalled {
            return Poll::Ready(Err(YamuxError::WriteTimeout(self.config.write_timeout)));
        }
        let most = room.min(entry.send_window as usize);
        if most == 0 {
            set_waker(&mut entry.writer, waker);
            return Poll::Pending;
        }
        let mut taken = 0;
        for piece in body {
            let take = piece.len().min(most - taken);
            entry
                .queue
                .extend_from_slice(piece.get(..take).unwrap_or_default());
            taken += take;
        }
        // `taken` is at most the window, which is a u32.
        entry.send_window -= taken as u32;
        self.queued += taken;
        self.queue_data(key);
        Poll::Ready(Ok(taken))
    }

    /// Shuts this side of the stream down.
    pub(super) fn shutdown(&mut self, key: Key, now: Instant) {
        if self.write_failure().is_none() {
            self.close_sending(key, now);
        }
    }

    /// Waits until everything the stream has queued is written.
    pub(super) fn poll_written(&mut self, key: Key, waker: &Waker) -> Poll<Result<(), YamuxError>> {
        let Some(entry) = self.entries.get(&key) else {
            return Poll::Ready(Ok(()));
        };
        // A session closed by this side still writes what is committed, and
        // may have done so without having said it here yet.
        let written = match self.reason {
            Some(CloseReason::Local) => u64::MAX,
            _ => self.written,
        };
        if !entry.has_unwritten(written) {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = self.stream_write_failure(entry) {
            return Poll::Ready(Err(error));
        }
        if self.stalled {
            return Poll::Ready(Err(YamuxError::WriteTimeout(self.config.write_timeout)));
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            set_waker(&mut entry.writer, waker);
            if entry.queue.is_empty() && entry.sending != Sending::Closing {
                let waiter = (entry.committed, key);
                if !self.flushers.contains(&waiter) {
                    self.flushers.push(waiter);
                }
            }
        }
        Poll::Pending
    }

    // --- Frames to the peer --------------------------------------------------

    /// Commits the next frames to the connection: answers and control frames
    /// first, then a frame of each stream with data in turn.
    pub(super) fn commit(&mut self, wire: &mut Wire) {
        while wire.len() < BATCH
            && let Some(header) = self.replies.pop_front()
        {
            wire.push_header(header);
        }
        while wire.len() < BATCH
            && let Some(key) = self.control.pop_front()
        {
            self.commit_control(key, wire);
        }
        while wire.len() < BATCH
            && let Some(key) = self.data.pop_front()
        {
            self.commit_data(key, wire);
        }
    }

    fn commit_control(&mut self, key: Key, wire: &mut Wire) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.in_control = false;
        if entry.cut.is_some() {
            return;
        }
        let flags = match std::mem::replace(&mut entry.greeting, Greeting::None) {
            Greeting::None => Flags::NONE,
            Greeting::Syn => Flags::SYN,
            Greeting::Ack => Flags::ACK,
        };
        let credit = std::mem::take(&mut entry.credit);
        if credit > 0 || flags != Flags::NONE {
            wire.push_header(Header::window_update(flags, entry.id, credit));
            entry.committed = entry.committed.max(wire.committed());
        }
    }

    fn commit_data(&mut self, key: Key, wire: &mut Wire) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.in_data = false;
        if entry.cut.is_some() {
            return;
        }
        if !entry.queue.is_empty() {
            let body = entry.queue.split().freeze();
            self.queued -= body.len();
            // A queue is at most STREAM_QUEUE long.
            wire.push_header(Header::data(entry.id, body.len() as u32));
            wire.push_body(body);
        }
        if entry.sending == Sending::Closing {
            entry.sending = Sending::Closed;
            wire.push_header(Header::window_update(Flags::FIN, entry.id, 0));
        }
        entry.committed = wire.committed();
        self.effects.wake(entry.writer.take());
        self.settle(key);
    }

    /// The connection has taken bytes.
    pub(super) fn on_written(&mut self, written: u64) {
        if written == self.written {
            return;
        }
        self.written = written;
        self.stalled_since = None;
        self.stalled = false;
        let (entries, effects) = (&mut self.entries, &mut self.effects);
        self.flushers.retain(|&(position, key)| {
            let done = position <= written;
            if done && let Some(entry) = entries.get_mut(&key) {
                effects.wake(entry.writer.take());
            }
            !done
        });
    }

    /// The connection takes no more bytes for now.
    pub(super) fn on_blocked(&mut self, now: Instant) {
        if self.stalled_since.is_none() {
            self.stalled_since = Some(now);
            let limit = now + self.config.write_timeout;
            self.effects.wake_task |= self.armed.is_none_or(|armed| limit < armed);
        }
    }

    // --- Time ----------------------------------------------------------------

    /// Sends a ping; `answered` is told of the reply.
    pub(super) fn ping(&mut self, answered: oneshot::Sender<()>) -> Result<u32, YamuxError> {
        if let Some(error) = self.write_failure() {
            return Err(error);
        }
        let number = self.queue_ping();
        self.pings.insert(number, answered);
        Ok(number)
    }

    fn queue_ping(&mut self) -> u32 {
        let number = self.next_ping;
        self.next_ping = number.wrapping_add(1);
        self.replies.push_back(Header::ping(Flags::SYN, number));
        number
    }

    pub(super) fn forget_ping(&mut self, number: u32) {
        self.pings.remove(&number);
    }

    pub(super) fn keep_alive_timeout(&self) -> std::time::Duration {
        self.config.keep_alive_timeout
    }

    /// When [`State::expire`] is due; the caller promises to call it then.
    pub(super) fn arm(&mut self) -> Option<Instant> {
        let keep_alive = match self.probe {
            Some((_, limit)) => Some(limit),
            None => self.ping_at,
        };
        let stall = match self.stalled {
            true => None,
            false => self
                .stalled_since
                .map(|since| since + self.config.write_timeout),
        };
        let stream = self.deadlines.first().map(|&(deadline, _)| deadline);
        let limits = [self.write_broken_until, self.abandoned_until];
        self.armed = [keep_alive, stall, stream]
            .into_iter()
            .chain(limits)
            .flatten()
            .min();
        self.armed
    }

    /// Does what has become due.
    pub(super) fn expire(&mut self, now: Instant) {
        match self.probe {
            Some((_, limit)) if limit <= now => {
                self.end(CloseReason::KeepAliveTimeout(
                    self.config.keep_alive_timeout,
                ));
            }
            None if self.ping_at.is_some_and(|at| at <= now) => {
                let number = self.queue_ping();
                self.probe = Some((number, now + self.config.keep_alive_timeout));
            }
            _ => {}
        }
        if self.write_broken_until.is_some_and(|until| until <= now) {
            self.end(CloseReason::Peer);
        }
        if self.abandoned_until.is_some_and(|until| until <= now) {
            self.end(CloseReason::Local);
        }
        self.expire_stall(now);
        while let Some(&(deadline, key)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.expire_stream(key);
        }
    }

    fn expire_stall(&mut self, now: Instant) {
        let due = self
            .stalled_since
            .is_some_and(|since| since + self.config.write_timeout <= now);
        if !due || self.stalled {
            return;
        }
        self.stalled = true;
        for entry in self.entries.values_mut() {
            self.effects.wake(entry.writer.take());
        }
    }

    fn expire_stream(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.deadline = None;
        let stream = entry.id;
        if entry.sending == Sending::Open {
            let timeout = self.config.open_timeout;
            self.end(CloseReason::OpenTimeout { stream, timeout });
        } else {
            self.replies
                .push_back(Header::window_update(Flags::RST, stream, 0));
            self.cut(key, Cut::TimedOut);
        }
    }
}

fn set_waker(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(old) if old.will_wake(waker) => {}
        _ => *slot = Some(waker.clone()),
    }
}
