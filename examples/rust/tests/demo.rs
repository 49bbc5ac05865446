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
