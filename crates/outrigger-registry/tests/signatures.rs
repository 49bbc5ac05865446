//! Plugins that are signed with minisign, and what is made of those that are not as they were.

use std::fs::{self, Permissions};
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use minisign::{KeyPair, SecretKey};
use outrigger_registry::{Bundle, DigestCache, EntryState, Registry, RegistryError, Scan, Trust};
use outrigger_wire::{Coded as _, ExpectedDigest};
use tempfile::TempDir;

/// A folder with the plugin `cat`, and somebody who signs it.
struct Signed {
    folder: TempDir,
    keys: KeyPair,
}

fn keys() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().expect("a pair of keys")
}

fn digest_of(content: &[u8]) -> String {
    let digest = ExpectedDigest::of(content).expect("read").to_string();
    digest.replace("sha256:", "")
}

impl Signed {
    fn new() -> Self {
        let signed = Self {
            folder: tempfile::tempdir().expect("a folder"),
            keys: keys(),
        };
        fs::create_dir_all(signed.path("lib")).expect("folders");
        signed.write(
            "manifest.yaml",
            "plugin: {name: cat, format: grpc, entrypoint: cat}\n\
             handshake: {protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}\n",
        );
        signed.write("cat", "#!/bin/sh\n");
        fs::set_permissions(signed.path("cat"), Permissions::from_mode(0o755)).expect("its mode");
        signed.write("lib/purr.py", "purr = 1\n");
        signed.sign_files(&["manifest.yaml", "cat", "lib/purr.py"]);
        signed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("cat").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// Writes the list of these files, and signs it.
    fn sign_files(&self, names: &[&str]) {
        let lines = names.iter().map(|name| {
            let content = fs::read(self.path(name)).expect("read");
            format!("{}  {name}\n", digest_of(&content))
        });
        self.sign(&lines.collect::<String>(), &self.keys.sk);
    }

    fn sign(&self, list: &str, by: &SecretKey) {
        self.write("plugin.sha256", list);
        let signature = minisign::sign(None, by, Cursor::new(list), None, None);
        let signature = signature.expect("signed").into_string();
        self.write("plugin.sha256.minisig", &signature);
    }

    fn list(&self) -> String {
        fs::read_to_string(self.path("plugin.sha256")).expect("read")
    }

    fn trust(&self) -> Trust {
        Trust::new().key(&self.keys.pk.to_base64()).expect("a key")
    }

    fn scan(&self) -> Registry {
        let scan = Scan::new().require_signatures(self.trust());
        scan.folder(self.folder.path()).expect("it can be listed")
    }

    /// What a scan says of it, which reads no file of the plugin but its manifest.
    fn seen(&self) -> Result<Option<ExpectedDigest>, RegistryError> {
        match self.scan().get("cat").expect("installed").state() {
            EntryState::Available { checksum, .. } => Ok(checksum.clone()),
            EntryState::Unusable { error, .. } => Err(error.clone()),
        }
    }

    /// What is said of it before it is started.
    fn checked(&self) -> Result<ExpectedDigest, RegistryError> {
        let bundle = Bundle::open(self.path("")).expect("a sound manifest");
        bundle.check_signature(&self.trust(), &DigestCache::in_memory())
    }

    fn assert_refused(&self, code: &str) {
        let error = self.seen().expect_err("refused");
        assert_eq!(error.code(), code, "{error}: {:?}", error.details());
        let error = self.checked().expect_err("refused");
        assert_eq!(error.code(), code, "{error}: {:?}", error.details());
    }

    /// It is seen as usable, and not started.
    fn assert_refused_at_start(&self, code: &str) {
        self.seen().expect("as far as is seen");
        let error = self.checked().expect_err("refused");
        assert_eq!(error.code(), code, "{error}: {:?}", error.details());
    }
}

#[test]
fn what_somebody_trusted_signed_can_be_used_with_the_program_that_was_signed() {
    let signed = Signed::new();
    let program = ExpectedDigest::of(&b"#!/bin/sh\n"[..]).expect("read");
    assert_eq!(signed.seen().expect("signed"), Some(program.clone()));
    assert_eq!(signed.checked().expect("signed"), program);
    // One of several keys, as they stand in the files that minisign writes.
    let file = signed.keys.pk.to_box().expect("a file").into_string();
    let other = keys().pk.to_base64();
    let trust = Trust::new().key(&other).and_then(|trust| trust.key(&file));
    let bundle = Bundle::open(signed.path("")).expect("sound");
    let digest = bundle.signed_digest(&trust.expect("keys"));
    assert_eq!(digest.expect("signed"), program);
    // Without signatures that are demanded, none is looked at.
    fs::remove_file(signed.path("plugin.sha256.minisig")).expect("removed");
    let registry = Registry::scan(signed.folder.path()).expect("listed");
    assert!(registry.get("cat").expect("installed").error().is_none());
}

#[test]
fn what_is_not_signed_by_somebody_trusted_cannot_be_used() {
    let signed = Signed::new();
    let list = signed.list();
    signed.sign(&list, &keys().sk);
    signed.assert_refused("signature-untrusted");
    signed.sign(&list, &signed.keys.sk);
    signed.seen().expect("signed again");

    let signature = fs::read_to_string(signed.path("plugin.sha256.minisig")).expect("read");
    signed.write("plugin.sha256", &(list.clone() + "\n"));
    signed.assert_refused("signature-wrong");
    signed.write("plugin.sha256", &list);
    let commented = signature.replace("trusted comment: ", "trusted comment: much ");
    signed.write("plugin.sha256.minisig", &commented);
    signed.assert_refused("signature-wrong");
    for nonsense in [
        "",
        "signature",
        &signature[..signature.len() / 2],
        &"a".repeat(9999),
    ] {
        signed.write("plugin.sha256.minisig", nonsense);
        signed.assert_refused("signature-malformed");
    }
    signed.write("plugin.sha256.minisig", &"a".repeat(99_999));
    signed.assert_refused("signature-unreadable");
    fs::remove_file(signed.path("plugin.sha256.minisig")).expect("removed");
    signed.assert_refused("signature-missing");
    fs::remove_file(signed.path("plugin.sha256")).expect("removed");
    signed.assert_refused("signature-missing");
}

#[test]
fn a_file_that_was_changed_added_or_left_out_is_found_before_the_plugin_starts() {
    let signed = Signed::new();
    signed.write("lib/purr.py", "purr = 2\n");
    signed.assert_refused_at_start("signed-file-changed");
    fs::remove_file(signed.path("lib/purr.py")).expect("removed");
    signed.assert_refused_at_start("signed-file-changed");

    let signed = Signed::new();
    signed.write("lib/grpc.py", "");
    signed.assert_refused_at_start("signed-list-incomplete");
    let error = signed.checked().expect_err("refused");
    assert_eq!(
        error.details(),
        ["the signed list says nothing of `lib/grpc.py`"]
    );
    fs::remove_file(signed.path("lib/grpc.py")).expect("removed");
    symlink("/tmp", signed.path("lib/grpc")).expect("linked");
    signed.assert_refused_at_start("signed-list-incomplete");
    fs::remove_file(signed.path("lib/grpc")).expect("removed");
    signed.checked().expect("as it was signed");

    signed.write("cat", "#!/bin/sh\nexit 1\n");
    signed.assert_refused_at_start("signed-file-changed");

    let signed = Signed::new();
    let manifest = fs::read_to_string(signed.path("manifest.yaml")).expect("read");
    signed.write("manifest.yaml", &(manifest + "services: [filesystem]\n"));
    signed.assert_refused("signed-file-changed");
    for left_out in ["manifest.yaml", "cat"] {
        let signed = Signed::new();
        let files = ["manifest.yaml", "cat", "lib/purr.py"];
        let names: Vec<&str> = files.into_iter().filter(|it| *it != left_out).collect();
        signed.sign_files(&names);
        signed.assert_refused("signed-list-incomplete");
    }
}

#[test]
fn a_list_names_files_of_the_plugin_once_each() {
    let signed = Signed::new();
    let list = signed.list();
    let other = "0".repeat(64);
    for line in [
        format!("{other}  ../dog/dog\n"),
        format!("{other}  /bin/sh\n"),
        format!("{other}  ./cat\n"),
        format!("{other}\n"),
        format!("{other}  .\n"),
        "cat\n".to_owned(),
    ] {
        signed.sign(&(list.clone() + &line), &signed.keys.sk);
        signed.assert_refused("signed-list-malformed");
    }
}

#[test]
fn versions_beside_each_other_are_signed_each_for_itself() {
    let signed = Signed::new();
    let below = signed.path("1.0.0");
    fs::create_dir(&below).expect("a folder");
    fs::write(below.join("manifest.yaml"), "").expect("written");
    signed
        .checked()
        .expect("the one in the plugin's own folder");
}

#[test]
fn how_each_is_said() {
    let signed = Signed::new();
    let said = |signed: &Signed| {
        let error = signed.checked().expect_err("refused");
        let mut lines = vec![format!("[{}] {error}", error.code())];
        lines.extend(error.details());
        lines.extend(error.hint().map(|hint| format!("help: {hint}")));
        let folder = signed.folder.path().display().to_string();
        lines.join("\n").replace(&folder, "DIR")
    };
    let list = signed.list();
    let mut texts = Vec::new();
    signed.write("lib/purr.py", "");
    texts.push(said(&signed));
    signed.write("plugin.sha256", "");
    texts.push(said(&signed));
    signed.sign("\u{1b}", &signed.keys.sk);
    texts.push(said(&signed));
    signed.sign(&list, &keys().sk);
    texts.push(said(&signed));
    fs::remove_file(signed.path("plugin.sha256.minisig")).expect("removed");
    texts.push(said(&signed));
    let purr = (digest_of(b""), digest_of(b"purr = 1\n"));
    let text = texts
        .join("\n\n")
        .replace(&purr.0, "FOUND")
        .replace(&purr.1, "SIGNED");
    assert_eq!(
        text,
        "\
[signed-file-changed] plugin `cat` is not as it was signed
`lib/purr.py` is not the file that was signed
the program's sha256 is FOUND, expected SIGNED
help: install it anew from whoever made it; do not run it as it is

[signature-wrong] plugin `cat` is not as it was signed
the signature is not that of `DIR/cat/plugin.sha256`
help: install it anew from whoever made it; do not run it as it is

[signed-list-malformed] plugin `cat` is not as it was signed
the signed list of files cannot be read
line 1: `\\u{1b}` is not a SHA-256 digest of 64 hexadecimal digits

[signature-untrusted] plugin `cat` is signed by nobody who is trusted
it is signed with none of the 1 keys that are trusted
help: trust the key of whoever made it, if you know them

[signature-missing] plugin `cat` is not signed
`DIR/cat/plugin.sha256.minisig` does not exist
help: sign the list of its files: `sha256sum … > plugin.sha256`, then `minisign -S -m plugin.sha256`"
    );
}

#[test]
fn what_is_no_key_is_refused() {
    for text in ["", "RWQ", "untrusted comment: x\n", &"A".repeat(56)] {
        let error = Trust::new().key(text).expect_err("no key");
        assert_eq!(error.code(), "public-key-malformed", "{text}");
    }
}
