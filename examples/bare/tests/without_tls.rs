//! A plugin that was built without TLS, and hosts that ask for it and do not.
#![allow(clippy::disallowed_methods)] // This is the host that launches it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn start() -> Command {
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_outrigger-example-bare"));
    plugin
        .env("BARE", "hello")
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
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "no handshake");
    let said = "plugin init error [tls-not-built-in]: could not prepare TLS: \
                this program was built without TLS (the cargo feature `tls`)\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), said);
}

#[test]
fn a_host_that_does_not_ask_for_tls_is_served() {
    let mut plugin = start().spawn().expect("started");
    let mut handshake = String::new();
    let mut stdout = BufReader::new(plugin.stdout.take().expect("a pipe"));
    stdout.read_line(&mut handshake).expect("a line");
    plugin.kill().expect("it runs");
    plugin.wait().expect("reaped");
    assert!(handshake.starts_with("1|1|unix|"), "{handshake:?}");
}
