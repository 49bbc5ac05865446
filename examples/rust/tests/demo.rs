//! The demo's host with the plugins in Rust.
#![allow(clippy::disallowed_methods)] // The demo's host is no plugin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory for one test, removed with its owner.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("demo-{name}-{}", std::process::id()));
        for folder in ["listed", "plugins", "tmp"] {
            fs::create_dir_all(path.join(folder)).expect("a folder");
        }
        fs::create_dir(path.join("listed/src")).expect("a folder");
        fs::write(path.join("listed/\u{1b}[2Jnote"), "text").expect("a file");
        Self(path)
    }

    fn plugin(&self, name: &str, program: &str) {
        let folder = self.0.join("plugins").join(name);
        fs::create_dir(&folder).expect("a folder");
        std::os::unix::fs::symlink(program, folder.join(name)).expect("a link");
    }

    fn script(&self, name: &str, lines: &str) {
        use std::os::unix::fs::PermissionsExt;
        let script = self.0.join(name);
        fs::write(&script, format!("#!/bin/sh\n{lines}\n")).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
        self.plugin(name, script.to_str().expect("UTF-8"));
    }

    fn show(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_demo-host"))
            .arg("--dir")
            .arg(self.0.join("listed"))
            .arg("--plugins")
            .arg(self.0.join("plugins"))
            .env("TMPDIR", self.0.join("tmp"))
            .env("HOME", "/the/home")
            .output()
            .expect("the demo's host")
    }

    fn assert_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.0.join("tmp"))
            .expect("the folder")
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let listed = fs::read_dir(self.0.join("listed"))
            .expect("the folder")
            .count();
        assert_eq!(listed, 2, "the listed directory was changed");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn every_plugin_works_through_the_host_and_nothing_is_left() {
    let place = Place::new("works");
    place.plugin("colour", env!("CARGO_BIN_EXE_colorlister"));
    place.plugin("list", env!("CARGO_BIN_EXE_filelister"));
    place.plugin("show", env!("CARGO_BIN_EXE_hostdemo"));
    let output = place.show();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for said in [
        "listed 2 entries through the host",
        "    d src/\n",
        "note  1 line\n",
        "    src/\n",
        "    HOME is \"/the/home\" to the host\n",
        "read back the same",
        "the host finds it too: 38 bytes",
        "THE MACHINE THAT WAS TAUGHT TO LIST",
        "All 3 did their work and stopped",
    ] {
        assert!(text.contains(said), "{said:?} is missing in:\n{text}");
    }
    assert!(
        !text.contains('\u{1b}'),
        "terminal codes outside a terminal:\n{text}"
    );
    place.assert_clean();
}

#[test]
fn a_plugin_that_does_not_start_is_explained_and_the_others_still_work() {
    let place = Place::new("broken");
    place.plugin("list", env!("CARGO_BIN_EXE_filelister"));
    place.plugin("other", env!("CARGO_BIN_EXE_kv"));
    place.script("early", "echo 'no config' >&2; exit 3");
    place.script("garbage", "echo usage");
    fs::create_dir(place.0.join("plugins/void")).expect("a folder");
    let output = place.show();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for said in [
        "error[exited-early]",
        "it logged: no config",
        "error[handshake-malformed]",
        "error[program-not-found]",
        "listed 2 entries",
        "4 of 5 plugins failed",
    ] {
        assert!(text.contains(said), "{said:?} is missing in:\n{text}");
    }
    place.assert_clean();
}

/// A cat with a manifest, whose program is `bin/program` in its folder.
fn describe_cat(place: &Place, name: &str, entrypoint: &str) -> PathBuf {
    let folder = place.0.join("plugins").join(name);
    fs::create_dir_all(folder.join("bin")).expect("a folder");
    fs::copy(env!("CARGO_BIN_EXE_cat"), folder.join("bin/program")).expect("the program");
    let manifest = include_str!("../../animals/cat/manifest.yaml");
    let described = manifest.replace("entrypoint: cat", &format!("entrypoint: {entrypoint}"));
    assert_ne!(manifest, described);
    fs::write(folder.join("manifest.yaml"), described).expect("the manifest");
    folder
}

#[test]
fn the_program_and_its_checksum_are_those_that_the_folder_names() {
    use sha2::{Digest, Sha256};
    let place = Place::new("named");
    let digest: String = Sha256::digest(fs::read(env!("CARGO_BIN_EXE_cat")).expect("the program"))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let wrong = "0".repeat(64);
    let write = |folder: &Path, file: &str, text: String| {
        fs::write(folder.join(file), text).expect("a checksum file");
    };

    describe_cat(&place, "bare", "bin/program");
    let beside = describe_cat(&place, "beside", "bin/program");
    write(
        &beside,
        "bin/program.sha256",
        format!("{digest} *program\n"),
    );
    let several = describe_cat(&place, "several", "plugins/several/bin/program");
    let lines = format!("{wrong}  manifest.yaml\n{digest}  bin/program\n");
    write(&several, "plugin.sha256", lines);
    let changed = describe_cat(&place, "changed", "bin/program");
    write(
        &changed,
        "bin/program.sha256",
        format!("{wrong}  program\n"),
    );
    let broken = describe_cat(&place, "broken", "bin/program");
    write(&broken, "plugin.sha256", "sha256\n".into());
    describe_cat(&place, "absent", "bin/other");

    let output = place.show();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for (name, line) in [
        ("bare", "over netrpc with AutoMTLS and no checksum file"),
        (
            "beside",
            "over netrpc with AutoMTLS and the expected checksum",
        ),
        (
            "several",
            "over netrpc with AutoMTLS and the expected checksum",
        ),
        ("changed", "did not start"),
        ("broken", "was not started"),
        ("absent", "was not started"),
    ] {
        let told = text
            .lines()
            .any(|told| told.starts_with(name) && told.ends_with(line));
        assert!(told, "{name} … {line:?} is missing in:\n{text}");
    }
    for said in [
        "error[digest-mismatch]",
        "line 1: `sha256` is not a SHA-256 digest of 64 hexadecimal digits",
        "error[entrypoint-not-found]",
        "/bin/other` does not exist",
        "3 of 6 plugins failed",
    ] {
        assert!(text.contains(said), "{said:?} is missing in:\n{text}");
    }
    place.assert_clean();
}
