//! A plugin that was built without TLS, and hosts that ask for it and do not.
//!
//! `cargo xtask test` runs this with no features; with `tls` there is nothing here.
#![cfg(not(feature = "tls"))]
#![allow(clippy::disallowed_methods)] // This is the host that launches it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use outrigger_plugin::{MagicCookie, PluginSet, Serve};

const COOKIE: (&str, &str) = ("WITHOUT_TLS", "hello");

/// What the other tests start: this very program, as a plugin.
#[test]
fn plugin() {
    if std::env::var_os(COOKIE.0).is_none() {
        return;
    }
    let plugin = Serve::new(MagicCookie::new(COOKIE.0, COOKIE.1)).offer(1, PluginSet::new());
    let _ = outrigger_plugin::serve(plugin);
    std::process::exit(0);
}

fn start() -> Command {
    let mut plugin = Command::new(std::env::current_exe().expect("this program"));
    plugin
        .args(["--exact", "plugin", "--nocapture"])
        .env(COOKIE.0, COOKIE.1)
        .env("PLUGIN_PROTOCOL_VERSIONS", "1")
        .env_remove("PLUGIN_CLIENT_CERT")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    plugin
}

#[test]
fn a_host_that_asks_for_tls_is_told_that_there_is_none_and_gets_no_plain_connection() {
    let certificate = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    let output = start().env("PLUGIN_CLIENT_CERT", certificate).output();
    let output = output.expect("ran to its end");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!printed.contains("1|1|"), "no handshake: {printed}");
    let said = String::from_utf8_lossy(&output.stderr);
    let reason =
        "could not prepare TLS: this program was built without TLS (the cargo feature `tls`)";
    assert!(said.contains(reason), "{said}");
    assert!(said.contains("tls-not-built-in"), "{said}");
}

#[test]
fn a_host_that_does_not_ask_for_tls_is_served() {
    let mut plugin = start().spawn().expect("started");
    let stdout = BufReader::new(plugin.stdout.take().expect("a pipe"));
    let mut lines = stdout.lines().map_while(Result::ok);
    let handshake = lines.find(|line| line.contains("1|1|unix|"));
    let ended = handshake.is_none().then(|| {
        let mut said = String::new();
        let _ = plugin
            .stderr
            .take()
            .map(|mut pipe| pipe.read_to_string(&mut said));
        said
    });
    plugin.kill().expect("it runs");
    plugin.wait().expect("reaped");
    assert_eq!(ended, None);
}
