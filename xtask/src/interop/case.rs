//! One case of the matrix, and what it is made of.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use serde_json::Value;

use super::peers::Peers;

/// One pairing of a host and a plugin.
pub(super) struct Case {
    pub(super) name: String,
    /// Its row and column in the table of results.
    pub(super) row: String,
    pub(super) place: Place,
    pub(super) work: Work,
}

/// A column of the table of results.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Place {
    Mode(Mode),
    /// Certificates that both sides have from one authority.
    Tls,
    Single,
}

impl Place {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Mode(Mode {
                mux: false,
                auto_mtls: false,
            }) => "plain",
            Self::Mode(Mode {
                mux: false,
                auto_mtls: true,
            }) => "AutoMTLS",
            Self::Mode(Mode {
                mux: true,
                auto_mtls: false,
            }) => "mux",
            Self::Mode(Mode {
                mux: true,
                auto_mtls: true,
            }) => "mux + AutoMTLS",
            Self::Tls => "TLS",
            Self::Single => "one behaviour each",
        }
    }
}

pub(super) const COLUMNS: [Place; 6] = [
    Place::Mode(MODES[0]),
    Place::Tls,
    Place::Mode(MODES[1]),
    Place::Mode(MODES[2]),
    Place::Mode(MODES[3]),
    Place::Single,
];

pub(super) enum Work {
    Run(Run),
    /// The pairing does not exist.
    NotApplicable(&'static str),
    /// A language is missing on this machine.
    Missing(String),
}

pub(super) struct Run {
    pub(super) host: PathBuf,
    pub(super) flags: Vec<OsString>,
    pub(super) program: Vec<OsString>,
    pub(super) expect: Vec<Expect>,
}

/// What the host's report must say besides that all went well.
#[derive(Clone)]
pub(super) enum Expect {
    Field(&'static str, Value),
    /// The version that both agreed on.
    Version(u32),
    /// No warning and no error in the host's log.
    Quiet,
    PortBetween(u16, u16),
    /// The plugin has no chance to clean up.
    Killed,
    /// A Go plugin over net/rpc may be gone before its Go host has read the reply
    /// to `Quit`, and is then called forced.
    MayRace,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Language {
    Rust,
    Go,
    Python,
}

impl Language {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Go => "go",
            Self::Python => "python",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Go => "Go",
            Self::Python => "Python",
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Socket {
    Unix,
    Tcp,
}

/// How the two sides agree to connect.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Mode {
    pub(super) mux: bool,
    pub(super) auto_mtls: bool,
}

pub(super) const PLAIN: Mode = Mode {
    mux: false,
    auto_mtls: false,
};
const MUX: Mode = Mode {
    mux: true,
    auto_mtls: false,
};
pub(super) const AUTO_MTLS: Mode = Mode {
    mux: false,
    auto_mtls: true,
};
pub(super) const MODES: [Mode; 4] = [
    PLAIN,
    AUTO_MTLS,
    MUX,
    Mode {
        mux: true,
        auto_mtls: true,
    },
];

pub(super) fn row(host: Language, plugin: Language, socket: Socket) -> String {
    let socket = match socket {
        Socket::Unix => "unix",
        Socket::Tcp => "TCP",
    };
    format!("{} host, {} plugin, {socket}", host.title(), plugin.title())
}

pub(super) fn work(
    peers: &Peers,
    host: Language,
    plugin: Language,
    flags: &[impl AsRef<OsStr>],
    program: &[impl AsRef<OsStr>],
    expect: &[Expect],
) -> Work {
    let found = || -> Result<Run, String> {
        let (host_program, mut host_arguments) = match host {
            Language::Rust => (peers.rust("interop-host"), Vec::new()),
            Language::Go => (peers.go("host")?, Vec::new()),
            Language::Python => {
                let script = peers.root.join("interop/python/host.py");
                (peers.python()?, vec![script.into()])
            }
        };
        let mut command: Vec<OsString> = Vec::new();
        let mut program = program.iter().map(AsRef::as_ref);
        let name = program.next().unwrap_or_default();
        match plugin {
            Language::Rust => command.push(peers.rust(name).into()),
            Language::Go => command.push(peers.go(name)?.into()),
            Language::Python => {
                command.push(peers.python()?.into());
                command.push(peers.root.join("examples/python").join(name).into());
            }
        }
        command.extend(program.map(OsString::from));
        host_arguments.extend(flags.iter().map(OsString::from));
        // Go plugins leave the socket of a multiplexed connection behind, in the Go host's own directory.
        let killed = expect.iter().any(|expect| matches!(expect, Expect::Killed));
        if plugin != Language::Go && !killed {
            host_arguments.push("--forbid-leftovers".into());
        }
        Ok(Run {
            host: host_program,
            flags: host_arguments,
            program: command,
            expect: expect.to_vec(),
        })
    };
    match found() {
        Ok(run) => Work::Run(run),
        Err(missing) => Work::Missing(missing),
    }
}
