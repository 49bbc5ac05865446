//! What a router and its channels share: the current generation, and who waits for one.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use super::error::RouteError;
use super::safe::SafeMethods;
use super::switch::{Generation, Point, Switch};
use crate::channel::Life;
use crate::connection::Connection;
use crate::fate::Fate;
use crate::observe::CallObserver;

/// Calls that may wait for a generation at the same time.
const MAX_WAITING: usize = 1024;

/// How long a call without a deadline waits for a generation.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where calls go now; shared by a router and its channels.
#[derive(Debug)]
pub(super) struct Route {
    plugin: String,
    switch: Switch<Target, RouteError>,
    turned: Notify,
    waiting: AtomicUsize,
    /// How many calls entered a generation.
    calls: AtomicU64,
    wanted: Notify,
    /// The number of the next generation.
    next: AtomicU64,
    safe: Mutex<Arc<SafeMethods>>,
    pub(super) life: Life,
    ending: Mutex<Option<DropGuard>>,
    pub(super) observer: OnceLock<Arc<dyn CallObserver>>,
}

/// What the calls of one generation go to.
#[derive(Debug)]
pub(super) struct Target {
    number: u64,
    connection: Connection,
    safe: Arc<SafeMethods>,
    /// Nobody is in it, and nobody will be.
    left: Notify,
    /// Whether its calls are cut off.
    is_cut: AtomicBool,
    cut: Notify,
}

impl Route {
    /// Calls wait at first. `plugin` is what errors call it.
    pub(super) fn new(plugin: String) -> Self {
        let life = Life::new(Fate::new());
        Self {
            plugin,
            switch: Switch::new(),
            turned: Notify::new(),
            waiting: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            wanted: Notify::new(),
            next: AtomicU64::new(1),
            safe: Mutex::default(),
            ending: Mutex::new(Some(life.end_with())),
            observer: OnceLock::new(),
            life,
        }
    }

    pub(super) fn plugin(&self) -> &str {
        &self.plugin
    }

    pub(super) fn mark_safe(&self, methods: SafeMethods) {
        *self.safe.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(methods);
    }

    pub(super) fn to(&self, connection: Connection) -> Option<Left> {
        let safe = self
            .safe
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.turn(Point::to(Target {
            number: self.next.fetch_add(1, Ordering::AcqRel),
            connection,
            safe,
            left: Notify::new(),
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
        }))
    }

    pub(super) fn nowhere(&self) -> Option<Left> {
        self.turn(Point::Nowhere)
    }

    pub(super) fn refuse(&self, why: RouteError) -> Option<Left> {
        self.turn(Point::Refused(Arc::new(why)))
    }

    /// Nobody routes any more: calls fail from now on.
    pub(super) fn end(&self, why: &str) -> Option<Left> {
        let mut unended = self.unended();
        let ending = unended.take()?;
        self.life.explain_end(why);
        let left = self.turn_now(Point::Refused(Arc::new(RouteError::over(&self.plugin))));
        drop(ending);
        left
    }

    /// What ends the route when it is taken, and keeps what is over from being turned.
    fn unended(&self) -> MutexGuard<'_, Option<DropGuard>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, to: Point<Target, RouteError>) -> Option<Left> {
        let unended = self.unended();
        unended.as_ref()?;
        self.turn_now(to)
    }

    fn turn_now(&self, to: Point<Target, RouteError>) -> Option<Left> {
        let generation = self.switch.turn(to);
        self.turned.notify_waiters();
        let generation = generation?;
        generation.target.left.notify_waiters();
        Some(Left(generation))
    }

    /// Enters the current generation, if there is one now.
    ///
    /// # Errors
    /// Calls are refused.
    pub(super) fn entered(&self) -> Result<Option<Entered>, RouteError> {
        match self.switch.enter() {
            Point::To(generation) => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                Ok(Some(Entered(generation)))
            }
            Point::Nowhere => Ok(None),
            Point::Refused(why) => Err((*why).clone()),
        }
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> usize {
        match self.switch.now() {
            Point::To(generation) => generation.gate.inside(),
            Point::Nowhere | Point::Refused(_) => 0,
        }
    }

    /// Waits until a call waits for a generation.
    pub(super) async fn wanted(&self) {
        loop {
            let mut wanted = std::pin::pin!(self.wanted.notified());
            wanted.as_mut().enable();
            if self.waiting.load(Ordering::Acquire) > 0 {
                return;
            }
            wanted.await;
        }
    }

    /// Waits for a generation, which has not the number `last`, and enters it.
    ///
    /// # Errors
    /// None came before `deadline`, or calls are refused.
    pub(super) async fn wait(
        &self,
        deadline: Option<Instant>,
        last: Option<u64>,
    ) -> Result<Entered, RouteError> {
        let _waiting = Waiting::begin(self)?;
        let begun = Instant::now();
        let deadline = deadline.unwrap_or(begun + PATIENCE);
        loop {
            let turned = self.turned.notified();
            let mut turned = std::pin::pin!(turned);
            turned.as_mut().enable();
            let entered = self.entered()?;
            if let Some(entered) = entered.filter(|entered| Some(entered.number()) != last) {
                return Ok(entered);
            }
            if tokio::time::timeout_at(deadline, turned).await.is_err() {
                return Err(RouteError::starting(&self.plugin, begun.elapsed()));
            }
        }
    }
}

/// One of the calls that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(route: &'a Route) -> Result<Self, RouteError> {
        let waiting = Self(&route.waiting);
        match waiting.0.fetch_add(1, Ordering::AcqRel) {
            MAX_WAITING.. => Err(RouteError::crowded(&route.plugin, MAX_WAITING)),
            _ => {
                route.wanted.notify_waiters();
                Ok(waiting)
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One call in a generation, from its beginning to the end of its reply.
#[derive(Debug)]
pub(super) struct Entered(Arc<Generation<Target>>);

impl Entered {
    pub(super) fn connection(&self) -> &Connection {
        &self.0.target.connection
    }

    pub(super) fn safe_methods(&self) -> &SafeMethods {
        &self.0.target.safe
    }

    /// Which generation that is; a later one has a higher number.
    pub(super) fn number(&self) -> u64 {
        self.0.target.number
    }

    /// Whether the calls of this generation are cut off.
    pub(super) fn is_cut(&self) -> bool {
        self.0.target.is_cut.load(Ordering::Acquire)
    }

    /// Waits until they are.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) fn cut(&self) -> impl Future<Output = ()> + Send + use<> {
        let generation = self.0.clone();
        async move {
            let target = &generation.target;
            let mut cut = std::pin::pin!(target.cut.notified());
            cut.as_mut().enable();
            if !target.is_cut.load(Ordering::Acquire) {
                cut.await;
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.gate.leave() {
            self.0.target.left.notify_waiters();
        }
    }
}

/// A generation, without being counted in it.
#[derive(Debug)]
pub(super) struct Left(Arc<Generation<Target>>);

impl Left {
    pub(super) fn in_flight(&self) -> usize {
        self.0.gate.inside()
    }

    /// Waits until nobody is in it, and nobody will be.
    pub(super) async fn empty(&self) {
        loop {
            let mut left = std::pin::pin!(self.0.target.left.notified());
            left.as_mut().enable();
            if self.0.gate.is_left() {
                return;
            }
            left.await;
        }
    }

    /// Ends the calls that are in it.
    pub(super) fn cut(&self) {
        self.0.target.is_cut.store(true, Ordering::Release);
        self.0.target.cut.notify_waiters();
    }
}
