//! The lister that keeps what it saw with its host.

mod support;

use std::path::Path;

use outrigger::{Files, Manifest, Permissions, Policy, Settings, Transport};
use outrigger_examples::proto::filelister::FileListRequest;
use outrigger_examples::{FileLister, host_services_cookie};
use outrigger_host::{Launch, PluginSet};

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
    support::wait_for("nothing temporary", || {
        temporary_files(temporary.path()) == 0
    })
    .await;
}

/// How many files there are in the directories of a directory for temporary ones.
fn temporary_files(directory: &Path) -> usize {
    support::files_beneath(directory).len()
}
