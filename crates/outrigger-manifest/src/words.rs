//! The closed sets of words a manifest and a policy choose from.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value, in the order of their documentation.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            #[allow(dead_code, reason = "some of these words are never read from a file")]
            pub(crate) const WORDS: &'static [(&'static str, $name)] =
                &[$(($text, $name::$variant),)*];

            /// The word as a manifest spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
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
    /// Which RPC the plugin speaks on its connection.
    Format {
        /// Go's net/rpc.
        Rpc = "rpc",
        /// gRPC.
        Grpc = "grpc",
    }
}

words! {
    /// How a granted file is reached.
    Access {
        /// Through the host, call by call.
        Mediated = "mediated",
        /// By the plugin itself, under rules of the kernel.
        Direct = "direct",
    }
}

words! {
    /// Which way a connection goes.
    Direction {
        /// Connections that the plugin opens.
        Egress = "egress",
        /// Connections that reach the plugin.
        Ingress = "ingress",
    }
}

impl Direction {
    /// The key under which the other ends of the connections are named.
    pub(crate) const fn hosts_key(self) -> &'static str {
        match self {
            Direction::Egress => "hosts",
            Direction::Ingress => "allowed_origins",
        }
    }
}

words! {
    /// Transport of a network request.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

words! {
    /// What happens when the kernel cannot confine the plugin as planned; ordered by strictness.
    SandboxMode {
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
    HostService {
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
    ProcessControl {
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
    Capability {
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

/// Whose processes may be controlled: only those the plugin started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Children;

impl Children {
    pub(crate) const WORDS: &'static [(&'static str, Children)] = &[("children", Children)];
}
