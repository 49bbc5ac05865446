//! What launching a plugin and attaching to one have in common.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_transport::{AddressTranslator, MAX_VALUE, Sockets};
use outrigger_wire::{AppProtocolVersion, Network};

use crate::connection::Mirror;
use crate::deadlines::Deadlines;
use crate::set::PluginSet;
use crate::workspace::{Places, SocketDir};

/// The settings of both builders.
pub(crate) struct Settings {
    pub(crate) name: Option<String>,
    pub(crate) versions: BTreeMap<AppProtocolVersion, PluginSet>,
    pub(crate) deadlines: Deadlines,
    pub(crate) max_value: usize,
    pub(crate) group: Option<String>,
    pub(crate) temp_dir: Option<PathBuf>,
    pub(crate) translator: Option<Arc<dyn AddressTranslator>>,
    pub(crate) managed: bool,
    /// Writers need not be `Sync`; the lock around them, which nobody ever waits
    /// for, lets a builder be used by a future that changes threads.
    mirror: Mutex<Mirror>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: None,
            versions: BTreeMap::new(),
            deadlines: Deadlines::default(),
            max_value: MAX_VALUE,
            group: None,
            temp_dir: None,
            translator: None,
            managed: false,
            mirror: Mutex::default(),
        }
    }
}

impl Settings {
    pub(crate) fn mirror(&mut self) -> &mut Mirror {
        let mirror = self.mirror.get_mut();
        mirror.unwrap_or_else(PoisonError::into_inner)
    }

    /// The interfaces of one version.
    pub(crate) fn set(&self, version: AppProtocolVersion) -> Option<PluginSet> {
        self.versions.get(&version).cloned()
    }

    /// Makes a directory for the sockets of this plugin alone.
    pub(crate) fn places(&self) -> io::Result<Places> {
        let group = self.sockets(Network::Unix, None).group_id();
        let group = group.map_err(io::Error::other)?;
        Ok(Places::new(SocketDir::create(
            self.temp_dir.as_deref(),
            group,
        )?))
    }

    /// Where this host listens for its plugin, which listens on `network` itself.
    pub(crate) fn sockets(&self, network: Network, dir: Option<&Path>) -> Sockets {
        match network {
            Network::Unix => Sockets {
                group: self.group.clone(),
                owned: dir.is_some(),
                ..Sockets::unix(dir.map(Path::to_owned))
            },
            Network::Tcp => Sockets::tcp(None),
        }
    }
}

/// Writes the methods that [`Launch`](crate::Launch) and
/// [`Attach`](crate::Attach) share; each has a field `settings`.
macro_rules! settings_methods {
    ($builder:ident) => {
        impl $builder {
            /// Names the plugin in logs and errors; the program's file name
            /// otherwise, or the address of a plugin that runs already.
            pub fn named(mut self, name: impl Into<String>) -> Self {
                self.settings.name = Some(name.into());
                self
            }

            /// Offers a version of the app protocol, with the interfaces it has.
            /// A plugin that is launched picks the highest version that both sides
            /// know; one that runs already has picked.
            pub fn offer(mut self, version: u32, set: $crate::PluginSet) -> Self {
                let version = $crate::AppProtocolVersion(version);
                self.settings.versions.insert(version, set);
                self
            }

            /// Sets how long the host waits for each step.
            pub fn deadlines(mut self, deadlines: $crate::Deadlines) -> Self {
                self.settings.deadlines = deadlines;
                self
            }

            /// The largest argument or reply over net/rpc, in bytes, in either
            /// direction: 64 MiB otherwise. A larger argument is refused; a larger
            /// reply ends its connection. What the plugin's calls of the host bring
            /// along takes no more than about twice that at a time; the plugin is
            /// not read meanwhile.
            pub fn max_value(mut self, bytes: usize) -> Self {
                self.settings.max_value = bytes;
                self
            }

            /// Gives all sockets to a group, by name or number.
            pub fn socket_group(mut self, group: impl Into<String>) -> Self {
                self.settings.group = Some(group.into());
                self
            }

            /// Makes the directory of the sockets beneath `directory`; beneath the
            /// system's temporary one otherwise, and beneath `/tmp` where a path is
            /// too long for sockets.
            pub fn temp_dir(mut self, directory: impl Into<std::path::PathBuf>) -> Self {
                self.settings.temp_dir = Some(directory.into());
                self
            }

            /// Sends here what the plugin prints to its stdout while it serves.
            pub fn mirror_stdout(mut self, copy: impl std::io::Write + Send + 'static) -> Self {
                self.settings.mirror().stdout = Some(Box::new(copy));
                self
            }

            /// Sends here what the plugin prints to its stderr while it serves.
            pub fn mirror_stderr(mut self, copy: impl std::io::Write + Send + 'static) -> Self {
                self.settings.mirror().stderr = Some(Box::new(copy));
                self
            }

            /// Rewrites addresses between the plugin's world and the host's. It
            /// takes precedence over the translator that a runner brings.
            pub fn translate(
                mut self,
                translator: impl $crate::AddressTranslator + 'static,
            ) -> Self {
                self.settings.translator = Some(std::sync::Arc::new(translator));
                self
            }

            /// Lets [`stop_managed`](crate::stop_managed) stop the plugin.
            pub fn managed(mut self) -> Self {
                self.settings.managed = true;
                self
            }
        }
    };
}
pub(crate) use settings_methods;
