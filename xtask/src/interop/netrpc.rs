//! The cases over net/rpc.

use serde_json::json;

use super::case::{
    AUTO_MTLS, Case, Expect, Language, PLAIN, Place, Socket, Work, row as row_of, work,
};
use super::peers::Peers;

/// How the connection is protected.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    Tls,
    AutoMtls,
}

const WAYS: [Way; 3] = [Way::Plain, Way::Tls, Way::AutoMtls];

impl Way {
    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Tls => "_with_tls",
            Self::AutoMtls => "_with_auto_mtls",
        }
    }

    fn place(self) -> Place {
        match self {
            Self::Plain => Place::Mode(PLAIN),
            Self::Tls => Place::Tls,
            Self::AutoMtls => Place::Mode(AUTO_MTLS),
        }
    }
}

/// What is done, with the plugin's word in place of `P`, and the host's flags.
type Deed = (&'static str, &'static [&'static str]);

/// What every pair does over every way, with the plugin that serves everything.
const DEEDS: [Deed; 9] = [
    ("is_greeted_by_a_P_plugin", &["--service", "greeter"]),
    (
        "stores_and_reads_values_in_a_P_plugin",
        &["--service", "kv", "--scenario", "kv,kv-large"],
    ),
    (
        "hears_the_animals_of_a_P_plugin",
        &["--service", "animal:horse"],
    ),
    (
        "calls_back_and_forth_with_a_P_plugin",
        &[
            "--service",
            "callbacks",
            "--scenario",
            "callbacks,callbacks-many",
        ],
    ),
    (
        "streams_bytes_and_http_both_ways_with_a_P_plugin",
        &["--service", "streams"],
    ),
    (
        "exchanges_values_of_all_types_with_a_P_plugin",
        &["--service", "types"],
    ),
    (
        "reads_and_feeds_the_standard_streams_of_a_P_plugin",
        &["--service", "stdio", "--stdin", "some words"],
    ),
    (
        "ends_a_P_plugin_six_times",
        &["--service", "greeter", "--scenario", "kill"],
    ),
    (
        "has_16_callers_call_back_and_forth_with_a_P_plugin",
        &["--service", "callbacks", "--scenario", "callbacks-callers"],
    ),
];

/// What every pair does once.
const SINGLES: [Deed; 8] = [
    (
        "streams_24_times_at_once_with_a_P_plugin",
        &["--service", "streams", "--scenario", "streams-parallel"],
    ),
    (
        "is_told_that_a_P_plugin_has_no_such_name",
        &["--service", "types", "--scenario", "unknown-plugin"],
    ),
    (
        "dials_an_id_that_a_P_plugin_never_accepts",
        &["--service", "types", "--scenario", "unclaimed"],
    ),
    (
        "starts_a_P_plugin_with_the_right_checksum",
        &[
            "--service",
            "greeter",
            "--scenario",
            "checksum-right,greeter",
        ],
    ),
    (
        "does_not_start_a_P_plugin_with_another_checksum",
        &["--service", "greeter", "--scenario", "checksum-wrong"],
    ),
    (
        "interrupts_a_P_plugin_in_vain",
        &["--service", "greeter", "--scenario", "sigint,greeter"],
    ),
    (
        "reaches_a_P_plugin_through_a_runner",
        &["--service", "greeter", "--runner"],
    ),
    (
        "reaches_a_P_plugin_where_nothing_else_is_allowed",
        &["--service", "greeter", "--allowed", "netrpc"],
    ),
];

/// The animals that are programs of their own in both languages, with the cookies of the playground.
const ANIMALS: [(&str, &str); 6] = [
    (
        "cat",
        "CAT_PLUGIN=lFLmoCE3ckw6erJxYxcRd6keedUodVMctD3XOGj9bLMYsFZi1Qh0vKEJftppo5ek",
    ),
    ("dog", "DOG_PLUGIN=outrigger-dog-netrpc"),
    (
        "dog-grpc",
        "DOG_PLUGIN=2ggRd5S9bhHottawB6eXwghiOAhekGORmOfIczh5b1D3AYlmrRWIXdbqwDHDJmjq",
    ),
    ("pig", "PIG_PLUGIN=outrigger-pig-netrpc"),
    ("cow", "COW_PLUGIN=outrigger-cow-netrpc"),
    ("horse", "HORSE_PLUGIN=outrigger-horse-netrpc"),
];
/// How many of them Go has, too.
const GO_ANIMALS: usize = 3;

pub(super) fn all(peers: &Peers) -> Vec<Case> {
    let mut cases = Vec::new();
    for host in [Language::Rust, Language::Go] {
        for plugin in [Language::Rust, Language::Go] {
            let pair = Pair {
                peers,
                host,
                plugin,
            };
            for way in WAYS {
                cases.extend(DEEDS.iter().map(|deed| pair.case(*deed, way)));
            }
            cases.extend(SINGLES.iter().map(|deed| pair.single(*deed)));
            cases.extend(pair.animals());
            cases.extend(pair.versions());
            cases.extend(pair.ends());
        }
    }
    cases
}

struct Pair<'a> {
    peers: &'a Peers,
    host: Language,
    plugin: Language,
}

impl Pair<'_> {
    fn name(&self, deed: &str, way: Way) -> String {
        let deed = deed.replace('P', self.plugin.word());
        format!(
            "a_{}_host_{deed}_over_net_rpc{}",
            self.host.word(),
            way.suffix()
        )
    }

    fn row(&self) -> String {
        format!(
            "{} host, {} plugin, net/rpc",
            self.host.title(),
            self.plugin.title()
        )
    }

    /// What holds of every pair whose plugin ends by itself.
    fn expect(&self, transport: &str) -> Vec<Expect> {
        let mut expect = vec![Expect::Field("protocol", json!(transport))];
        match (self.host, self.plugin, transport) {
            (Language::Go, Language::Go, "netrpc") => expect.push(Expect::MayRace),
            _ => expect.push(Expect::Quiet),
        }
        expect
    }

    fn run(&self, flags: &[&str], way: Way, program: &[&str], expect: &[Expect]) -> Work {
        let tls = self.peers.tls.display().to_string();
        let (mut flags, mut program) = (flags.to_vec(), program.to_vec());
        match way {
            Way::Plain => {}
            Way::AutoMtls => flags.push("--auto-mtls"),
            Way::Tls => {
                flags.extend(["--tls-dir", &tls]);
                program.push("--tls");
            }
        }
        work(self.peers, self.host, self.plugin, &flags, &program, expect)
    }

    /// The plugin that serves everything.
    fn peer(&self) -> &'static str {
        match self.plugin {
            Language::Go => "netrpc",
            Language::Rust | Language::Python => "netrpc-peer",
        }
    }

    fn case(&self, (deed, flags): Deed, way: Way) -> Case {
        Case {
            name: self.name(deed, way),
            row: self.row(),
            place: way.place(),
            work: self.run(flags, way, &[self.peer()], &self.expect("netrpc")),
        }
    }

    fn single(&self, (deed, flags): Deed) -> Case {
        let nothing_runs = flags.contains(&"checksum-wrong");
        let expect = match nothing_runs {
            true => vec![],
            false => self.expect("netrpc"),
        };
        Case {
            name: self.name(deed, Way::Plain),
            row: self.row(),
            place: Place::Single,
            work: self.run(flags, Way::Plain, &[self.peer()], &expect),
        }
    }

    fn animals(&self) -> Vec<Case> {
        let known = match self.plugin {
            Language::Go => &ANIMALS[..GO_ANIMALS],
            Language::Rust | Language::Python => &ANIMALS[..],
        };
        let mut cases = Vec::new();
        for (animal, cookie) in known {
            let service = format!("animal:{animal}");
            let flags = ["--service", &service, "--cookie", cookie];
            let grpc = animal.ends_with("-grpc");
            for way in [Way::Plain, Way::AutoMtls] {
                let expect = self.expect(if grpc { "grpc" } else { "netrpc" });
                let (host, plugin) = (self.host.word(), self.plugin.word());
                let word = animal.replace('-', "_");
                cases.push(Case {
                    name: format!("a_{host}_host_hears_the_{plugin}_{word}{}", way.suffix()),
                    row: match grpc {
                        true => row_of(self.host, self.plugin, Socket::Unix),
                        false => self.row(),
                    },
                    place: way.place(),
                    work: self.run(&flags, way, &[animal], &expect),
                });
            }
        }
        cases
    }

    /// One plugin with version 2 over net/rpc and version 3 over gRPC.
    fn versions(&self) -> Vec<Case> {
        let mixed = match self.plugin {
            Language::Go => ["kv", "negotiated"],
            Language::Rust | Language::Python => ["kv", "mixed"],
        };
        let mut cases = Vec::new();
        for (offered, taken, transport) in [("2,3", 3, "grpc"), ("2", 2, "netrpc")] {
            for way in [Way::Plain, Way::AutoMtls] {
                let (host, plugin) = (self.host.word(), self.plugin.word());
                let mut expect = self.expect(transport);
                expect.push(Expect::Version(taken));
                let flags = ["--service", "kv", "--versions", offered];
                cases.push(Case {
                    name: format!(
                        "a_{host}_host_agrees_on_version_{taken}_with_a_{plugin}_plugin_of_both_protocols{}",
                        way.suffix()
                    ),
                    row: self.row(),
                    place: way.place(),
                    work: self.run(&flags, way, &mixed, &expect),
                });
            }
        }
        cases
    }

    /// Ends that leave words in the log.
    fn ends(&self) -> Vec<Case> {
        let joins: Deed = (
            "joins_and_ends_a_running_P_plugin",
            &["--service", "types", "--scenario", "reattach"],
        );
        let mut cases = Vec::new();
        for way in [Way::Plain, Way::Tls] {
            // The first host finds its plugin gone.
            let expect = [Expect::Field("protocol", json!("netrpc"))];
            cases.push(Case {
                name: self.name(joins.0, way),
                row: self.row(),
                place: way.place(),
                work: self.run(joins.1, way, &[self.peer()], &expect),
            });
        }
        let crashes: [Deed; 2] = [
            (
                "loses_a_P_plugin_with_8_calls_pending",
                &["--service", "types", "--scenario", "crash-pending"],
            ),
            (
                "misses_a_killed_P_plugin",
                &["--service", "greeter", "--scenario", "crash"],
            ),
        ];
        for (deed, flags) in crashes {
            cases.push(Case {
                name: self.name(deed, Way::Plain),
                row: self.row(),
                place: Place::Single,
                work: self.run(flags, Way::Plain, &[self.peer()], &[Expect::Killed]),
            });
        }
        if self.plugin == Language::Rust {
            let mut expect = self.expect("netrpc");
            expect.push(Expect::Field("address_network", json!("tcp")));
            let program = [self.peer(), "--tcp"];
            cases.push(Case {
                name: self.name("is_greeted_by_a_P_plugin_on_tcp", Way::Plain),
                row: self.row(),
                place: Place::Single,
                work: self.run(&["--service", "greeter"], Way::Plain, &program, &expect),
            });
        }
        cases
    }
}
