//! Magic cookies that products publish in their plugin SDKs.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A product's published cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KnownCookie {
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) product: &'static str,
    /// What a program with this cookie contains: mostly the key.
    mark: &'static str,
}

const fn cookie(key: &'static str, value: &'static str, product: &'static str) -> KnownCookie {
    KnownCookie {
        key,
        value,
        product,
        mark: key,
    }
}

/// SPIRE's keys are everyday words; its plugins contain the name of their service, too.
const fn spire(kind: &'static str, mark: &'static str) -> KnownCookie {
    KnownCookie {
        key: kind,
        value: kind,
        product: "SPIRE plugins",
        mark,
    }
}

/// Cookies as they stand in the SDKs.
const KNOWN: &[KnownCookie] = &[
    cookie(
        "TF_PLUGIN_MAGIC_COOKIE",
        "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2",
        "Terraform and OpenTofu providers",
    ),
    cookie(
        "TFLINT_RULESET_PLUGIN",
        "5adSn1bX8nrDfgBqiAqqEkC6OE1h3iD8SqbMc5UUONx8x3xCF0KlPDsBRNDjoYDP",
        "TFLint rulesets",
    ),
    cookie(
        "VAULT_BACKEND_PLUGIN",
        "6669da05-b1c8-4f49-97d9-c8e5bed98e20",
        "Vault and OpenBao backends",
    ),
    cookie(
        "VAULT_DATABASE_PLUGIN",
        "926a0820-aea2-be28-51d6-83cdf00e8edb",
        "Vault and OpenBao databases",
    ),
    cookie(
        "NOMAD_PLUGIN_MAGIC_COOKIE",
        "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255",
        "Nomad drivers and devices",
    ),
    cookie(
        "DKRON_PLUGIN_MAGIC_COOKIE",
        "b29a76488b6f3ca7955c5f769b50641f0fcd88748d8cedecda313d516320ca19",
        "Dkron executors and processors",
    ),
    cookie(
        "CONDUIT_PLUGIN_MAGIC_COOKIE",
        "204e8e812c3a1bb73b838928c575b42a105dd2e9aa449be481bc4590486df53f",
        "Conduit connectors",
    ),
    cookie("VELERO_PLUGIN", "hello", "Velero plugins"),
    cookie(
        "MATTERMOST_PLUGIN",
        "Securely message teams, anywhere.",
        "Mattermost plugins",
    ),
    cookie(
        "ARGO_ROLLOUTS_RPC_PLUGIN",
        "metricprovider",
        "Argo Rollouts metric providers",
    ),
    cookie(
        "ARGO_ROLLOUTS_RPC_PLUGIN",
        "trafficrouter",
        "Argo Rollouts traffic routers",
    ),
    cookie("ARGO_ROLLOUTS_RPC_PLUGIN", "step", "Argo Rollouts steps"),
    cookie("grafana_plugin_type", "datasource", "Grafana backends"),
    cookie(
        "MANTIX_PLUGIN_MAGIC_COOKIE",
        "really-complex-permanent-string-value",
        "Steampipe plugins",
    ),
    spire("KeyManager", "spire.plugin.server.keymanager"),
    spire("KeyManager", "spire.plugin.agent.keymanager"),
    spire("NodeAttestor", "spire.plugin.server.nodeattestor"),
    spire("NodeAttestor", "spire.plugin.agent.nodeattestor"),
    spire("UpstreamAuthority", "spire.plugin.server.upstreamauthority"),
    spire("Notifier", "spire.plugin.server.notifier"),
    spire("BundlePublisher", "spire.plugin.server.bundlepublisher"),
    spire(
        "CredentialComposer",
        "spire.plugin.server.credentialcomposer",
    ),
    spire("WorkloadAttestor", "spire.plugin.agent.workloadattestor"),
    spire("SVIDStore", "spire.plugin.agent.svidstore"),
    cookie("BASIC_PLUGIN", "hello", "go-plugin's examples"),
    cookie("TEST_KEY", "TEST_VALUE", "the host-services examples"),
];

/// What stands in a program.
#[derive(Default, Debug)]
pub(crate) struct Found {
    /// Known cookies whose marks do. That is only a hint: libraries bring theirs along.
    pub(crate) known: Vec<&'static KnownCookie>,
    /// Whether the key that was asked for does.
    pub(crate) asked: bool,
    /// Whether there was anything to look at.
    pub(crate) looked: bool,
}

impl Found {
    /// Looks through the program file at `path` for known cookies, and for the key `asked`.
    pub(crate) fn look(&mut self, path: &Path, asked: Option<&str>) {
        // Opening a pipe would wait for its other end.
        if !std::fs::metadata(path).is_ok_and(|facts| facts.is_file()) {
            return;
        }
        if let Ok(file) = File::open(path) {
            self.looked = true;
            self.search(file.take(MOST_SEARCHED), asked);
        }
    }

    fn search(&mut self, mut program: impl Read, asked: Option<&str>) {
        let needles = Needles::new(asked);
        let mut window = Vec::with_capacity(CHUNK + needles.longest);
        loop {
            // What straddles two chunks is found.
            let kept = window.len().min(needles.longest);
            window.drain(..window.len() - kept);
            match program.by_ref().take(CHUNK as u64).read_to_end(&mut window) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            for (at, byte) in window.iter().enumerate() {
                for needle in &needles.by_anchor[usize::from(*byte)] {
                    if needle.stands_at(&window, at) {
                        self.found(needle);
                    }
                }
            }
        }
    }

    fn found(&mut self, needle: &Needle<'_>) {
        match needle.cookie {
            None => self.asked = true,
            Some(cookie) => {
                let same = |own: &&KnownCookie| (own.key, own.value) == (cookie.key, cookie.value);
                if !self.known.iter().any(same) {
                    self.known.push(cookie);
                }
            }
        }
    }
}

/// How much of a program is searched, in bytes.
const MOST_SEARCHED: u64 = 512 << 20;
/// How much is read at once, in bytes.
const CHUNK: usize = 1 << 20;

/// A text that is searched for.
struct Needle<'a> {
    text: &'a [u8],
    /// Where in it the byte stands that it is found by.
    anchor: usize,
    /// Nothing for the key that was asked for.
    cookie: Option<&'static KnownCookie>,
}

impl Needle<'_> {
    /// Whether it stands in `window` with its anchor at `at`.
    fn stands_at(&self, window: &[u8], at: usize) -> bool {
        at.checked_sub(self.anchor)
            .is_some_and(|start| window[start..].starts_with(self.text))
    }
}

/// What is searched for, by a byte that is rare in programs.
struct Needles<'a> {
    by_anchor: Vec<Vec<Needle<'a>>>,
    /// The longest of them, in bytes.
    longest: usize,
}

impl<'a> Needles<'a> {
    fn new(asked: Option<&'a str>) -> Self {
        let known = KNOWN.iter().map(|cookie| (cookie.mark, Some(cookie)));
        let mut all = Self {
            by_anchor: (0..256).map(|_| Vec::new()).collect(),
            longest: 0,
        };
        for (text, cookie) in known.chain(asked.map(|key| (key, None))) {
            let text = text.as_bytes();
            let rare = text.iter().position(|byte| b"_.".contains(byte));
            let anchor = rare.unwrap_or(0);
            let Some(byte) = text.get(anchor) else {
                continue;
            };
            all.longest = all.longest.max(text.len());
            all.by_anchor[usize::from(*byte)].push(Needle {
                text,
                anchor,
                cookie,
            });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(program: &[u8], asked: Option<&str>) -> Found {
        let mut found = Found::default();
        found.search(program, asked);
        found
    }

    #[test]
    fn keys_are_found_wherever_they_stand() {
        for start in [0, 1, CHUNK - 10, CHUNK - 1, CHUNK, 2 * CHUNK - 21] {
            let mut program = vec![b'x'; start];
            program.extend(b"TFLINT_RULESET_PLUGIN\0tail");
            let found = search(&program, Some("tail"));
            assert_eq!(found.known.len(), 1, "{start}");
            assert_eq!(found.known[0].key, "TFLINT_RULESET_PLUGIN");
            assert!(found.asked, "{start}");
        }
        let found = search(b"nothing_here", Some("else"));
        assert!(found.known.is_empty() && !found.asked);
    }

    #[test]
    fn every_published_cookie_is_found_by_its_mark_and_everyday_words_find_none() {
        for cookie in KNOWN {
            let program = format!("\0{}\0", cookie.mark);
            let known = search(program.as_bytes(), None).known;
            let of = |own: &&KnownCookie| (own.key, own.value);
            assert!(
                known
                    .iter()
                    .map(of)
                    .any(|own| own == (cookie.key, cookie.value))
            );
            // A key with several values is offered with each.
            assert!(known.iter().all(|own| own.key == cookie.key), "{known:?}");
        }
        assert!(
            search(b"type KeyManager struct; Notifier", None)
                .known
                .is_empty()
        );
    }
}
