//! Joining a plugin that runs already.

use std::sync::Arc;
use std::time::Instant;

use outrigger_transport::{
    AddressTranslator, BrokerOptions, ConnectError, SameAddress, Security, Side, Tls,
};
use outrigger_wire::HandshakeLine;

use crate::aside::Aside;
use crate::connected::{Connected, Timings};
use crate::connection::Dial;
use crate::error::{LaunchError, LaunchErrorKind};
use crate::managed;
use crate::owned_process::{Output, OwnedProcess};
use crate::plugin::RunningPlugin;
use crate::reattach::{Nobody, Reattach, Visited};
use crate::runner::AttachedRunner;
use crate::set::PluginSet;
use crate::settings::{Settings, settings_methods};

/// How to join a plugin that runs already, such as one that another host started
/// or a developer runs in a debugger.
///
/// What only a launch can decide has no place here: the plugin's arguments and
/// environment, its digest, AutoMTLS and the multiplexed broker. go-plugin refuses
/// these at run time; here they do not compile:
///
/// ```compile_fail,E0599
/// # fn example(reattach: outrigger_host::Reattach) {
/// let _ = outrigger_host::Attach::new(reattach).auto_mtls();
/// # }
/// ```
/// ```compile_fail,E0599
/// # fn example(reattach: outrigger_host::Reattach) {
/// let _ = outrigger_host::Attach::new(reattach).mux_broker();
/// # }
/// ```
/// ```compile_fail,E0599
/// # fn example(reattach: outrigger_host::Reattach, digest: outrigger_host::ExpectedDigest) {
/// let _ = outrigger_host::Attach::new(reattach).expect_digest(digest);
/// # }
/// ```
///
/// # Examples
/// ```no_run
/// use outrigger_host::{Attach, PluginSet, Reattach};
///
/// # async fn example(reattach: Reattach) -> Result<(), outrigger_host::LaunchError> {
/// let plugin = Attach::new(reattach)
///     .offer(1, PluginSet::new())
///     .connect()
///     .await?;
/// // … call it …
/// plugin.leave(); // it runs on; `stop` would end it
/// # Ok(()) }
/// ```
#[must_use = "nobody is joined before `connect`"]
pub struct Attach {
    settings: Settings,
    reattach: Reattach,
    process: Option<Arc<dyn AttachedRunner>>,
    security: Security,
}

impl std::fmt::Debug for Attach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attach")
            .field("name", &self.name())
            .field("reattach", &self.reattach)
            .finish_non_exhaustive()
    }
}

settings_methods!(Attach);

impl Attach {
    /// Joins the plugin that `reattach` describes, without TLS unless
    /// [told](Self::tls).
    pub fn new(reattach: Reattach) -> Self {
        Self {
            settings: Settings::default(),
            reattach,
            process: None,
            security: Security::None,
        }
    }

    /// Watches and ends the plugin through a runner of your own; through the
    /// process id of `Reattach` otherwise, where that is known.
    pub fn runner(mut self, process: Arc<dyn AttachedRunner>) -> Self {
        self.process = Some(process);
        self
    }

    /// Protects all connections with certificates that the plugin has too.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.security = Security::Tls(tls);
        self
    }

    fn name(&self) -> String {
        let name = self.settings.name.clone();
        name.unwrap_or_else(|| self.reattach.address.to_string())
    }

    /// Connects to the plugin.
    ///
    /// # Errors
    /// [`LaunchErrorKind::ProcessNotFound`] if there is no such process, or if
    /// nothing listens at its address; [`LaunchErrorKind::Connect`] if something
    /// else answers there; [`LaunchErrorKind::Workspace`] and
    /// [`LaunchErrorKind::Untranslatable`]. The plugin runs on.
    ///
    /// # Cancel safety
    /// When the future is dropped, the plugin runs on.
    pub async fn connect(self) -> Result<RunningPlugin, LaunchError> {
        let (name, is_managed) = (self.name(), self.settings.managed);
        let connected = self.connected(name.clone()).await;
        let plugin = connected.map_err(|kind| LaunchError::new(&name, kind))?;
        let plugin = RunningPlugin::new(plugin);
        if is_managed {
            managed::register(&plugin);
        }
        Ok(plugin)
    }

    async fn connected(mut self, name: String) -> Result<Connected, LaunchErrorKind> {
        let Reattach {
            transport, version, ..
        } = self.reattach;
        let process = self.process()?;
        let translator = self.settings.translator.clone();
        let translator: Arc<dyn AddressTranslator> = translator.unwrap_or(Arc::new(SameAddress));
        let address = translator.plugin_to_host(self.reattach.address.clone());
        let address = address.map_err(LaunchErrorKind::Untranslatable)?;
        let places = self.settings.places().map_err(LaunchErrorKind::Workspace)?;
        // Of its environment nothing is known.
        places.announced(&address, |_| None);
        let line = HandshakeLine {
            app_version: version,
            address: self.reattach.address.clone(),
            transport,
            certificate: None,
            mux: None,
        };
        let mirror = std::mem::take(self.settings.mirror());
        let settings = &self.settings;
        let began = Instant::now();
        let dial = Dial {
            address,
            transport,
            mux: false,
            limit: settings.deadlines.connect,
            max_value: settings.max_value,
            broker: BrokerOptions {
                security: self.security,
                sockets: settings.sockets(line.address.network, Some(places.dir())),
                translator: translator.clone(),
                wait: settings.deadlines.broker,
                ..BrokerOptions::new(Side::Host)
            },
        };
        let (link, tasks) = dial.connect(mirror).await.map_err(|error| match error {
            ConnectError::Socket { .. } => LaunchErrorKind::ProcessNotFound,
            error => LaunchErrorKind::Connect(error),
        })?;
        let set = match (settings.set(version), settings.versions.len()) {
            (Some(set), _) => set,
            // The configuration names no version: it is the only one that the host offers.
            (None, 1) => settings
                .versions
                .values()
                .next()
                .cloned()
                .unwrap_or_default(),
            (None, _) => PluginSet::new(),
        };
        Ok(Connected {
            name,
            set,
            line,
            link,
            tasks,
            translator,
            deadlines: settings.deadlines,
            timings: Timings {
                connect: began.elapsed(),
                ..Timings::default()
            },
            held: OwnedProcess::new(process, Aside::new(places), Output::default(), began),
            visiting: Some(self.reattach),
        })
    }

    /// A hold on the process, taken before its address is found alive.
    fn process(&mut self) -> Result<Arc<dyn AttachedRunner>, LaunchErrorKind> {
        match (self.process.take(), self.reattach.pid) {
            (Some(process), _) => Ok(process),
            (None, Some(pid)) if !self.reattach.test => {
                let visited = Visited::find(pid, self.reattach.started);
                let visited = visited.map_err(|_| LaunchErrorKind::ProcessNotFound)?;
                Ok(Arc::new(visited))
            }
            (None, _) => Ok(Arc::new(Nobody)),
        }
    }
}
