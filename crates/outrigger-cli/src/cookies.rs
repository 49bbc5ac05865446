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
}

/// Cookies as they stand in the SDKs; every key has an underscore, which the search relies on.
const KNOWN: &[KnownCookie] = &[
    KnownCookie {
        key: "TF_PLUGIN_MAGIC_COOKIE",
        value: "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2",
        product: "Terraform and OpenTofu providers",
    },
    KnownCookie {
        key: "TFLINT_RULESET_PLUGIN",
        value: "5adSn1bX8nrDfgBqiAqqEkC6OE1h3iD8SqbMc5UUONx8x3xCF0KlPDsBRNDjoYDP",
        product: "TFLint rulesets",
    },
    KnownCookie {
        key: "VAULT_BACKEND_PLUGIN",
        value: "6669da05-b1c8-4f49-97d9-c8e5bed98e20",
        product: "Vault and OpenBao backends",
    },
    KnownCookie {
        key: "VAULT_DATABASE_PLUGIN",
        value: "926a0820-aea2-be28-51d6-83cdf00e8edb",
        product: "Vault and OpenBao databases",
    },
    KnownCookie {
        key: "NOMAD_PLUGIN_MAGIC_COOKIE",
        value: "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255",
        product: "Nomad drivers and devices",
    },
    KnownCookie {
        key: "grafana_plugin_type",
        value: "datasource",
        product: "Grafana backends",
    },
    KnownCookie {
        key: "BASIC_PLUGIN",
        value: "hello",
        product: "go-plugin's examples",
    },
    KnownCookie {
        key: "TEST_KEY",
        value: "TEST_VALUE",
        product: "the host-services examples",
    },
];

/// The cookie published for `key`.
pub(crate) fn published(key: &str) -> Option<&'static KnownCookie> {
    KNOWN.iter().find(|cookie| cookie.key == key)
}

/// The keys of all published cookies.
pub(crate) fn keys() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|cookie| cookie.key)
}

/// Which known cookie keys stand in the program file at `path`.
///
/// A key that stands there is only a hint: libraries bring theirs along.
pub(crate) fn in_program(path: &Path) -> Vec<&'static KnownCookie> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path).is_ok_and(|facts| facts.is_file()) {
        return Vec::new();
    }
    File::open(path)
        .map(|file| search(file.take(MOST_SEARCHED)))
        .unwrap_or_default()
}

/// How much of a program is searched, in bytes.
const MOST_SEARCHED: u64 = 512 << 20;
/// How much is read at once, in bytes.
const CHUNK: usize = 1 << 20;
/// Longest key, so that one which straddles two chunks is found.
const OVERLAP: usize = 64;

fn search(mut program: impl Read) -> Vec<&'static KnownCookie> {
    let mut found: Vec<&'static KnownCookie> = Vec::new();
    let mut window = Vec::with_capacity(CHUNK + OVERLAP);
    loop {
        let kept = window.len().min(OVERLAP);
        window.drain(..window.len() - kept);
        match program.by_ref().take(CHUNK as u64).read_to_end(&mut window) {
            Ok(0) | Err(_) => return found,
            Ok(_) => {}
        }
        for (at, _) in window.iter().enumerate().filter(|(_, byte)| **byte == b'_') {
            for cookie in KNOWN {
                if stands_at(cookie.key, &window, at) && !found.contains(&cookie) {
                    found.push(cookie);
                }
            }
        }
    }
}

/// Whether `key` stands in `window` with its first underscore at `at`.
fn stands_at(key: &str, window: &[u8], at: usize) -> bool {
    let before = key.find('_').unwrap_or(0);
    at.checked_sub(before)
        .is_some_and(|start| window[start..].starts_with(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_wherever_they_stand() {
        for start in [0, 1, CHUNK - 10, CHUNK - 1, CHUNK, 2 * CHUNK - 21] {
            let mut program = vec![b'x'; start];
            program.extend(b"TFLINT_RULESET_PLUGIN\0tail");
            let found = search(&program[..]);
            assert_eq!(found.len(), 1, "{start}");
            assert_eq!(found[0].key, "TFLINT_RULESET_PLUGIN");
        }
        assert!(search(&b"nothing_here"[..]).is_empty());
    }

    #[test]
    fn every_key_suits_the_search() {
        assert!(
            KNOWN
                .iter()
                .all(|cookie| cookie.key.contains('_') && cookie.key.len() <= OVERLAP)
        );
    }
}
