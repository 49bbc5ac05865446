//! Many plugins: found in a folder, started, watched over, started again, stopped.

mod board;
mod broker;
mod counted;
mod event;
mod generation;
mod pulse;
mod restarts;
mod retiring;
mod status;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use outrigger_host::{DispenseError, ExitReport, Interface, RunningPlugin};
use outrigger_manifest::{Manifest, Transport};
use outrigger_registry::RegistryErrorKind;
use outrigger_transport::{OwnedTask, Router};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::event::{Cause, EVENTS_KEPT, Event, EventKind, Events, Missed, ReloadStep};
pub use self::status::{PluginState, PluginStatus, StopReason};
pub use self::worker::Reloaded;

use self::board::Board;
use self::broker::CurrentBroker;
use self::event::Journal;
use self::restarts::Restarts;
use self::worker::{Command, Reply, Worker};
use crate::error::{Error, ErrorKind};
use crate::metrics::Metrics;
use crate::plugin::Plugin;
use crate::plugins::Plugins;
use crate::settings::Settings;

/// How many commands for one plugin may wait; whoever has more to say waits too.
const COMMANDS: usize = 64;

/// The plugins of a folder, of which each is started when it is needed, watched
/// over, and started again when it fails. Clones share them.
///
/// Each plugin has a task of its own, so that what one of them does keeps no other
/// from being started or called. Dropping the last clone kills all plugins;
/// [`shutdown`](Self::shutdown) asks them first.
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
    settings: Settings,
    folder: PathBuf,
    members: RwLock<BTreeMap<String, Member>>,
    /// The folders without a sound plugin.
    broken: RwLock<Vec<PluginStatus>>,
    /// One look at the folder at a time.
    scanning: tokio::sync::Mutex<()>,
    journal: Arc<Journal>,
    closed: AtomicBool,
}

/// A plugin with its task.
#[derive(Debug)]
struct Member {
    line: Line,
    held: Held,
    end_by: watch::Sender<Option<Instant>>,
    status: watch::Receiver<PluginStatus>,
    _task: OwnedTask,
}

/// What a plugin's folder held when it was looked at, as far as it tells a change.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    folder: PathBuf,
    manifest: Manifest,
    /// Which file its program is, and when that was written.
    program: Option<[i64; 6]>,
    digest: Option<String>,
}

/// What a look at the folder of the plugins found to be different.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// The plugin.
    pub plugin: String,
    /// What is different.
    pub kind: ChangeKind,
}

/// What is different about a plugin's folder.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ChangeKind {
    /// There was no such plugin. It is not started.
    Added,
    /// It holds another manifest, program or checksum. What runs goes on; the next
    /// start, or [`Host::reload`], takes what is there now.
    Changed,
    /// It holds no sound plugin any more. What runs goes on.
    Broken(Error),
    /// It is gone. The plugin was stopped.
    Removed,
}

/// The way to the task of one plugin.
#[derive(Clone, Debug)]
struct Line {
    router: Router,
    /// How long the plugin may take to make an object of net/rpc.
    start_limit: Duration,
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
        for plugin in plugins.usable() {
            let member = Member::new(plugin.clone(), &self, journal.clone());
            members.insert(plugin.name().to_owned(), member);
        }
        let broken = broken(&plugins);
        let host = Host(Arc::new(Inner {
            settings: self,
            folder: folder.as_ref().to_owned(),
            members: RwLock::new(members),
            broken: RwLock::new(broken),
            scanning: tokio::sync::Mutex::default(),
            journal,
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
        let broken = self.0.broken();
        let mut all: Vec<PluginStatus> = sound.chain(broken.iter().cloned()).collect();
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
        let broken = self.0.broken();
        let found = broken.iter().find(|status| status.name == name).cloned();
        drop(broken);
        found.ok_or_else(|| self.unknown(name))
    }

    /// Starts a plugin, unless it runs, and waits until it serves. One that is
    /// waiting to be started again after a failure is started now.
    ///
    /// # Errors
    /// Why it could not be started. If that [may pass](Error::may_pass), it is
    /// tried again meanwhile, as its [`Supervision`](crate::Supervision) says.
    ///
    /// # Cancel safety
    /// The start goes on when the future is dropped.
    pub async fn start(&self, name: &str) -> Result<(), Error> {
        self.line(name)?.start(Cause::Asked).await
    }

    /// Starts all plugins at once, each as [`start`](Self::start) does, but for those
    /// that are started when they are first called ([`lazy`](crate::Supervision::lazy)).
    ///
    /// # Cancel safety
    /// The starts go on when the future is dropped.
    pub async fn start_all(&self) -> Vec<(String, Result<(), Error>)> {
        let all = self.list().into_iter().map(|status| status.name);
        let lazy = |name: &String| self.0.settings.supervision_of(name).lazy;
        let names: Vec<String> = all.filter(|name| !lazy(name)).collect();
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

    /// Puts what a plugin's folder holds now in the place of what runs: the new
    /// process is started beside the old one and has to serve, then new calls go to
    /// it while those of the old one end ([`Supervision::drain`](crate::Supervision::drain)). The old one
    /// stays for a while ([`Supervision::rollback_within`](crate::Supervision::rollback_within)), and serves again if
    /// the new one fails. While an earlier reload still has two processes, this one
    /// waits; [`Supervision::reload`](crate::Supervision::reload) has another way for plugins of which there
    /// can be only one.
    ///
    /// A plugin that failed or is about to be started again is started with what
    /// its folder holds now; one that does not run is not started.
    ///
    /// # Errors
    /// What is wrong with what the folder holds, or why it could not be started.
    /// What ran before goes on then.
    ///
    /// # Cancel safety
    /// The reload goes on when the future is dropped.
    pub async fn reload(&self, name: &str) -> Result<Reloaded, Error> {
        let line = self.line(name)?;
        let plugin = Box::new(self.scan().await?.get(name)?.clone());
        let held = Held::by(&plugin);
        if let Some(member) = self.0.members_mut().get_mut(name) {
            member.held = held;
        }
        line.ask(|reply| Command::Reload { plugin, reply }).await?
    }

    /// Looks at the folder again. What is new is listed from now on; what is gone is
    /// stopped; what runs and has changed goes on until it is reloaded or restarted.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Folder`](crate::RegistryErrorKind::Folder).
    ///
    /// # Cancel safety
    /// When the future is dropped, a part of the changes may be known already, and
    /// is not reported again.
    pub async fn rescan(&self) -> Result<Vec<Change>, Error> {
        let _one_at_a_time = self.0.scanning.lock().await;
        let found = self.scan().await?;
        let (mut changes, mut installs) = (Vec::new(), Vec::new());
        let mut change = |plugin: &str, kind| {
            let plugin = plugin.to_owned();
            changes.push(Change { plugin, kind });
        };
        let mut removed = BTreeMap::new();
        let broken = broken(&found);
        {
            let mut members = self.0.members_mut();
            for plugin in found.usable() {
                let (name, held) = (plugin.name(), Held::by(plugin));
                match members.get_mut(name) {
                    None => {
                        let journal = self.0.journal.clone();
                        let member = Member::new(plugin.clone(), &self.0.settings, journal);
                        members.insert(name.to_owned(), member);
                        change(name, ChangeKind::Added);
                    }
                    Some(member) if member.held != held => {
                        member.held = held;
                        installs.push((member.line.clone(), Box::new(plugin.clone())));
                        change(name, ChangeKind::Changed);
                    }
                    Some(_) => {}
                }
            }
            let is_gone = |name: &str, member: &Member| {
                let is_here = |status: &PluginStatus| {
                    status.name == name || status.folder == member.held.folder
                };
                found.get(name).is_err() && !broken.iter().any(is_here)
            };
            let gone = members
                .iter()
                .filter(|(name, member)| is_gone(name, member));
            let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
            for name in gone {
                change(&name, ChangeKind::Removed);
                removed.extend(members.remove_entry(&name));
            }
            let mut known = self.0.broken_mut();
            for status in &broken {
                let PluginState::Broken(error) = &status.state else {
                    continue;
                };
                let is_same = |was: &&PluginStatus| {
                    was.folder == status.folder && was.state.to_string() == status.state.to_string()
                };
                if known.iter().find(is_same).is_none() {
                    change(&status.name, ChangeKind::Broken(error.clone()));
                }
            }
            *known = broken;
        }
        for (line, plugin) in installs {
            line.tell(Command::Install { plugin }).await?;
        }
        let stops = removed
            .values()
            .map(|member| member.line.stop(Cause::Removed, None));
        join_all(stops).await;
        Ok(changes)
    }

    /// What the folder holds now.
    async fn scan(&self) -> Result<Plugins, Error> {
        let (settings, folder) = (self.0.settings.clone(), self.0.folder.clone());
        let scan = tokio::task::spawn_blocking(move || settings.open(folder));
        // Only the end of the runtime keeps it from being done.
        scan.await
            .unwrap_or_else(|_| Err(ErrorKind::ShutDown.into()))
    }

    /// A typed client for the interface `I` of a plugin, which is started if
    /// nobody has stopped it.
    ///
    /// It goes on over restarts and reloads: a call
    /// goes to the process that serves then, waits while there is none, for as long
    /// as its own deadline or 60 s, and starts a plugin that ended by itself. It
    /// fails with `UNAVAILABLE` where that is of no use: `plugin-stopped`,
    /// `plugin-failed` (see [`RouteError`](outrigger_transport::RouteError)). Its
    /// broker is that of the process that serves then.
    ///
    /// A net/rpc plugin is asked for its object by the first call in each process.
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
        let broker = Arc::new(CurrentBroker::new(line.serving.clone(), &plugin));
        let transport = plugin.transport();
        let serves = I::NAME.unwrap_or(name);
        let client = match transport {
            Transport::Grpc => I::grpc(line.router.channel(), broker),
            Transport::NetRpc => I::netrpc(line.router.object(serves, line.start_limit), broker),
        };
        client.map_err(|_| {
            ErrorKind::Dispense(DispenseError::Transport {
                plugin: name.to_owned(),
                name: serves.to_owned(),
                transport,
                interface: std::any::type_name::<I>(),
            })
            .into()
        })
    }

    /// What is counted of the plugins.
    pub fn metrics(&self) -> &Metrics {
        self.0.settings.counts()
    }

    /// Typed clients of all plugins whose manifest's `type` is one that the application
    /// [registered](Settings::plugin_type) for `I`, by name; each is started as
    /// [`client`](Self::client) does it.
    ///
    /// # Cancel safety
    /// The starts go on when the future is dropped.
    pub async fn of_type<I: Interface>(&self) -> Vec<(String, Result<I::Client, Error>)> {
        let all = self.list().into_iter();
        let named = all.filter(|status| self.0.settings.types().is::<I>(status.kind.as_deref()));
        let clients = named.map(|status| async move {
            let client = self.client::<I>(&status.name).await;
            (status.name, client)
        });
        join_all(clients).await
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

impl Inner {
    fn members_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Member>> {
        let members = self.members.write();
        members.unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self) -> RwLockReadGuard<'_, Vec<PluginStatus>> {
        self.broken.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken_mut(&self) -> RwLockWriteGuard<'_, Vec<PluginStatus>> {
        self.broken.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn by(plugin: &Plugin) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let program = plugin.program().ok();
        let digest = program.as_ref().and_then(|program| {
            let digest = plugin.expected_digest(program).ok()??;
            Some(digest.to_string())
        });
        let seen = program.and_then(|program| std::fs::metadata(program).ok());
        Self {
            folder: plugin.places().plugin_dir().to_owned(),
            manifest: plugin.manifest().clone(),
            program: seen.map(|seen| {
                [
                    seen.dev().cast_signed(),
                    seen.ino().cast_signed(),
                    seen.size().cast_signed(),
                    seen.mtime(),
                    seen.mtime_nsec(),
                    seen.ctime_nsec(),
                ]
            }),
            digest,
        }
    }
}

impl Member {
    fn new(plugin: Plugin, settings: &Settings, journal: Arc<Journal>) -> Self {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (end_by, must_end) = watch::channel(None);
        let (serves, serving) = watch::channel(None);
        let board = Arc::new(Board::new(&plugin, journal));
        let status = board.watch();
        let rules = settings.supervision_of(plugin.name());
        let router = Router::for_plugin(plugin.name());
        router.mark_safe(rules.safe_methods.clone());
        router.observe(settings.counts().calls_to(plugin.name()));
        let start_limit = rules.deadlines.start;
        let held = Held::by(&plugin);
        let worker = Worker {
            rules,
            plugin,
            router: router.clone(),
            starts: 0,
            reloading: None,
            old: None,
            commands,
            end_by: must_end,
            board,
            serving: serves,
            restarts: Restarts::default(),
            waiting: Vec::new(),
        };
        Self {
            held,
            line: Line {
                router,
                start_limit,
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
        self.tell(command(reply)).await?;
        answer.await.map_err(|_| ErrorKind::ShutDown.into())
    }

    async fn tell(&self, command: Command) -> Result<(), Error> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| ErrorKind::ShutDown.into())
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
            kind: None,
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
