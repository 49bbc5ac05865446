//! Many plugins: found in a folder, started, watched over, started again, stopped.

mod board;
mod counted;
mod event;
mod pulse;
mod restarts;
mod status;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use outrigger_host::{ExitReport, Interface, RunningPlugin};
use outrigger_registry::RegistryErrorKind;
use outrigger_transport::OwnedTask;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::event::{Cause, EVENTS_KEPT, Event, EventKind, Events, Missed};
pub use self::status::{PluginState, PluginStatus, StopReason};

use self::board::Board;
use self::event::Journal;
use self::restarts::Restarts;
use self::worker::{Command, Reply, Worker};
use crate::error::{Error, ErrorKind};
use crate::metrics::Metrics;
use crate::plugin::Plugin;
use crate::plugins::{Entry, Plugins};
use crate::settings::Settings;

/// How many commands for one plugin may wait; whoever has more to say waits too.
const COMMANDS: usize = 64;

/// The plugins of a folder, of which each is started when it is needed, watched
/// over, and started again when it fails. Clones share them.
///
/// Each plugin has a task of its own, so that what one of them does delays no
/// other. Dropping the last clone kills all plugins; [`shutdown`](Self::shutdown)
/// asks them first.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// use outrigger::{Policy, Settings, grpc_interface};
/// # mod proto {
/// #     pub struct GreeterClient<T>(T);
/// #     impl<T> GreeterClient<T> {
/// #         pub fn new(inner: T) -> Self { Self(inner) }
/// #         pub fn max_decoding_message_size(self, _: usize) -> Self { self }
/// #     }
/// # }
///
/// grpc_interface! {
///     /// Greets people. tonic generated its client.
///     Greeter => proto::GreeterClient, "greeter"
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let host = Settings::new().policy(Policy::allow_requested()).host("plugins").await?;
/// let mut events = host.events();
/// let greeter = host.client::<Greeter>("greeter").await?; // starts it
/// for plugin in host.list() {
///     println!("{} {}", plugin.name, plugin.state);
/// }
/// while let Some(event) = events.next().await {
///     println!("{}", event?);
/// }
/// # drop(greeter);
/// host.shutdown(Duration::from_secs(10)).await;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    members: RwLock<BTreeMap<String, Member>>,
    /// The folders without a sound plugin.
    broken: Vec<PluginStatus>,
    journal: Arc<Journal>,
    metrics: Metrics,
    closed: AtomicBool,
}

/// A plugin with its task.
#[derive(Debug)]
struct Member {
    line: Line,
    end_by: watch::Sender<Option<Instant>>,
    status: watch::Receiver<PluginStatus>,
    _task: OwnedTask,
}

/// The way to the task of one plugin.
#[derive(Clone, Debug)]
struct Line {
    commands: mpsc::Sender<Command>,
    serving: watch::Receiver<Option<Arc<RunningPlugin>>>,
}

/// How the plugins of a host ended.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Those that had run, by name, with their last end.
    pub exits: BTreeMap<String, ExitReport>,
}

impl ShutdownReport {
    /// The names of those that did not end by themselves when they were asked to.
    pub fn killed(&self) -> impl Iterator<Item = &str> {
        let killed = self.exits.iter().filter(|(_, exit)| exit.forced);
        killed.map(|(name, _)| name.as_str())
    }
}

impl Settings {
    /// Watches over the plugins in the folders of `folder`: see [`Host`]. None is
    /// started.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Folder`](crate::RegistryErrorKind::Folder). A folder without a sound plugin is a
    /// [`PluginState::Broken`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn host(self, folder: impl AsRef<Path>) -> Result<Host, Error> {
        let journal = Arc::new(Journal::new());
        let plugins = self.open(folder.as_ref())?;
        let mut members = BTreeMap::new();
        for plugin in sound(&plugins) {
            let member = Member::new(plugin.clone(), &self, journal.clone());
            members.insert(plugin.name().to_owned(), member);
        }
        let broken = broken(&plugins);
        let host = Host(Arc::new(Inner {
            folder: folder.as_ref().to_owned(),
            members: RwLock::new(members),
            broken,
            journal,
            metrics: self.counts().clone(),
            closed: AtomicBool::new(false),
        }));
        let inner = Arc::downgrade(&host.0);
        let list = move || Some(Host(inner.upgrade()?).list());
        counted::count(host.metrics(), host.events(), list);
        Ok(host)
    }
}

impl Host {
    /// The folder with the folders of the plugins.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// All plugins, by name, and the folders that hold no sound one.
    pub fn list(&self) -> Vec<PluginStatus> {
        let members = self.0.members();
        let sound = members
            .values()
            .map(|member| member.status.borrow().clone());
        let mut all: Vec<PluginStatus> = sound.chain(self.0.broken.iter().cloned()).collect();
        all.sort_by(|one, other| (&one.name, &one.folder).cmp(&(&other.name, &other.folder)));
        all
    }

    /// One plugin.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unknown`](crate::RegistryErrorKind::Unknown).
    pub fn status(&self, name: &str) -> Result<PluginStatus, Error> {
        if let Some(member) = self.0.members().get(name) {
            return Ok(member.status.borrow().clone());
        }
        let mut broken = self.0.broken.iter();
        let broken = broken.find(|status| status.name == name);
        broken.cloned().ok_or_else(|| self.unknown(name))
    }

    /// Starts a plugin, unless it runs, and waits until it serves. One that is
    /// waiting to be started again after a failure is started now.
    ///
    /// # Errors
    /// Why it could not be started. If that [may pass](Error::may_pass), it is
    /// tried again meanwhile, as its [`Supervision`] says.
    ///
    /// # Cancel safety
    /// The start goes on when the future is dropped.
    pub async fn start(&self, name: &str) -> Result<(), Error> {
        self.line(name)?.start(Cause::Asked).await
    }

    /// Starts all plugins at once, each as [`start`](Self::start) does.
    ///
    /// # Cancel safety
    /// The starts go on when the future is dropped.
    pub async fn start_all(&self) -> Vec<(String, Result<(), Error>)> {
        let names: Vec<String> = self.list().into_iter().map(|status| status.name).collect();
        let starts = names.into_iter().map(|name| async move {
            let started = self.start(&name).await;
            (name, started)
        });
        join_all(starts).await
    }

    /// Stops a plugin, and keeps it so: no call starts it, until somebody does.
    /// Returns how it ended, now or before; nothing if it never ran.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unknown`](crate::RegistryErrorKind::Unknown), or what is wrong with its folder.
    ///
    /// # Cancel safety
    /// The plugin is stopped also when the future is dropped.
    pub async fn stop(&self, name: &str) -> Result<Option<ExitReport>, Error> {
        self.line(name)?.stop(Cause::Asked, None).await
    }

    /// Stops a plugin if it runs, forgets how often it failed, and starts it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Cancel safety
    /// The plugin is restarted also when the future is dropped.
    pub async fn restart(&self, name: &str) -> Result<(), Error> {
        let restart = |reply| Command::Restart { reply };
        self.line(name)?.ask(restart).await?
    }

    /// A typed client for the interface `I` of a plugin, which is started if
    /// nobody has stopped it.
    ///
    /// # Errors
    /// Why it could not be started; [`ErrorKind::Stopped`],
    /// [`ErrorKind::Failed`], and [`ErrorKind::Dispense`].
    ///
    /// # Cancel safety
    /// The start goes on when the future is dropped.
    pub async fn client<I: Interface>(&self, name: &str) -> Result<I::Client, Error> {
        let line = self.line(name)?;
        let plugin = line.called().await?;
        let client = plugin.client::<I>().await;
        client.map_err(|error| ErrorKind::Dispense(error).into())
    }

    /// What is counted of the plugins.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        self.0.journal.events()
    }

    /// Stops all plugins, and starts none any more. What is left after `within`
    /// is killed. Called again, with less time, it hurries the first call.
    ///
    /// # Cancel safety
    /// Plugins that were asked to end do so.
    pub async fn shutdown(&self, within: Duration) -> ShutdownReport {
        self.0.closed.store(true, Ordering::Release);
        let deadline = Instant::now() + within;
        let lines: Vec<(String, Line)> = {
            let members = self.0.members();
            for member in members.values() {
                member.end_by(deadline);
            }
            let lines = members.iter();
            lines
                .map(|(name, member)| (name.clone(), member.line.clone()))
                .collect()
        };
        let stops = lines.into_iter().map(|(name, line)| async move {
            let left = deadline.saturating_duration_since(Instant::now());
            let report = line.stop(Cause::Shutdown, Some(left)).await;
            Some((name, report.ok()??))
        });
        let exits = join_all(stops).await;
        ShutdownReport {
            exits: exits.into_iter().flatten().collect(),
        }
    }

    fn line(&self, name: &str) -> Result<Line, Error> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(ErrorKind::ShutDown.into());
        }
        if let Some(member) = self.0.members().get(name) {
            return Ok(member.line.clone());
        }
        match self.status(name)?.state {
            PluginState::Broken(error) => Err(error),
            // It was added this moment.
            _ => self.line(name),
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let mut known: Vec<String> = self.list().into_iter().map(|status| status.name).collect();
        known.dedup();
        RegistryErrorKind::Unknown {
            name: name.to_owned(),
            known,
        }
        .into()
    }
}

impl Inner {
    fn members(&self) -> RwLockReadGuard<'_, BTreeMap<String, Member>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn new(plugin: Plugin, settings: &Settings, journal: Arc<Journal>) -> Self {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (end_by, must_end) = watch::channel(None);
        let (serves, serving) = watch::channel(None);
        let board = Board::new(&plugin, journal);
        let status = board.watch();
        let worker = Worker {
            rules: settings.supervision_of(plugin.name()),
            plugin,
            commands,
            end_by: must_end,
            board,
            serving: serves,
            restarts: Restarts::default(),
            waiting: Vec::new(),
        };
        Self {
            line: Line {
                commands: sender,
                serving,
            },
            end_by,
            status,
            _task: OwnedTask::spawn(worker.run()),
        }
    }

    /// The plugin must be gone by then, if not before.
    fn end_by(&self, deadline: Instant) {
        self.end_by.send_if_modified(|end_by| {
            let is_sooner = end_by.is_none_or(|known| deadline < known);
            if is_sooner {
                *end_by = Some(deadline);
            }
            is_sooner
        });
    }
}

impl Line {
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let over = || Error::from(ErrorKind::ShutDown);
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_| over())?;
        answer.await.map_err(|_| over())
    }

    async fn start(&self, why: Cause) -> Result<(), Error> {
        self.ask(|reply| Command::Start { why, reply }).await?
    }

    async fn stop(
        &self,
        why: Cause,
        within: Option<Duration>,
    ) -> Result<Option<ExitReport>, Error> {
        self.ask(|reply| Command::Stop { why, within, reply }).await
    }

    /// The plugin as it serves, started if it may be.
    async fn called(&self) -> Result<Arc<RunningPlugin>, Error> {
        loop {
            let serving = self.serving.borrow().clone();
            match serving {
                Some(plugin) => return Ok(plugin),
                // When it ended at once, the next answer says why.
                None => self.start(Cause::Called).await?,
            }
        }
    }
}

/// The plugins that can be used: of several versions, the one that is to be.
fn sound(plugins: &Plugins) -> impl Iterator<Item = &Plugin> {
    let mut names: Vec<&str> = plugins.entries().iter().map(Entry::name).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter_map(|name| plugins.get(name).ok())
}

/// The folders that hold no plugin that can be used.
fn broken(plugins: &Plugins) -> Vec<PluginStatus> {
    let broken = plugins.entries().iter().filter_map(|entry| {
        let error = match (entry.plugin(), plugins.get(entry.name())) {
            (Err(error), _) => error.clone(),
            // Another version of it than is pinned or required.
            (Ok(_), Err(error)) => error,
            (Ok(_), Ok(_)) => return None,
        };
        Some(PluginStatus {
            name: entry.name().to_owned(),
            version: None,
            folder: entry.folder().to_owned(),
            transport: None,
            state: PluginState::Broken(error),
            since: SystemTime::now(),
            generation: 0,
            pid: None,
            restarts: 0,
            digest: None,
            reattach: None,
            last_exit: None,
        })
    });
    broken.collect()
}
