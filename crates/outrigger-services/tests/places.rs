//! Where granted paths really lead, and what the policy says about that place.

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use outrigger_manifest::{Grants, Policy};
use outrigger_services::GrantedServices;
use outrigger_wire::proto::host::*;
use support::peer::Peer;
use tonic::{Code, Status};

/// A tree of which a test makes what it needs.
struct Tree {
    _base: tempfile::TempDir,
    top: PathBuf,
}

impl Tree {
    fn new(files: &[&str]) -> Self {
        let base = tempfile::tempdir().expect("a directory");
        let top = base.path().canonicalize().expect("its name");
        let tree = Self { _base: base, top };
        for file in files {
            let path = tree.top.join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, *file).expect("a file");
        }
        tree
    }

    /// A link at `name` to `target` in this tree.
    fn link(&self, target: &str, name: &str) {
        let name = self.top.join(name);
        std::fs::create_dir_all(name.parent().expect("a parent")).expect("a directory");
        symlink(self.top.join(target), name).expect("a link");
    }

    fn at(&self, path: &str) -> String {
        self.top.join(path).to_str().expect("UTF-8").to_owned()
    }

    /// The text with this tree for `TOP`.
    fn fill(&self, text: &str) -> String {
        text.replace("TOP", self.top.to_str().expect("UTF-8"))
    }

    fn decide(&self, capabilities: &str, policy: &str) -> Grants {
        let policy =
            Policy::parse(&self.fill(policy)).unwrap_or_else(|problems| panic!("{problems}"));
        let sections = self.fill(&format!("capabilities: {{{capabilities}}}"));
        let decision = support::decision(&sections, &policy);
        assert!(decision.is_complete(), "{:?}", decision.refused());
        decision.grants()
    }

    fn services(&self, capabilities: &str, policy: &str) -> GrantedServices {
        GrantedServices::new(self.decide(capabilities, policy))
    }

    /// What cannot be served, with its reason; the tree is `TOP`.
    fn unusable(&self, capabilities: &str, policy: &str) -> Vec<String> {
        let services = self.services(capabilities, policy);
        let top = self.top.to_str().expect("UTF-8");
        let texts = services.unusable().map(|unusable| {
            let path = unusable.path.to_string_lossy();
            format!("{path}: {}", unusable.reason).replace(top, "TOP")
        });
        texts.collect()
    }
}

const REQUESTED: &str = "{default: {sandbox: off, allow: requested}}";

async fn read(services: &GrantedServices, path: &str) -> Result<Vec<u8>, Status> {
    let peer = Peer::new(services, "tested").await;
    let request = ReadFileRequest {
        path: path.to_owned(),
    };
    let reply: Result<ReadFileResponse, _> = peer.call("Filesystem/ReadFile", request).await;
    peer.close().await;
    reply.map(|reply| reply.data.to_vec())
}

#[tokio::test]
async fn a_denial_holds_by_whatever_name_its_place_is_asked_for() {
    let tree = Tree::new(&["secret/key", "open/file"]);
    tree.link("secret", "alias");
    tree.link("", "up");
    tree.link("alias/key", "open/chain");
    let denied =
        "{default: {sandbox: off, allow: requested, deny: {filesystem: [{path: TOP/secret}]}}}";
    for (name, place) in [
        ("TOP/alias", "TOP/secret"),
        ("TOP/alias/key", "TOP/secret/key"),
        ("TOP/up/secret", "TOP/secret"),
        ("TOP/up/up/alias", "TOP/secret"),
        // The whole of which a part is denied.
        ("TOP/up", "TOP"),
        ("/proc/self/root/TOP/secret/key", "TOP/secret/key"),
        ("/proc/thread-self/root/TOP/secret", "TOP/secret"),
        ("TOP/open/chain", "TOP/secret/key"),
    ] {
        let name = name.replace("root/TOP", "rootTOP");
        let entry = format!("filesystem: [{{path: {name}, permissions: [read], recursive: true}}]");
        let reason = format!(
            "{name}: it leads to \"{place}\", refused by policy default.deny.filesystem[0]"
        );
        assert_eq!(tree.unusable(&entry, denied), [reason]);
        let services = tree.services(&entry, denied);
        let refused = read(&services, &tree.fill(&name)).await;
        let refused = refused.expect_err(&name);
        assert_eq!(refused.code(), Code::PermissionDenied, "{name}");
    }
    let entry = "filesystem: [{path: TOP/up/open, permissions: [read]}]";
    assert_eq!(tree.unusable(entry, denied), [""; 0]);
    let text = read(&tree.services(entry, denied), &tree.at("up/open/file")).await;
    assert_eq!(text.expect("not denied"), b"open/file");
}

#[test]
fn a_denial_counts_where_its_own_path_leads() {
    let tree = Tree::new(&["secret/key", "open/file"]);
    tree.link("secret", "alias");
    let policy = "{default: {sandbox: off, allow: requested, deny: {filesystem: [
        {path: TOP/alias/key, permissions: [read]}, {path: TOP/alias/later, permissions: [write]}]}}}";
    let ask = |path: &str, permissions: &str| {
        let entry = format!("filesystem: [{{path: {path}, permissions: [{permissions}]}}]");
        tree.unusable(&entry, policy)
    };
    let refused = |path: &str, rule: usize| {
        [format!(
            "{path}: it leads to \"{path}\", refused by policy default.deny.filesystem[{rule}]"
        )]
    };
    assert_eq!(ask("TOP/secret", "read"), refused("TOP/secret", 0));
    assert_eq!(ask("TOP/secret/key", "read"), refused("TOP/secret/key", 0));
    // What does not exist yet lies beneath what does.
    let later = ask("TOP/secret/later", "write, create");
    assert_eq!(later, refused("TOP/secret/later", 1));
    // Other rights are not denied.
    assert_eq!(ask("TOP/secret", "list"), [""; 0]);
    assert_eq!(ask("TOP/open", "read, write"), [""; 0]);
}

#[tokio::test]
async fn rules_and_requests_may_be_written_with_links_of_the_operators() {
    let tree = Tree::new(&["data/u/file", "data/u/sub/file", "else/file"]);
    tree.link("data/u", "home/u");
    tree.link("else", "home/u/out");
    let policy = "{default: {sandbox: off, allow: {filesystem: [
        {path: TOP/home/u, permissions: [read, write, list, create, delete], recursive: true}]}}}";
    let all = "permissions: [read, write, list, create, delete], recursive: true";
    for name in ["TOP/home/u", "TOP/home/u/sub", "TOP/home/u/file"] {
        let entry = format!("filesystem: [{{path: {name}, {all}}}]");
        assert_eq!(tree.unusable(&entry, policy), [""; 0], "{name}");
    }
    // Two requests, of which one lies in the other.
    let entries = format!(
        "filesystem: [{{path: TOP/home/u, {all}}}, {{path: TOP/home/u/sub, permissions: [read]}},
            {{path: TOP/home/u/file, permissions: [read]}}]"
    );
    assert_eq!(tree.unusable(&entries, policy), [""; 0]);
    let services = tree.services(&entries, policy);
    let text = read(&services, &tree.at("home/u/sub/file")).await;
    assert_eq!(text.expect("allowed"), b"data/u/sub/file");
    // A link out of what is allowed leads to what nothing allows.
    let entry = "filesystem: [{path: TOP/home/u/out/file, permissions: [read]}]";
    let reason =
        "TOP/home/u/out/file: it leads to \"TOP/else/file\", which no rule of the policy allows";
    assert_eq!(tree.unusable(entry, policy), [reason]);
    // Fewer rights there than where the request was written.
    let narrower = policy.replace(
        "allow: {filesystem: [",
        "allow: {filesystem: [{path: TOP/else, permissions: [list], recursive: true},",
    );
    assert_eq!(tree.unusable(entry, &narrower), [reason]);
    let enough = narrower.replace("[list]", "[list, read]");
    assert_eq!(tree.unusable(entry, &enough), [""; 0]);
}

#[tokio::test]
async fn a_link_that_the_plugin_may_have_made_is_not_followed() {
    let tree = Tree::new(&["secret/key", "app/dir/file"]);
    tree.link("secret/key", "app/plugin.json");
    tree.link("secret", "app/inbox");
    tree.link("app", "alias");
    let everything = "read, write, list, create, delete";
    for (entries, reported) in [
        // The file itself may be removed and made.
        (
            "{path: TOP/app/plugin.json, permissions: [read, create, delete]}",
            "plugin.json",
        ),
        // The directory that it lies in is granted too, by this name or another.
        (
            "{path: TOP/app, permissions: [ALL]}, {path: TOP/app/plugin.json, permissions: [read]}",
            "plugin.json",
        ),
        (
            "{path: TOP/alias, permissions: [ALL]}, {path: TOP/app/plugin.json, permissions: [read]}",
            "plugin.json",
        ),
        (
            "{path: TOP, permissions: [create], recursive: true},
             {path: TOP/alias/inbox, permissions: [read]}",
            "alias",
        ),
        (
            "{path: TOP/app, permissions: [ALL], recursive: true},
             {path: TOP/app/inbox/key, permissions: [read]}",
            "inbox",
        ),
    ] {
        for policy in [
            REQUESTED,
            "{default: {sandbox: off, allow: {filesystem: [
                {path: TOP, permissions: [read, write, list, create, delete], recursive: true}]}}}",
        ] {
            let flat = "{default: {sandbox: off, allow: {filesystem: [";
            let own = format!("{flat}{}]}}}}}}", entries.replace("ALL", everything));
            for policy in [policy, &own] {
                let entries = format!("filesystem: [{}]", entries.replace("ALL", everything));
                let unusable = tree.unusable(&entries, policy);
                assert_eq!(unusable.len(), 1, "{entries}: {unusable:?}");
                let place = match reported {
                    "alias" => "TOP/alias".to_owned(),
                    name => format!("TOP/app/{name}"),
                };
                let reason = format!(
                    "\"{place}\" is a link where the plugin may make one, so it is not followed"
                );
                assert!(unusable[0].ends_with(&reason), "{unusable:?}");
            }
        }
    }
    // Where it may not make any, the link is the operator's.
    let entry = "filesystem: [{path: TOP/app/plugin.json, permissions: [read, write]}]";
    assert_eq!(tree.unusable(entry, REQUESTED), [""; 0]);
    // A plugin cannot exchange the place of a whole granted directory.
    let entry = format!("filesystem: [{{path: TOP/app/inbox, permissions: [{everything}]}}]");
    assert_eq!(tree.unusable(&entry, REQUESTED), [""; 0]);
}

/// The whole way: a plugin that removes its file and puts a link there does not
/// find what the link names when the host starts again.
#[tokio::test]
async fn a_plugins_link_does_not_widen_its_grants_when_they_are_taken_anew() {
    let tree = Tree::new(&["app/secrets.json", "app/plugin.json"]);
    let entry =
        "filesystem: [{path: TOP/app/plugin.json, permissions: [read, write, create, delete]}]";
    let path = tree.at("app/plugin.json");
    let services = tree.services(entry, REQUESTED);
    assert_eq!(
        read(&services, &path).await.expect("its file"),
        b"app/plugin.json"
    );
    drop(services);
    // However it was made: by a command, by another plugin.
    std::fs::remove_file(&path).expect("removed");
    symlink("secrets.json", &path).expect("a link");
    let services = tree.services(entry, REQUESTED);
    let refused = read(&services, &path).await.expect_err("not followed");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(!refused.message().contains("secrets"), "{refused}");
}

#[tokio::test]
async fn a_file_that_may_be_made_is_made_where_its_directory_really_is() {
    let tree = Tree::new(&["real/file"]);
    tree.link("real", "alias");
    tree.link("nothing", "real/dangling");
    let entry = |name: &str| {
        format!("filesystem: [{{path: TOP/alias/{name}, permissions: [read, write, create]}}]")
    };
    let services = tree.services(&entry("new"), REQUESTED);
    assert_eq!(services.unusable().count(), 0);
    let peer = Peer::new(&services, "tested").await;
    let request = WriteFileRequest {
        path: tree.at("alias/new"),
        data: "made".into(),
        mode: 0o600,
        ..WriteFileRequest::default()
    };
    let _: WriteFileResponse = peer
        .call("Filesystem/WriteFile", request)
        .await
        .expect("made");
    assert_eq!(std::fs::read(tree.at("real/new")).expect("there"), b"made");
    peer.close().await;
    // Nothing is made at the end of a link.
    assert_eq!(tree.unusable(&entry("dangling"), REQUESTED).len(), 1);
    assert!(!Path::new(&tree.at("nothing")).exists());
}

async fn run(services: &GrantedServices, command: &str, args: &[&str]) -> Result<(), Status> {
    let peer = Peer::new(services, "tested").await;
    let request = RunRequest {
        command: Some(Command {
            command: command.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..Command::default()
        }),
        ..RunRequest::default()
    };
    let reply: Result<RunResponse, _> = peer.call("Process/Run", request).await;
    peer.close().await;
    reply.map(drop)
}

#[tokio::test]
async fn a_denied_program_is_denied_by_all_its_names() {
    let tree = Tree::new(&["other/file"]);
    std::fs::create_dir(tree.at("bin")).expect("a directory");
    std::fs::copy("/bin/true", tree.at("bin/tool")).expect("a copy");
    tree.link("bin/tool", "alias");
    tree.link("bin", "sbin");
    let policy = "{default: {sandbox: off, allow: requested, deny: {process: {exec: [
        {command: TOP/sbin/tool, args: [push]}]}}}}";
    let entries = "process: {exec: [{command: TOP/alias, args: [push]},
        {command: TOP/alias, args: [pull]}]}";
    let reason =
        "TOP/alias: it leads to \"TOP/bin/tool\", refused by policy default.deny.process.exec[0]";
    assert_eq!(tree.unusable(entries, policy), [reason]);
    let services = tree.services(entries, policy);
    let refused = run(&services, &tree.at("alias"), &["push"]).await;
    assert_eq!(refused.expect_err("denied").code(), Code::PermissionDenied);
    run(&services, &tree.at("alias"), &["pull"])
        .await
        .expect("not denied");
    let both = "process: {exec: [{command: TOP/bin/tool, args: [push]}]}";
    assert_eq!(tree.unusable(both, policy).len(), 1);
}

#[tokio::test]
async fn an_allowed_program_is_the_one_at_the_end_of_the_rules_links() {
    let tree = Tree::new(&["other/file"]);
    std::fs::create_dir(tree.at("bin")).expect("a directory");
    std::fs::copy("/bin/true", tree.at("bin/tool")).expect("a copy");
    tree.link("bin/tool", "alternatives/tool");
    tree.link("alternatives/tool", "usr/tool");
    let policy = "{default: {sandbox: off, allow: {
        filesystem: [{path: TOP, permissions: [read, create, write], recursive: true}],
        process: {exec: [{command: TOP/usr/tool, args: [\"*\"]}]}}}}";
    let exec = "process: {exec: [{command: TOP/usr/tool, args: [a]}]}";
    let services = tree.services(exec, policy);
    assert_eq!(services.unusable().count(), 0);
    run(&services, &tree.at("usr/tool"), &["a"])
        .await
        .expect("it ran");
    // Not when the plugin may have put a link on the way.
    for made in ["TOP/alternatives", "TOP/alternatives/tool"] {
        let entries =
            format!("{exec}, filesystem: [{{path: {made}, permissions: [create, write]}}]");
        let services = tree.services(&entries, policy);
        let reason = "\"TOP/alternatives/tool\" is a link where the plugin may make one, so it is not followed";
        let unusable = tree.unusable(&entries, policy);
        assert!(
            unusable.contains(&format!("TOP/usr/tool: {reason}")),
            "{unusable:?}"
        );
        let refused = run(&services, &tree.at("usr/tool"), &["a"]).await;
        let refused = refused.expect_err("refused");
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(!refused.message().contains("alternatives"), "{refused}");
    }
}
