//! The closed sets of words a manifest and a policy choose from.

use std::fmt;

use outrigger_wire::{Level, Transport};
use serde::{Serialize, Serializer};

use crate::shapes::Words;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value, in the order of their documentation.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The word as a manifest spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl Words for $name {
            const WHAT: &'static str = $what;
            const WORDS: &'static [(&'static str, $name)] = &[$(($text, $name::$variant),)*];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

words! {
    /// How a granted file is reached.
    Access "a way of access" {
        /// Through the host, call by call.
        Mediated = "mediated",
        /// By the plugin itself, under rules of the kernel.
        Direct = "direct",
    }
}

words! {
    /// Which way a connection goes.
    Direction "a direction" {
        /// Connections that the plugin opens.
        Egress = "egress",
        /// Connections that reach the plugin.
        Ingress = "ingress",
    }
}

words! {
    /// Transport of a network request.
    Protocol "a protocol" {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

words! {
    /// What happens when the kernel cannot confine the plugin as planned; ordered by strictness.
    SandboxMode "a sandbox mode" {
        /// No confinement.
        Off = "off",
        /// As much as there is; what is missing is reported.
        BestEffort = "best-effort",
        /// Everything the manifest relies on, or no start.
        Require = "require",
    }
}

words! {
    /// Something the host does for a plugin.
    HostService "a host service" {
        /// Files and directories.
        Filesystem = "filesystem",
        /// Environment variables, ids and well-known directories.
        Environment = "environment",
        /// Running commands and looking after them.
        Process = "process",
        /// Connections out and listeners.
        Network = "network",
        /// Time and random bytes.
        Clock = "clock",
        /// Records in the host's log.
        Log = "log",
    }
}

words! {
    /// What one may do to processes besides starting them.
    ProcessControl "a kind of control" {
        /// End a process.
        Kill = "kill",
        /// See which processes run.
        List = "list",
        /// Send a signal.
        Signal = "signal",
    }
}

words! {
    /// A kind of thing one may be allowed to do.
    Capability "a capability" {
        /// Reaching files and directories.
        Filesystem = "filesystem",
        /// Connecting and being connected to.
        Network = "network",
        /// Running and controlling other programs.
        Process = "process",
        /// Reading variables of the host's environment.
        Environment = "environment",
        /// Calling a host service at all.
        Services = "services",
    }
}

words! {
    /// When a plugin is started.
    StartWhen "a time to start" {
        /// With the host.
        AtOnce = "at-once",
        /// When it is first called.
        Lazily = "lazily",
    }
}

words! {
    /// When a plugin that ended is started again.
    RestartWhen "a rule for restarts" {
        /// When it failed.
        OnFailure = "on-failure",
        /// However it ended, unless it was asked to stop.
        Always = "always",
        /// Never.
        Never = "never",
    }
}

words! {
    /// How a reload puts a new process in the place of the one that runs.
    ReloadHow "a way to reload" {
        /// Beside it, and calls go to the new one when it is fit to serve.
        Overlap = "overlap",
        /// After it has ended.
        Replace = "replace",
    }
}

words! {
    /// What becomes of a plugin that the lock file does not know as it is.
    LockMode "a mode of the lock file" {
        /// One that is new is written down; one that asks for more needs approval.
        TrustFirst = "trust-first",
        /// Any difference refuses.
        Locked = "locked",
        /// Nothing runs that was not approved, be it only a new build.
        Strict = "strict",
    }
}

impl LockMode {
    /// The mode where none was chosen: [`TrustFirst`](Self::TrustFirst) if a person sees what
    /// happens, else [`Locked`](Self::Locked). `ci` is the variable `CI` of the environment.
    ///
    /// ```
    /// use outrigger_manifest::LockMode;
    ///
    /// assert_eq!(LockMode::by_default(true, None), LockMode::TrustFirst);
    /// assert_eq!(LockMode::by_default(true, Some("true")), LockMode::Locked);
    /// assert_eq!(LockMode::by_default(false, None), LockMode::Locked);
    /// ```
    #[must_use]
    pub fn by_default(on_terminal: bool, ci: Option<&str>) -> LockMode {
        let ci = !matches!(ci, None | Some("" | "0" | "false"));
        if on_terminal && !ci {
            LockMode::TrustFirst
        } else {
            LockMode::Locked
        }
    }
}

/// Whose processes may be controlled: only those the plugin started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Children;

impl Words for Children {
    const WHAT: &'static str = "a scope of processes";
    const WORDS: &'static [(&'static str, Children)] = &[("children", Children)];
}

/// The RPC that a plugin speaks, in the words of `format`: these say `rpc` where the handshake
/// says `netrpc`.
impl Words for Transport {
    const WHAT: &'static str = "a format";
    const WORDS: &'static [(&'static str, Transport)] =
        &[("rpc", Transport::NetRpc), ("grpc", Transport::Grpc)];
}

/// How much a record of a log matters.
impl Words for Level {
    const WHAT: &'static str = "a level";
    const WORDS: &'static [(&'static str, Level)] = &[
        ("trace", Level::Trace),
        ("debug", Level::Debug),
        ("info", Level::Info),
        ("warn", Level::Warn),
        ("error", Level::Error),
    ];
}
