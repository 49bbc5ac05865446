//! One plugin's connection: under which terms it runs, what it holds, and what it
//! has used up.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use outrigger_manifest::Grants;
use outrigger_transport::PluginIdentity;
use tokio::sync::Semaphore;

use crate::audit::{AuditLog, Verdict};
use crate::fault::Fault;
use crate::leases::{Lease, Leased, Leases, Slot};
use crate::limits::Limits;
use crate::operation::AskedOf;
use crate::rate::Bucket;
use crate::record::Recorder;

/// Threads of this process that may wait for the system on behalf of plugins,
/// whatever their number: fewer than the runtime has.
const WAITING_THREADS: usize = 128;
static THREADS: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(WAITING_THREADS)));

/// Under which terms the operations of a connection run: the same for all
/// connections of one plugin.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) grants: Grants,
    pub(crate) limits: Limits,
    pub(crate) audit: AuditLog,
    /// The digest of the plugin's program.
    pub(crate) digest: Option<Arc<str>>,
    pub(crate) decided: Decided,
}

/// Who is told of each decision, if anybody is.
#[derive(Clone, Default)]
pub(crate) struct Decided(pub(crate) Option<Arc<OnDecision>>);

pub(crate) type OnDecision = dyn Fn(&'static str, Verdict) + Send + Sync;

impl std::fmt::Debug for Decided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Decided").field(&self.0.is_some()).finish()
    }
}

/// One plugin's connection: dropped with it, and with everything it holds.
pub(crate) struct Session {
    terms: Arc<Terms>,
    identity: PluginIdentity,
    recorder: Recorder,
    leases: Leases,
    sweeping: AtomicBool,
    operations: Bucket,
    bytes: Bucket,
    usage: Usage,
    blocking: Arc<Semaphore>,
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
    pub(crate) fn new(terms: Arc<Terms>, identity: PluginIdentity) -> Self {
        let (limits, now) = (&terms.limits, Instant::now());
        Self {
            recorder: Recorder::new(&terms.audit, terms.digest.as_ref(), &identity),
            leases: Leases::new(limits.leases),
            sweeping: AtomicBool::new(false),
            operations: Bucket::new(limits.operations_per_second.into(), now),
            bytes: Bucket::new(limits.bytes_per_second, now),
            usage: Usage::default(),
            blocking: Arc::new(Semaphore::new(limits.blocking.min(Semaphore::MAX_PERMITS))),
            identity,
            terms,
        }
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.terms.grants
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.terms.limits
    }

    /// Who is told of each decision.
    pub(crate) fn on_decision(&self) -> Option<&OnDecision> {
        self.terms.decided.0.as_deref()
    }

    pub(crate) fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Room for one more lease.
    pub(crate) fn slot(&self) -> Result<Slot, Fault> {
        self.leases.slot()
    }

    /// Keeps `value` and names it. It is dropped when the plugin gives it back,
    /// when it was not used for `lease_idle`, or with the connection.
    pub(crate) fn lend<T: Lease>(
        self: &Arc<Self>,
        slot: Slot,
        value: T,
    ) -> (String, Arc<Leased<T>>) {
        let lent = self.leases.lend(slot, value);
        self.sweep();
        lent
    }

    /// What `lease` names on this connection, if it is of that kind.
    pub(crate) fn lease<T: Lease>(&self, lease: &str) -> Result<Arc<Leased<T>>, Fault> {
        self.leases.get(lease)
    }

    /// Takes back what `lease` names on this connection.
    pub(crate) fn give_back<T: Lease>(&self, lease: &str) -> Result<Arc<Leased<T>>, Fault> {
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
                        // A lease may have been lent after the last look.
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

    /// Checks that a service of the host is granted, and that the plugin is not too fast.
    pub(crate) fn admit(&self, asked: AskedOf) -> Result<(), Fault> {
        match asked {
            AskedOf::Host(service) => drop(self.grants().service(service)?),
            AskedOf::Session | AskedOf::Application => {}
        }
        let rate = self.limits().operations_per_second;
        let late = |after| Fault::Exhausted {
            code: "rate-limited",
            text: format!("more than {rate} operations per second (`operations_per_second`)"),
            after: Some(after),
        };
        self.operations.take(1, Instant::now()).map_err(late)
    }

    /// Runs `work` on a thread that may wait, within `call_timeout`.
    ///
    /// A plugin never has more than `blocking` such threads, and all plugins
    /// together fewer than the runtime has: work that is given up keeps its
    /// place until the system lets go of it.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let run = async {
            let own = self.blocking.clone().acquire_owned().await;
            let shared = THREADS.clone().acquire_owned().await;
            let permits = (
                own.map_err(|_| Fault::Broken)?,
                shared.map_err(|_| Fault::Broken)?,
            );
            let work = tokio::task::spawn_blocking(move || {
                let outcome = work();
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
