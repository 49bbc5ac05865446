//! What one plugin connection is, holds and uses up; how its operations are
//! judged, bounded and recorded.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use outrigger_manifest::{Grants, HostService};
use outrigger_transport::PluginIdentity;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use crate::argument::Argument;
use crate::audit::{AuditRecord, Verdict};
use crate::fault::Fault;
use crate::fs::{Cx, Own};
use crate::granted::Shared;
use crate::leases::{Leases, Lent, Slot};
use crate::limits::Limits;
use crate::rate::{Bucket, Thinned};
use crate::text::Quoted;

/// Threads of this process that may wait for the system on behalf of plugins,
/// whatever their number: fewer than the runtime has.
const WAITING_THREADS: usize = 128;
static THREADS: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(WAITING_THREADS)));

/// What stands in a record in place of the rules that it has no room for.
const MORE: &str = "; and more";

/// What is kept, per second, of refusals that cost nothing to cause.
const CHEAP_RECORDS: u64 = 10;

tokio::task_local! {
    /// Whether the call that this task serves has begun an operation.
    static BEGUN: Cell<bool>;
}

/// One operation of a service, by its name in records: `filesystem.open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// The service that must be granted; none for what every plugin may ask.
    pub(crate) service: Option<HostService>,
    pub(crate) name: &'static str,
    judged_by: JudgedBy,
}

/// What decides on an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JudgedBy {
    /// A grant for what it is about.
    Grant,
    /// Its service being granted, or what its lease was granted for.
    Service,
}

impl Operation {
    /// An operation that needs a grant for what it is about.
    pub(crate) const fn new(service: HostService, name: &'static str) -> Self {
        Self {
            service: Some(service),
            name,
            judged_by: JudgedBy::Grant,
        }
    }

    /// An operation that needs nothing but its service.
    pub(crate) const fn of_service(service: HostService, name: &'static str) -> Self {
        Self {
            judged_by: JudgedBy::Service,
            ..Self::new(service, name)
        }
    }

    /// An operation of every plugin.
    pub(crate) const fn of_session(name: &'static str) -> Self {
        Self {
            service: None,
            name,
            judged_by: JudgedBy::Service,
        }
    }

    pub(crate) fn capability(self) -> &'static str {
        self.service.map_or("session", |service| service.as_str())
    }

    pub(crate) fn full_name(self) -> String {
        format!("{}.{}", self.capability(), self.name)
    }
}

/// One plugin's connection: dropped with it, and with everything it holds.
pub(crate) struct Session {
    shared: Arc<Shared>,
    identity: PluginIdentity,
    plugin: Arc<str>,
    instance: Arc<str>,
    leases: Leases,
    sweeping: AtomicBool,
    operations: Bucket,
    bytes: Bucket,
    /// Records of what was refused before it began.
    unbegun: Thinned,
    usage: Usage,
    blocking: Arc<Semaphore>,
    own: Own,
}

/// What a connection has used up.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) operations: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) written: AtomicU64,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, identity: PluginIdentity) -> Self {
        let (limits, now) = (&shared.limits, Instant::now());
        Self {
            plugin: identity.name().into(),
            instance: identity.instance().into(),
            leases: Leases::new(limits.leases),
            sweeping: AtomicBool::new(false),
            operations: Bucket::new(limits.operations_per_second.into(), now),
            bytes: Bucket::new(limits.bytes_per_second, now),
            unbegun: Thinned::new(CHEAP_RECORDS, now),
            usage: Usage::default(),
            blocking: Arc::new(Semaphore::new(limits.blocking.min(Semaphore::MAX_PERMITS))),
            own: Own::default(),
            identity,
            shared,
        }
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.shared.grants
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// What the file services keep for this connection.
    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Room for one more lease.
    pub(crate) fn slot(&self) -> Result<Slot, Fault> {
        self.leases.slot()
    }

    /// Keeps `value` and names it. It is dropped when the plugin gives it back,
    /// when nobody has used it for `lease_idle`, or with the connection.
    pub(crate) fn lend<T: Send + Sync + 'static>(
        self: &Arc<Self>,
        slot: Slot,
        value: T,
    ) -> (String, Lent<T>) {
        let lent = self.leases.lend(slot, value);
        self.sweep();
        lent
    }

    /// What `lease` names on this connection, if it is of that kind.
    pub(crate) fn lease<T: Send + Sync + 'static>(&self, lease: &str) -> Result<Lent<T>, Fault> {
        self.leases.get(lease)
    }

    /// Takes back what `lease` names on this connection.
    pub(crate) fn give_back<T: Send + Sync + 'static>(
        &self,
        lease: &str,
    ) -> Result<Lent<T>, Fault> {
        self.leases.take(lease)
    }

    /// Sees to it that unused leases are given up. The task ends with the
    /// session, and when there are no leases.
    fn sweep(self: &Arc<Self>) {
        let idle = self.limits().lease_idle;
        if idle.is_zero() || self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let session = Arc::downgrade(self);
        let run = async move {
            let mut wait = idle;
            loop {
                tokio::time::sleep(wait).await;
                let Some(session) = session.upgrade() else {
                    return;
                };
                let (next, expired) = session.leases.expire(idle);
                if !expired.is_empty() {
                    let count = expired.len();
                    tracing::info!(
                        target: "outrigger_services::audit",
                        plugin = session.identity.name(), count, "unused leases were given up"
                    );
                    // Closing may wait for storage.
                    drop(tokio::task::spawn_blocking(move || drop(expired)));
                }
                match next {
                    Some(next) => wait = next,
                    None => {
                        session.sweeping.store(false, Ordering::Release);
                        // One may have come in between.
                        if session.leases.count() == 0
                            || session.sweeping.swap(true, Ordering::AcqRel)
                        {
                            return;
                        }
                        wait = idle;
                    }
                }
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(run)),
            Err(_) => self.sweeping.store(false, Ordering::Release),
        }
    }

    /// Begins an operation: counts it, checks that its service is granted and
    /// that the plugin is not too fast, and sees to its record. `argument` is
    /// asked for only when someone keeps records.
    ///
    /// # Errors
    /// Why it must not happen; that is recorded already.
    pub(crate) fn begin(
        self: &Arc<Self>,
        operation: Operation,
        metadata: &MetadataMap,
        argument: impl FnOnce(&mut Argument),
    ) -> Result<Running, Fault> {
        let _ = BEGUN.try_with(|begun| begun.set(true));
        let mut running = self.announce(operation, metadata, argument);
        match self.admit(operation) {
            Ok(()) => {
                running.admitted = true;
                Ok(running)
            }
            Err(fault) => {
                running.end(Some(&fault));
                Err(fault)
            }
        }
    }

    /// Records what ended before it could begin: not each time, when it happens
    /// often, but how often it did. It is no operation of the plugin's, and not
    /// counted as one.
    pub(crate) fn turn_away(
        &self,
        operation: Operation,
        argument: impl FnOnce(&mut Argument),
        fault: &Fault,
    ) {
        if let Some(more) = self.unbegun.keep(Instant::now()) {
            self.tell_unbegun(operation, more, argument, fault);
        }
    }

    /// Records that `more` of an operation were refused without a record each.
    pub(crate) fn left_out(
        &self,
        operation: Operation,
        more: u64,
        argument: impl FnOnce(&mut Argument),
    ) {
        if more > 0 {
            let text = "turned away without a record each";
            let fault = Fault::exhausted("too-many-refusals", text);
            self.tell_unbegun(operation, more, argument, &fault);
        }
    }

    fn tell_unbegun(
        &self,
        operation: Operation,
        more: u64,
        argument: impl FnOnce(&mut Argument),
        fault: &Fault,
    ) {
        if self.shared.records() {
            let mut shown = Argument::default();
            argument(&mut shown);
            shown.number("more", more);
            let shown = Shown {
                argument: shown.into_text(),
                ..Shown::default()
            };
            let judged = match fault.is_refusal() {
                true => (Verdict::Refused, fault.rule()),
                false => (Verdict::Undecided, String::new()),
            };
            self.tell(operation, shown, judged, Some(fault), (0, Duration::ZERO));
        }
    }

    /// Keeps a record: what was shown of an operation, how it was judged, how it
    /// ended, how many bytes it moved and how long it took.
    fn tell(
        &self,
        operation: Operation,
        shown: Shown,
        (verdict, rule): (Verdict, String),
        fault: Option<&Fault>,
        (bytes, took): (u64, Duration),
    ) {
        let record = AuditRecord {
            time: SystemTime::now(),
            plugin: self.plugin.clone(),
            digest: self.shared.digest.clone(),
            instance: self.instance.clone(),
            pid: self.identity.pid(),
            client: shown.client,
            request: shown.request,
            capability: operation.capability(),
            operation: operation.name,
            argument: shown.argument,
            verdict,
            rule,
            code: fault.map_or("ok", Fault::code),
            reason: fault
                .map(|fault| fault.reason().into_owned())
                .unwrap_or_default(),
            missing: fault
                .map(|fault| fault.missing().into_owned())
                .unwrap_or_default(),
            bytes,
            micros: micros(took),
        };
        self.shared.keep(record);
    }

    fn announce(
        self: &Arc<Self>,
        operation: Operation,
        metadata: &MetadataMap,
        argument: impl FnOnce(&mut Argument),
    ) -> Running {
        self.usage.operations.fetch_add(1, Ordering::Relaxed);
        let shown = self.shared.records().then(|| {
            let mut shown = Argument::default();
            argument(&mut shown);
            Shown {
                client: said(metadata, "client"),
                request: said(metadata, "request"),
                argument: shown.into_text(),
            }
        });
        Running {
            session: self.clone(),
            operation,
            started: Instant::now(),
            shown,
            notes: Arc::default(),
            admitted: false,
            ended: false,
        }
    }

    fn admit(&self, operation: Operation) -> Result<(), Fault> {
        if let Some(service) = operation.service {
            self.grants().service(service)?;
        }
        let rate = self.limits().operations_per_second;
        let late = |after| Fault::Exhausted {
            code: "rate-limited",
            text: format!("more than {rate} operations per second (`operations_per_second`)"),
            after: Some(after),
        };
        self.operations.take(1, Instant::now()).map_err(late)
    }

    /// Begins an operation, does `work` within `call_timeout`, and answers.
    pub(crate) async fn call<T>(
        self: &Arc<Self>,
        operation: Operation,
        metadata: &MetadataMap,
        argument: impl FnOnce(&mut Argument),
        work: impl AsyncFnOnce(&Running) -> Result<T, Fault>,
    ) -> Result<Response<T>, Status> {
        let running = match self.begin(operation, metadata, argument) {
            Ok(running) => running,
            Err(fault) => return Err(fault.status(&operation.full_name())),
        };
        let work = tokio::time::timeout(self.limits().call_timeout, work(&running));
        let outcome = work.await.unwrap_or(Err(Fault::Deadline));
        running.finish(outcome).map(Response::new)
    }

    /// Runs `work` on a thread that may wait, within `call_timeout`.
    ///
    /// A plugin never has more than `blocking` such threads, and all plugins
    /// together fewer than the runtime has: work that is given up keeps its
    /// place until the system lets go of it.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Session>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let run = async {
            let own = self.blocking.clone().acquire_owned().await;
            let shared = THREADS.clone().acquire_owned().await;
            let permits = (
                own.map_err(|_| Fault::Broken)?,
                shared.map_err(|_| Fault::Broken)?,
            );
            let session = self.clone();
            let work = tokio::task::spawn_blocking(move || {
                let outcome = work(&session);
                drop(permits);
                outcome
            });
            work.await.unwrap_or(Err(Fault::Broken))
        };
        match tokio::time::timeout(self.limits().call_timeout, run).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::Deadline),
        }
    }

    /// Checks that bytes may be moved now, for an operation that cannot wait.
    pub(crate) fn may_move(&self) -> Result<(), Fault> {
        let rate = self.limits().bytes_per_second;
        let late = |after| Fault::Exhausted {
            code: "rate-limited",
            text: format!("more than {rate} bytes per second (`bytes_per_second`)"),
            after: Some(after),
        };
        self.bytes.take(0, Instant::now()).map_err(late)
    }

    /// How long it takes until bytes may be moved again; nothing if they may.
    pub(crate) fn owes_bytes(&self) -> Option<Duration> {
        self.bytes.take(0, Instant::now()).err()
    }

    /// Waits until `count` bytes may be moved.
    ///
    /// # Cancel safety
    /// Nothing is counted when it is dropped.
    pub(crate) async fn pace(&self, count: u64) {
        while let Err(wait) = self.bytes.take(count, Instant::now()) {
            tokio::time::sleep(wait).await;
        }
    }

    /// Charges bytes that were moved without waiting.
    pub(crate) fn charge(&self, count: u64) {
        self.bytes.charge(count);
    }

    /// Counts contents that the plugin got.
    pub(crate) fn count_read(&self, count: u64) {
        self.usage.read.fetch_add(count, Ordering::Relaxed);
    }

    /// Reserves `count` bytes of what may be written in total.
    pub(crate) fn reserve(&self, count: u64) -> Result<(), Fault> {
        let most = match self.limits().written_bytes {
            0 => u64::MAX,
            most => most,
        };
        let add = |written: u64| {
            written
                .checked_add(count)
                .filter(|written| *written <= most)
        };
        let order = Ordering::Relaxed;
        match self.usage.written.fetch_update(order, order, add) {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault::exhausted(
                "quota-exhausted",
                format!("at most {most} bytes may be written (`written_bytes`)"),
            )),
        }
    }

    /// Gives back what was reserved and not written.
    pub(crate) fn release(&self, count: u64) {
        self.usage.written.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Drop for Session {
    /// Records how much more was turned away than records say: nobody is left who
    /// could turn away anything.
    fn drop(&mut self) {
        let operation = Operation::of_session("turned_away");
        self.left_out(operation, self.unbegun.rest(), |_| {});
    }
}

/// What a record shows of the request.
#[derive(Debug, Default)]
struct Shown {
    client: String,
    request: String,
    argument: String,
}

/// What is found out about an operation while it runs, perhaps on a thread that
/// outlives it.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    rule: Mutex<String>,
    bytes: AtomicU64,
    over: AtomicBool,
}

impl Notes {
    /// Whether a rule allowed it.
    pub(crate) fn is_allowed(&self) -> bool {
        let known = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        !known.is_empty()
    }

    /// Notes which rule allowed it; several are joined.
    pub(crate) fn allowed_by(&self, rule: &str) {
        let mut known = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            known.push_str(rule);
        } else if *known != rule && known.len() < 500 {
            known.push_str("; ");
            known.push_str(rule);
        } else if *known != rule && !known.ends_with(MORE) {
            known.push_str(MORE);
        }
    }

    /// Fails once nobody waits for the operation any more: long work asks now
    /// and then.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.over.load(Ordering::Relaxed) {
            return Err(Fault::Cancelled);
        }
        Ok(())
    }

    /// Notes contents moved.
    pub(crate) fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// An operation in hand. It leaves exactly one record: when it ends, or, as
/// cancelled, when it is dropped.
pub(crate) struct Running {
    session: Arc<Session>,
    operation: Operation,
    started: Instant,
    /// Nothing when no one keeps records.
    shown: Option<Shown>,
    notes: Arc<Notes>,
    /// Its service is granted.
    admitted: bool,
    ended: bool,
}

/// Serves one call, and finds out whether it began an operation, which then
/// leaves a record.
pub(crate) async fn watched<T>(
    call: impl Future<Output = T>,
    unbegun: impl FnOnce(Option<&mut T>),
) -> T {
    /// Asks when the call is given up, too.
    struct Asking<F: FnOnce(Option<&mut T>), T>(Option<F>, PhantomData<fn(T)>);
    impl<F: FnOnce(Option<&mut T>), T> Asking<F, T> {
        fn ask(&mut self, outcome: Option<&mut T>) {
            if let Some(unbegun) = self.0.take()
                && !BEGUN.try_with(Cell::get).unwrap_or(true)
            {
                unbegun(outcome);
            }
        }
    }
    impl<F: FnOnce(Option<&mut T>), T> Drop for Asking<F, T> {
        fn drop(&mut self) {
            self.ask(None);
        }
    }
    let watched = async {
        let mut asking = Asking(Some(unbegun), PhantomData);
        let mut outcome = call.await;
        asking.ask(Some(&mut outcome));
        outcome
    };
    BEGUN.scope(Cell::new(false), watched).await
}

impl Running {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn notes(&self) -> &Arc<Notes> {
        &self.notes
    }

    /// For work on threads that may outlive it.
    pub(crate) fn cx(&self) -> Cx {
        Cx {
            session: self.session.clone(),
            notes: self.notes.clone(),
        }
    }

    /// Notes which rule allowed it.
    pub(crate) fn allowed_by(&self, rule: &str) {
        self.notes.allowed_by(rule);
    }

    /// Shows more in the record than was known when it began.
    pub(crate) fn show(&mut self, argument: impl FnOnce(&mut Argument)) {
        if let Some(shown) = &mut self.shown {
            let mut more = Argument::default();
            argument(&mut more);
            let more = more.into_text();
            if !shown.argument.is_empty() && !more.is_empty() {
                shown.argument.push(' ');
            }
            shown.argument.push_str(&more);
        }
    }

    /// Counts contents that the plugin got.
    pub(crate) fn read(&self, bytes: u64) {
        self.notes.moved(bytes);
        self.session.count_read(bytes);
    }

    /// Counts contents that came from the plugin; what is written to files is
    /// reserved beforehand and not counted again.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.notes.moved(bytes);
    }

    /// Charges bytes that were moved without waiting.
    pub(crate) fn charge(&self, bytes: u64) {
        self.session.charge(bytes);
    }

    /// Records the end and makes the answer.
    pub(crate) fn finish<T>(self, outcome: Result<T, Fault>) -> Result<T, Status> {
        match outcome {
            Ok(value) => {
                self.end(None);
                Ok(value)
            }
            Err(fault) => {
                let status = fault.status(&self.operation.full_name());
                self.end(Some(&fault));
                Err(status)
            }
        }
    }

    /// Records the end.
    pub(crate) fn end(mut self, fault: Option<&Fault>) {
        self.record(fault);
    }

    fn record(&mut self, fault: Option<&Fault>) {
        self.ended = true;
        self.notes.over.store(true, Ordering::Relaxed);
        let refused = fault.is_some_and(Fault::is_refusal);
        if refused {
            self.session.usage.refused.fetch_add(1, Ordering::Relaxed);
        }
        let Some(shown) = self.shown.take() else {
            return;
        };
        let judged = match fault {
            Some(fault) if refused => (Verdict::Refused, fault.rule()),
            fault => self.allowed(fault.is_none()),
        };
        let moved = self.notes.bytes.load(Ordering::Relaxed);
        let spent = (moved, self.started.elapsed());
        let session = &self.session;
        session.tell(self.operation, shown, judged, fault, spent);
    }

    /// Whether it was allowed when it ended, and by which rule.
    fn allowed(&self, done: bool) -> (Verdict, String) {
        let mut noted = self
            .notes
            .rule
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let rule = std::mem::take(&mut *noted);
        if !rule.is_empty() {
            return (Verdict::Allowed, rule);
        }
        let by_service = self.operation.judged_by == JudgedBy::Service;
        if !self.admitted || !(done || by_service) {
            return (Verdict::Undecided, String::new());
        }
        let rule = self.operation.service.map_or_else(
            || Ok("every plugin may".to_owned()),
            |service| {
                self.session
                    .grants()
                    .service(service)
                    .map(|rule| rule.to_string())
            },
        );
        (Verdict::Allowed, rule.unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.record(Some(&Fault::Cancelled));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the plugin says about itself: for the log, never for a decision.
fn said(metadata: &MetadataMap, key: &'static str) -> String {
    match metadata.get(key) {
        None => String::new(),
        Some(value) => {
            let text = String::from_utf8_lossy(value.as_bytes());
            let quoted = Quoted(&text).to_string();
            // Quotes mark where a text ends in a sentence; here it is alone.
            quoted[1..quoted.len() - 1].to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_manifest::{Manifest, Places, Policy};

    use super::*;
    use crate::descriptors::Descriptors;
    use crate::network::NetworkService;
    use crate::process::ProcessService;
    use crate::session_service::SessionService;
    use crate::{AuditLog, GrantedServices};

    #[test]
    fn what_is_turned_away_when_the_services_are_gone_is_counted_too() {
        let manifest = Manifest::parse(
            "plugin: {name: p, format: grpc, entrypoint: p}\n\
             handshake: {protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}\n",
        );
        let places = Places::new("/nowhere/plugin", "/nowhere/data").expect("places");
        let decision = Policy::allow_requested().decide(&manifest.expect("a manifest"), &places);
        let (audit, mut records) = AuditLog::channel(1000);
        let shared = GrantedServices::new(decision.grants())
            .audit(audit)
            .shared();
        let identity = PluginIdentity::new("p", "p-1", None);
        let session = Arc::new(Session::new(Arc::new(shared), identity));
        let processes = ProcessService::new(session.clone());
        let network = NetworkService::new(session.clone(), session.shared().door.clone());
        let descriptors = Descriptors::new(&session, &processes, &network);
        let service = SessionService::new(session.clone(), descriptors);
        drop((service, processes, network));
        let operation = Operation::of_session("call");
        for _ in 0..100 {
            session.turn_away(operation, |_| {}, &Fault::Cancelled);
        }
        assert_eq!(session.usage().operations.load(Ordering::Relaxed), 0);
        drop(session);
        let (mut kept, mut more, mut last) = (0, 0, "");
        while let Some(record) = records.try_recv() {
            if let Some(told) = record.argument.split("more=").nth(1) {
                more += told.parse::<u64>().expect("a number");
            }
            kept += u64::from(record.operation == "call");
            last = record.operation;
        }
        assert_eq!((kept + more, last), (100, "turned_away"));
    }
}
