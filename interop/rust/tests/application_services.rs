//! Services of an application's own: plugins in Rust, Go and Python call them by name.
#![allow(clippy::print_stderr)] // What is skipped is said.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use outrigger::{
    AuditLog, AuditReceiver, AuditRecord, Coded, ErrorKind, PluginIdentity, Policy, RunningPlugin,
    ServiceSet, Settings, Transport, Verdict,
};
use outrigger_examples::netrpc::Animal;
use outrigger_examples::proto::kv::kv_server::{Kv, KvServer};
use outrigger_examples::proto::kv::{Empty, GetRequest, GetResponse, PutRequest};
use support::{example, go_peer, python, stops_cleanly};
use tempfile::TempDir;
use tonic::{Request, Response, Status};

/// What the application teaches its parrots: one store for all of them, which notes who asks.
#[derive(Clone, Default)]
struct Phrases {
    known: Arc<BTreeMap<&'static str, &'static str>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Phrases {
    fn new() -> Self {
        Self {
            known: Arc::new(BTreeMap::from([("quiet", "Pretty bird!")])),
            asked: Arc::default(),
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }
}

#[tonic::async_trait]
impl Kv for Phrases {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let who = request.extensions().get::<PluginIdentity>();
        let who = who.expect("each call has it").name().to_owned();
        self.asked.lock().expect("lock").push(who);
        match self.known.get(request.get_ref().key.as_str()) {
            Some(phrase) => Ok(Response::new(GetResponse {
                value: (*phrase).into(),
            })),
            None => Err(Status::not_found("it was never taught that")),
        }
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("parrots learn from the application"))
    }
}

/// A folder with one parrot.
struct Cage(TempDir);

impl Cage {
    /// A parrot whose program is `program`, in this format and version, with these services.
    fn new(program: &Path, format: Transport, version: u32, services: &str) -> Self {
        let cage = Self(tempfile::tempdir().expect("a folder"));
        let format = match format {
            Transport::Grpc => "grpc",
            Transport::NetRpc => "rpc",
        };
        let manifest = format!(
            "plugin: {{name: parrot, type: animal, format: {format}, entrypoint: parrot}}
handshake: {{protocol_version: {version}, magic_cookie_key: PARROT_PLUGIN, magic_cookie_value: outrigger-parrot-netrpc}}
services: [{services}]
"
        );
        std::fs::write(cage.0.path().join("manifest.yaml"), manifest).expect("a manifest");
        std::os::unix::fs::symlink(program, cage.0.path().join("parrot")).expect("a program");
        cage
    }

    fn rust(services: &str) -> Self {
        Self::new(Path::new(&example("parrot")), Transport::Grpc, 1, services)
    }

    /// Settings with these phrases, and what is recorded.
    fn settings(phrases: &Phrases, policy: &str) -> (Settings, AuditReceiver) {
        let (audit, records) = AuditLog::channel(100);
        let server = KvServer::new(phrases.clone());
        let settings = Settings::new()
            .policy(Policy::parse(policy).expect("a policy"))
            .services(move |services| services.audit(audit.clone()))
            .service("phrases", move |_| ServiceSet::new().with(server.clone()))
            .expect("a name");
        (settings, records)
    }

    async fn start(&self, settings: &Settings) -> RunningPlugin {
        let plugin = settings.open_plugin(self.0.path()).expect("a plugin");
        plugin.start().await.expect("started")
    }
}

const PHRASES: &str = "plugins: {parrot: {allow: {services: [phrases]}}}";

/// The next record of a call of the application's services.
async fn next(records: &mut AuditReceiver) -> Arc<AuditRecord> {
    loop {
        let record = tokio::time::timeout(support::SOON, records.recv()).await;
        let record = record.expect("a record").expect("somebody records");
        if record.capability == "services" {
            return record;
        }
    }
}

/// Starts the parrot, lets it speak twice, and looks at what is left of that.
async fn speaks(cage: Cage) {
    let phrases = Phrases::new();
    let (settings, mut records) = Cage::settings(&phrases, PHRASES);
    let plugin = cage.start(&settings).await;
    let animal = plugin.client::<Animal>().await.expect("a client");
    assert_eq!(animal.speak(false).await.expect("it says"), "Pretty bird!");
    let error = animal
        .speak(true)
        .await
        .expect_err("it was not taught that");
    assert!(format!("{error:#}").contains("never taught"), "{error:#}");
    assert_eq!(phrases.asked(), ["parrot", "parrot"]);

    let said = next(&mut records).await;
    assert_eq!((&*said.plugin, said.operation), ("parrot", "call"));
    assert_eq!(said.argument, r#"service="phrases" method="/proto.KV/Get""#);
    assert_eq!((said.verdict, said.code), (Verdict::Allowed, "ok"));
    assert_eq!(
        said.rule,
        "services by policy plugins.parrot.allow.services"
    );
    assert_eq!(said.pid, plugin.pid());
    assert!(said.bytes > 0, "{said}");
    let missed = next(&mut records).await;
    assert_eq!(
        (missed.verdict, missed.code),
        (Verdict::Allowed, "not-found")
    );
    assert!(missed.reason.contains("never taught"), "{missed}");
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn a_rust_plugin_calls_the_applications_service_over_grpc() {
    speaks(Cage::rust("phrases")).await;
}

#[tokio::test]
async fn a_net_rpc_plugin_calls_the_same_service() {
    let program = example("parrot");
    speaks(Cage::new(
        Path::new(&program),
        Transport::NetRpc,
        2,
        "phrases",
    ))
    .await;
}

#[tokio::test]
async fn a_go_plugin_without_an_sdk_calls_the_applications_service() {
    let Some(program) = go_peer("parrot") else {
        return;
    };
    speaks(Cage::new(&program, Transport::Grpc, 1, "phrases")).await;
}

#[tokio::test]
async fn a_python_plugin_calls_the_applications_service() {
    let Some(program) = python_parrot() else {
        eprintln!("skipped: OUTRIGGER_PYTHON is not set");
        return;
    };
    speaks(Cage::new(&program.1, Transport::Grpc, 1, "phrases")).await;
}

/// A program that runs the parrot in Python by the interpreter of the tests, and the folder that
/// it is in.
fn python_parrot() -> Option<(TempDir, PathBuf)> {
    let python = python()?;
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/python/parrot.py"
    );
    let dir = tempfile::tempdir().expect("a folder");
    let program = dir.path().join("parrot");
    let text = format!("#!/bin/sh\nexec '{}' '{script}'\n", python.display());
    std::fs::write(&program, text).expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("executable");
    Some((dir, program))
}

#[tokio::test]
async fn what_is_refused_is_recorded_and_has_no_socket() {
    let phrases = Phrases::new();
    for (policy, services, code, rule) in [
        (
            "default: {}",
            "phrases",
            "not-allowed",
            "no rule of the policy allows it",
        ),
        (
            "default: {allow: requested, deny: {services: [phrases]}}",
            "phrases",
            "denied",
            "policy default.deny.services",
        ),
        (
            "default: {allow: requested}",
            "poems",
            "not-offered",
            "this application has no such service; it has `phrases`",
        ),
    ] {
        let (settings, mut records) = Cage::settings(&phrases, policy);
        let cage = Cage::rust(services);
        let plugin = settings.open_plugin(cage.0.path()).expect("a plugin");
        let refusal = &plugin.decision().refused()[0];
        assert_eq!((refusal.code(), refusal.rule.as_str()), (code, rule));
        let error = plugin.launch().expect_err("it asks for more");
        assert_eq!(error.code(), "capability-refused");
        assert!(matches!(error.kind(), ErrorKind::Refused { .. }));

        let plugin = cage.start(&settings.start_with_less()).await;
        let record = next(&mut records).await;
        assert_eq!(record.verdict, Verdict::Refused, "{record}");
        assert!(record.argument.contains(services), "{record}");
        assert_eq!(record.missing, format!("services: [{services}]"));
        let sockets = Path::new(&plugin.address().text)
            .parent()
            .expect("a folder");
        let animal = plugin.client::<Animal>().await.expect("a client");
        let error = animal.speak(false).await.expect_err("refused");
        assert!(
            format!("{error:#}").contains("no services of its own"),
            "{error:#}"
        );
        // Its own socket, and that of the host's services where the broker announced one.
        let names = support::files_beneath(sockets).len();
        assert!(names <= 2, "{names} sockets");
        stops_cleanly(plugin).await;
    }
    assert_eq!(phrases.asked(), [""; 0]);
}

#[tokio::test]
async fn several_plugins_share_one_service_which_tells_them_apart() {
    let phrases = Phrases::new();
    let (settings, _records) = Cage::settings(&phrases, "default: {allow: {services: [phrases]}}");
    let cage = Cage::rust("phrases");
    let one = cage.start(&settings).await;
    let manifest = std::fs::read_to_string(cage.0.path().join("manifest.yaml")).expect("read");
    let second = Cage::rust("phrases");
    let manifest = manifest.replace("name: parrot", "name: budgie");
    std::fs::write(second.0.path().join("manifest.yaml"), manifest).expect("written");
    let two = second.start(&settings).await;
    for plugin in [&one, &two, &one] {
        let animal = plugin.client::<Animal>().await.expect("a client");
        assert_eq!(animal.speak(false).await.expect("it says"), "Pretty bird!");
    }
    assert_eq!(phrases.asked(), ["parrot", "budgie", "parrot"]);
    stops_cleanly(one).await;
    stops_cleanly(two).await;
}
