//! The examples beyond what the demo shows.
#![allow(clippy::disallowed_methods)] // The hosts are no plugins.
#![allow(clippy::print_stderr)] // What is skipped is said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use outrigger::{Files, Manifest, Permissions, Policy, Settings, Transport};
use outrigger_examples::netrpc::animal_cookie;
use outrigger_examples::proto::filelister::FileListRequest;
use outrigger_examples::{FileLister, host_services_cookie};
use outrigger_host::{Launch, PluginSet};

/// A Go peer, where `OUTRIGGER_GO_PEERS` says where they are.
///
/// # Panics
/// Under `CI=true`, where they must be there.
fn go_peer(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("OUTRIGGER_GO_PEERS").map(|dir| PathBuf::from(dir).join(name));
    if found.is_none() {
        let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!strict, "CI=true asks for every peer");
        eprintln!("skipped: OUTRIGGER_GO_PEERS is not set");
    }
    found
}

#[tokio::test]
async fn a_lister_keeps_what_it_saw_with_its_host_until_it_is_gone() {
    let (listed, temporary) = (tempfile::tempdir(), tempfile::tempdir());
    let (listed, temporary) = (
        listed.expect("a directory"),
        temporary.expect("a directory"),
    );
    std::fs::write(listed.path().join("old"), "1\n2\n").expect("a file");
    let readable = Permissions::READ | Permissions::LIST;
    let manifest = Manifest::builder("color-lister", Transport::Grpc, "colorlister")
        .handshake(1, "TEST_KEY", "TEST_VALUE")
        .files(Files::new(listed.path(), readable).recursive(true))
        .build()
        .expect("a manifest");
    let settings = Settings::new().policy(Policy::allow_requested());
    let installed = settings.plugin(manifest, listed.path());
    let services = installed.expect("a plugin").services();
    let services = services.temp_root(temporary.path());
    let plugin = Launch::new(env!("CARGO_BIN_EXE_colorlister"), host_services_cookie())
        .offer(1, PluginSet::new().with::<FileLister>("color-lister"))
        .start()
        .await
        .expect("a plugin");
    let serving = plugin.serve(&services).await.expect("services");
    let mut lister = plugin
        .dispense::<FileLister>("color-lister")
        .await
        .expect("a client");
    let mut list = async || {
        let request = FileListRequest {
            root_dir: listed.path().display().to_string(),
            path: ".".into(),
            host_service: serving.id().0,
        };
        let reply = lister.list(request).await.expect("a reply").into_inner();
        assert_eq!(reply.error, None);
        reply.entry.join("\n")
    };
    let first = list().await;
    assert!(first.contains("old") && !first.contains("new"), "{first}");
    assert_eq!(temporary_files(temporary.path()), 1, "it is kept");
    std::fs::write(listed.path().join("younger"), "").expect("a file");
    let second = list().await;
    let marked: Vec<&str> = second.lines().filter(|line| line.contains("new")).collect();
    assert_eq!(marked.len(), 1, "{second}");
    assert!(marked[0].contains("younger"), "{second}");
    drop(serving);
    plugin.stop().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while temporary_files(temporary.path()) > 0 {
        assert!(Instant::now() < deadline, "something temporary is left");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How many files there are in the directories of a directory for temporary ones.
fn temporary_files(directory: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        files += if path.is_dir() {
            temporary_files(&path)
        } else {
            1
        };
    }
    files
}

/// The manifests name the cookies that the programs have.
#[test]
fn every_animal_has_a_manifest_with_its_cookie() {
    let animals = Path::new(env!("CARGO_MANIFEST_DIR")).join("../animals");
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(animals).expect("a directory") {
        let dir = entry.expect("an entry").path();
        let name = dir.file_name().expect("a name").to_string_lossy();
        let text = std::fs::read_to_string(dir.join("manifest.yaml")).expect("a manifest");
        texts.insert(name.into_owned(), text);
    }
    let names: Vec<_> = texts.keys().map(String::as_str).collect();
    assert_eq!(names, ["cat", "cow", "dog", "dog-grpc", "horse", "pig"]);
    for (name, text) in texts {
        let cookie = animal_cookie(&name);
        let format = if name.ends_with("-grpc") {
            "grpc"
        } else {
            "rpc"
        };
        for line in [
            format!("  name: {name}\n"),
            format!("  format: {format}\n"),
            format!("  entrypoint: {name}\n"),
            format!("  magic_cookie_key: {}\n", cookie.key),
            format!("  magic_cookie_value: {}\n", cookie.value),
        ] {
            assert!(text.contains(&line), "{name}: no {line:?}");
        }
    }
}

#[test]
fn hosts_in_both_languages_are_greeted_by_plugins_in_both() {
    let mut plugins = vec![PathBuf::from(env!("CARGO_BIN_EXE_hello"))];
    plugins.extend(go_peer("hello"));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hello/manifest.yaml");
    for plugin in &plugins {
        // Our host knows the folder, Go's the program.
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join("plugins/hello");
        std::fs::create_dir_all(&folder).expect("a plugin's folder");
        std::fs::copy(&manifest, folder.join("manifest.yaml")).expect("a manifest");
        std::os::unix::fs::symlink(plugin, folder.join("hello")).expect("a program");
        let mut hosts = vec![Command::new(env!("CARGO_BIN_EXE_hello-host"))];
        hosts.extend(go_peer("hello-host").map(Command::new));
        for mut host in hosts {
            if host.get_program() != env!("CARGO_BIN_EXE_hello-host") {
                host.arg(plugin).arg("world");
            }
            let output = host.current_dir(dir.path()).output();
            let output = output.expect("the host runs");
            let greeting = String::from_utf8_lossy(&output.stdout);
            assert_eq!(
                greeting, "hello, world\n",
                "{host:?}, {plugin:?}: {output:?}"
            );
        }
    }
}
