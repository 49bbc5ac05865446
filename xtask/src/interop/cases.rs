//! The table of cases. A name says the behaviour.

use serde_json::json;

use super::case::{
    COLUMNS, Case, Expect, Language, MODES, Mode, PLAIN, Place, Socket, Work, row, work,
};
use super::netrpc;
use super::peers::Peers;

#[derive(Clone, Copy)]
enum Service {
    Kv,
    Counter,
    Streaming,
    Negotiated,
    Grpctest,
}

const SERVICES: [Service; 5] = [
    Service::Kv,
    Service::Counter,
    Service::Streaming,
    Service::Negotiated,
    Service::Grpctest,
];

impl Service {
    /// What a host does with `plugin`.
    fn deed(self, plugin: &str) -> String {
        match self {
            Self::Kv => format!("stores_and_reads_values_in_{plugin}"),
            Self::Counter => format!("adds_for_{plugin}"),
            Self::Streaming => format!("streams_both_ways_with_{plugin}"),
            Self::Negotiated => format!("agrees_on_version_3_with_{plugin}"),
            Self::Grpctest => format!("calls_back_and_forth_with_{plugin}"),
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Kv => &["--service", "kv"],
            Self::Counter => &["--service", "counter"],
            Self::Streaming => &["--service", "streamer"],
            Self::Negotiated => &[
                "--service",
                "kv",
                "--scenario",
                "negotiated",
                "--versions",
                "2,3",
            ],
            Self::Grpctest => &["--service", "grpctest"],
        }
    }

    fn version(self) -> u32 {
        match self {
            Self::Negotiated => 3,
            Self::Kv | Self::Counter | Self::Streaming | Self::Grpctest => 1,
        }
    }

    /// The program and its arguments.
    fn plugin(self, language: Language) -> &'static [&'static str] {
        match (self, language) {
            (Self::Kv, _) | (Self::Negotiated, Language::Rust | Language::Python) => &["kv"],
            (Self::Negotiated, Language::Go) => &["kv", "negotiated"],
            (Self::Counter, _) => &["counter"],
            (Self::Streaming, _) => &["streamer"],
            (Self::Grpctest, Language::Rust | Language::Python) => &["peer"],
            (Self::Grpctest, Language::Go) => &["helper", "test-grpc"],
        }
    }
}

pub(super) fn all(peers: &Peers) -> Vec<Case> {
    let mut cases = Vec::new();
    for host in [Language::Rust, Language::Go] {
        for plugin in [Language::Rust, Language::Go] {
            for socket in [Socket::Unix, Socket::Tcp] {
                for mode in MODES {
                    let pairing = Pairing {
                        peers,
                        host,
                        plugin,
                        socket,
                        mode,
                    };
                    cases.extend(SERVICES.map(|service| pairing.case(service)));
                }
            }
        }
    }
    cases.extend(listers(peers));
    cases.extend(python_hosts(peers));
    cases.extend(singles(peers));
    cases.extend(netrpc::all(peers));
    cases
}

struct Pairing<'a> {
    peers: &'a Peers,
    host: Language,
    plugin: Language,
    socket: Socket,
    mode: Mode,
}

impl Pairing<'_> {
    fn case(&self, service: Service) -> Case {
        let plugin = format!("a_{}_plugin", self.plugin.word());
        let way = match (self.socket, self.mode.mux) {
            (Socket::Unix, false) => "",
            (Socket::Unix, true) => "_over_mux",
            (Socket::Tcp, false) => "_over_tcp",
            (Socket::Tcp, true) => "_over_tcp_and_mux",
        };
        let tls = if self.mode.auto_mtls {
            "_with_auto_mtls"
        } else {
            ""
        };
        let name = format!(
            "a_{}_host_{}{way}{tls}",
            self.host.word(),
            service.deed(&plugin)
        );
        let place = Place::Mode(self.mode);
        Case {
            name,
            row: row(self.host, self.plugin, self.socket),
            place,
            work: self.work(service),
        }
    }

    fn work(&self, service: Service) -> Work {
        if (self.plugin, self.socket) == (Language::Go, Socket::Tcp) {
            return Work::NotApplicable("not applicable: Go plugins listen on unix sockets only");
        }
        let mut flags: Vec<&str> = service.flags().to_vec();
        flags.extend(self.mode.mux.then_some("--mux"));
        flags.extend(self.mode.auto_mtls.then_some("--auto-mtls"));
        let mut plugin = service.plugin(self.plugin).to_vec();
        if self.socket == Socket::Tcp {
            plugin.push("--tcp");
        }
        let network = match self.socket {
            Socket::Unix => "unix",
            Socket::Tcp => "tcp",
        };
        let mut expect = vec![
            Expect::Field("protocol", json!("grpc")),
            Expect::Field("address_network", json!(network)),
            Expect::Version(service.version()),
        ];
        // What the Go library says of itself at the end of a connection is its own affair.
        if (self.host, self.plugin) != (Language::Go, Language::Go) {
            expect.push(Expect::Quiet);
        }
        work(self.peers, self.host, self.plugin, &flags, &plugin, &expect)
    }
}

/// Plugins that list through the services of their host.
fn listers(peers: &Peers) -> Vec<Case> {
    let mut cases = Vec::new();
    for host in [Language::Rust, Language::Go] {
        let listers: [(Language, Socket, &[&str]); 5] = [
            (Language::Python, Socket::Unix, &["lister.py", "unix"]),
            (Language::Python, Socket::Tcp, &["lister.py", "tcp"]),
            (Language::Go, Socket::Unix, &["lister"]),
            (Language::Rust, Socket::Unix, &["filelister"]),
            (Language::Rust, Socket::Unix, &["colorlister"]),
        ];
        for (plugin, socket, program) in listers {
            let which = if program[0] == "colorlister" {
                "colouring_"
            } else {
                ""
            };
            let way = if socket == Socket::Tcp {
                "_over_tcp"
            } else {
                ""
            };
            let (h, p) = (host.word(), plugin.word());
            cases.push(Case {
                name: format!("a_{h}_host_offers_a_directory_to_a_{which}{p}_lister{way}"),
                row: row(host, plugin, socket),
                place: if plugin == Language::Python {
                    COLUMNS[0]
                } else {
                    Place::Single
                },
                work: work(
                    peers,
                    host,
                    plugin,
                    &["--service", "filelister"],
                    program,
                    &[Expect::Quiet],
                ),
            });
        }
    }
    cases
}

/// Hosts on gRPC's C core, whose channels have no options: they send the path of a
/// unix socket as `:authority`. Go plugins stand beside ours to show what is usual.
fn python_hosts(peers: &Peers) -> Vec<Case> {
    let mut cases = Vec::new();
    for (plugin, socket) in [
        (Language::Rust, Socket::Unix),
        (Language::Rust, Socket::Tcp),
        (Language::Go, Socket::Unix),
    ] {
        for (host, interface) in [
            ("a_python_host", None),
            ("an_asyncio_python_host", Some("--aio")),
        ] {
            for service in [Service::Kv, Service::Counter, Service::Grpctest] {
                let mut flags = service.flags().to_vec();
                flags.extend(interface);
                let mut program = service.plugin(plugin).to_vec();
                let (way, network) = match socket {
                    Socket::Unix => ("", "unix"),
                    Socket::Tcp => ("_over_tcp", "tcp"),
                };
                program.extend((socket == Socket::Tcp).then_some("--tcp"));
                let deed = service.deed(&format!("a_{}_plugin", plugin.word()));
                let expect = [
                    Expect::Field("address_network", json!(network)),
                    Expect::Quiet,
                ];
                cases.push(Case {
                    name: format!("{host}_{deed}{way}"),
                    row: row(Language::Python, plugin, socket),
                    place: Place::Mode(PLAIN),
                    work: work(peers, Language::Python, plugin, &flags, &program, &expect),
                });
            }
        }
    }
    cases
}

/// A pair in which one behaviour is looked at: its name, the host's command line, the
/// plugin's, and what is expected. `TLS` is the folder of the certificates.
type Single = (&'static str, &'static str, &'static str, &'static [Expect]);

/// What a Rust host must find in a Go plugin, and a Go host in a Rust plugin: `H` and `P`
/// are their languages.
#[rustfmt::skip]
const BOTH_WAYS: &[Single] = &[
    ("a_H_host_adds_for_16_callers_of_a_P_plugin",
     "--service counter --scenario counter-callers", "counter", &[]),
    ("a_H_host_adds_for_16_callers_of_a_P_plugin_over_mux",
     "--service counter --scenario counter-callers --mux", "counter", &[]),
    ("a_H_host_calls_back_and_forth_50_times_with_a_P_plugin",
     "--service grpctest --scenario bidirectional-many", "peer", &[]),
    ("a_H_host_calls_back_and_forth_50_times_with_a_P_plugin_over_mux",
     "--service grpctest --scenario bidirectional-many --mux", "peer", &[]),
    ("a_H_host_shares_one_authority_with_a_P_plugin",
     "--service grpctest --tls-dir TLS", "peer --tls", &[]),
    ("a_H_host_logs_the_panic_of_a_P_plugin_as_errors",
     "--service grpctest --scenario panic", "peer", &[]),
    ("a_H_host_reads_5_mib_from_a_P_plugin",
     "--service kv --scenario kv-large", "kv", &[]),
    ("a_H_host_joins_and_ends_a_running_P_plugin",
     "--service kv --scenario reattach", "kv", &[]),
    ("a_H_host_starts_a_P_plugin_with_the_right_checksum",
     "--service kv --scenario checksum-right", "kv", &[]),
    ("a_H_host_does_not_start_a_P_plugin_with_another_checksum",
     "--service kv --scenario checksum-wrong", "kv", &[]),
];

/// What a Rust host must find in a Go plugin.
#[rustfmt::skip]
const RUST_HOST: &[Single] = &[
    ("a_rust_host_agrees_on_version_2_and_auto_mtls_with_a_go_plugin",
     "--service grpctest --auto-mtls --versions 1,2", "helper test-mtls", &[Expect::Version(2)]),
    ("a_rust_host_reaches_version_2_of_a_go_plugin_behind_tls",
     "--service grpctest --tls-dir TLS --versions 1,2", "helper test-versioned-plugins", &[Expect::Version(2)]),
    ("a_rust_host_reaches_the_newer_set_of_an_upgraded_go_plugin",
     "--service grpctest --tls-dir TLS --versions 2", "helper test-proto-upgraded-plugin", &[Expect::Version(2)]),
    ("a_rust_host_reaches_a_go_plugin_that_only_has_version_2",
     "--service grpctest --tls-dir TLS --versions 1,2", "helper test-proto-upgraded-client", &[Expect::Version(2)]),
    ("a_rust_host_tolerates_a_go_plugin_that_omits_its_response",
     "--service streamer", "streamer omit-write-response", &[]),
];

/// What a Go host must find in a Rust plugin.
#[rustfmt::skip]
const GO_HOST: &[Single] = &[
    ("a_rust_plugin_takes_the_highest_version_of_its_go_host",
     "--service grpctest --versions 1,2", "peer", &[Expect::Version(2)]),
    ("a_rust_plugin_takes_the_only_version_of_its_go_host",
     "--service grpctest --versions 1", "peer", &[Expect::Version(1)]),
    ("a_rust_plugin_without_a_common_version_names_its_lowest",
     "--service grpctest --versions 7 --expect-start-error \
      'incompatible API version with plugin. Plugin version: 1, Client versions: [7]'",
     "peer", &[Expect::Killed]),
    ("a_rust_plugin_describes_its_services_to_a_go_host",
     "--service kv --scenario reflection", "kv", &[]),
    ("a_rust_plugin_describes_its_services_to_a_go_host_over_mux",
     "--service kv --scenario reflection --mux", "kv", &[]),
    ("a_rust_plugin_ends_when_its_go_host_asks_six_times",
     "--service kv --scenario kill", "kv", &[Expect::Quiet]),
    ("a_rust_plugin_ends_when_its_go_host_asks_six_times_over_mux",
     "--service kv --scenario kill --mux", "kv", &[Expect::Quiet]),
    ("a_rust_plugin_ends_when_its_go_host_never_called_it",
     "--service kv --scenario kill-before-client", "kv", &[Expect::Quiet]),
    ("a_killed_rust_plugin_is_missed_by_its_go_host",
     "--service kv --scenario crash", "kv", &[Expect::Killed]),
    ("a_rust_plugin_ignores_interrupts",
     "--service kv --scenario sigint,kv", "kv", &[Expect::Quiet]),
    ("a_rust_plugin_streams_to_a_go_host_with_small_messages",
     "--service streamer --max-message 1000", "streamer", &[Expect::Quiet]),
    ("a_rust_plugin_that_prints_a_mebibyte_early_is_not_held_up",
     "--service grpctest --scenario double", "peer --print 1048576", &[Expect::Quiet]),
    ("a_rust_plugin_logs_structured_lines_for_a_go_host",
     "--service grpctest --scenario printkv,log-levels", "peer", &[Expect::Quiet]),
    ("a_rust_plugin_logs_what_its_libraries_log_through_the_log_crate",
     "--service grpctest --scenario log-facade", "peer", &[]),
    ("a_rust_plugin_logs_its_panic_at_error_level",
     "--service grpctest --scenario panic --log-level error --min-panic-lines 11", "peer", &[]),
    ("a_rust_plugin_serves_a_go_host_with_a_runner",
     "--service grpctest --runner", "peer", &[Expect::Quiet]),
    ("a_rust_plugin_listens_within_the_port_range_of_its_go_host",
     "--service grpctest --min-port 21000 --max-port 21999", "peer --tcp",
     &[Expect::PortBetween(21000, 21999), Expect::Quiet]),
];

fn singles(peers: &Peers) -> Vec<Case> {
    let rust_host = (Language::Rust, Language::Go);
    let go_host = (Language::Go, Language::Rust);
    let tables = [
        (rust_host, BOTH_WAYS),
        (go_host, BOTH_WAYS),
        (rust_host, RUST_HOST),
        (go_host, GO_HOST),
    ];
    let singles = tables.iter().flat_map(|(pair, table)| {
        let single = |single| self::single(peers, *pair, single);
        table.iter().map(single)
    });
    singles.collect()
}

fn single(peers: &Peers, (host, plugin): (Language, Language), single: &Single) -> Case {
    let (name, flags, program, expect) = *single;
    let program = match (plugin, program) {
        (Language::Go, "peer") => "helper test-grpc",
        (Language::Go, "peer --tls") => "helper test-grpc-tls",
        (_, program) => program,
    };
    let tls = peers.tls.display().to_string();
    let words = |line: &str| shlex::split(line).unwrap_or_default();
    let (mut flags, program) = (words(flags), words(program));
    for folder in flags.iter_mut().filter(|flag| *flag == "TLS") {
        folder.clone_from(&tls);
    }
    Case {
        name: name.replace('H', host.word()).replace('P', plugin.word()),
        row: row(host, plugin, Socket::Unix),
        place: match single.2 {
            "peer --tls" => Place::Tls,
            _ => Place::Single,
        },
        work: work(peers, host, plugin, &flags, &program, expect),
    }
}
