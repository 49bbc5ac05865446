//! A trace goes on from a host through plugins in each language to the host's services.

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use outrigger_examples::proto::filelister::{FileListRequest, HostServiceRequest};
use outrigger_examples::{FileLister, host_services_cookie};
use outrigger_host::{Launch, PluginSet, RunningPlugin};
use outrigger_manifest::{Manifest, Places, Policy};
use outrigger_services::{AuditLog, AuditReceiver, AuditRecord, GrantedServices};
use outrigger_transport::TraceContext;
use support::{example, go_peer, lines_of, python, wait_for};

const ONE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn trace_id(traceparent: &str) -> String {
    traceparent[3..35].to_owned()
}

/// A folder with a file `one/file` and a file `other/file`, the services that let it be
/// read, and their records.
struct Place {
    folder: tempfile::TempDir,
    services: Arc<GrantedServices>,
    records: AuditReceiver,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        for name in ["one", "other"] {
            std::fs::create_dir(folder.path().join(name)).expect("a directory");
            std::fs::write(folder.path().join(name).join("file"), "text\n").expect("a file");
        }
        let manifest = format!(
            "plugin: {{name: traced, format: grpc, entrypoint: traced}}\n\
             handshake: {{protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}\n\
             services: [filesystem]\n\
             capabilities:\n  filesystem:\n    \
             - {{path: {:?}, permissions: [read, list], recursive: true}}\n",
            folder.path()
        );
        let manifest = Manifest::parse(&manifest).unwrap_or_else(|problems| panic!("{problems}"));
        let places = Places::new("/plugins/traced", "/data/traced").expect("places");
        let decision = Policy::allow_requested().decide(&manifest, &places);
        let (audit, records) = AuditLog::channel(1000);
        let services = GrantedServices::new(decision.grants()).audit(audit);
        Self {
            folder,
            services: Arc::new(services),
            records,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The records of work on files so far.
    fn on_files(&mut self) -> Vec<Arc<AuditRecord>> {
        let mut records = Vec::new();
        while let Some(record) = self.records.try_recv() {
            if record.capability == "filesystem" {
                records.push(record);
            }
        }
        records
    }
}

fn list(path: String, id: u32, traceparent: &str) -> tonic::Request<FileListRequest> {
    let mut request = tonic::Request::new(FileListRequest {
        root_dir: path,
        path: ".".into(),
        host_service: id,
    });
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", traceparent.parse().expect("a value"));
    metadata.insert("tracestate", "vendor=1".parse().expect("a value"));
    request
}

/// Lets a plugin on `hostserve.v1` list both folders at the same time, each in a trace of
/// its own, and gives the plugin.
async fn lists(place: &mut Place, launch: Launch) -> RunningPlugin {
    let set = PluginSet::new().with::<FileLister>("file-lister");
    let plugin = launch.offer(1, set).start().await.expect("started");
    let serving = plugin.serve(&*place.services).await.expect("services");
    let host_service = serving.id().0;
    let client = plugin.dispense::<FileLister>("file-lister").await;
    let mut one = client.expect("a client");
    let mut other = one.clone();
    one.establish_host_services(HostServiceRequest { host_service })
        .await
        .expect("established");
    for _ in 0..20 {
        let (one, other) = tokio::join!(
            one.list(list(place.path("one"), host_service, ONE)),
            other.list(list(place.path("other"), host_service, OTHER)),
        );
        for reply in [one, other] {
            let reply = reply.expect("a reply").into_inner();
            assert_eq!((reply.entry.len(), reply.error), (1, None));
        }
    }
    let records = place.on_files();
    assert!(records.len() >= 40, "{records:?}");
    for record in records {
        let traceparent = match record.argument.contains(&place.path("one")) {
            true => ONE,
            false => OTHER,
        };
        // What works on a handle does not name its folder.
        let of_either = !record.argument.contains(&*place.path(""));
        let told = record.trace_id.clone().expect("in a trace");
        let known = [trace_id(ONE), trace_id(OTHER)].contains(&told);
        assert!(
            told == trace_id(traceparent) || of_either && known,
            "{record}"
        );
    }
    plugin
}

#[tokio::test]
async fn a_go_plugin_with_otelgrpc_continues_the_trace_of_its_host() {
    let Some(program) = go_peer("traced") else {
        return;
    };
    lines_of("traced-go");
    let mut place = Place::new();
    let launch = Launch::new(program, host_services_cookie()).named("traced-go");
    let plugin = lists(&mut place, launch).await;
    let spans = || -> Vec<String> {
        let lines = lines_of("traced-go").into_iter();
        let spans = lines.filter(|line| line.text("message") == "span");
        spans.map(|line| line.text("fields")).collect()
    };
    // Two for each call that is sampled: the call, and what it asks of the host.
    let of_one = || {
        let named = format!("trace={}", trace_id(ONE));
        let spans = spans().into_iter();
        spans
            .filter(|span| span.contains(&named))
            .collect::<Vec<_>>()
    };
    wait_for("its spans", || of_one().len() >= 40).await;
    plugin.stop().await;
    let field = |span: &str, name: &str| -> String {
        let found = span.split(' ').find_map(|field| {
            let (key, value) = field.split_once('=')?;
            (key == name).then(|| value.trim_matches('"').to_owned())
        });
        found.unwrap_or_else(|| panic!("no {name} in {span}"))
    };
    let unsampled = trace_id(OTHER);
    assert!(!spans().iter().any(|span| span.contains(&unsampled)));
    let spans = of_one();
    assert_eq!(spans.len(), 40, "{spans:?}");
    let servers: Vec<&String> = spans
        .iter()
        .filter(|span| field(span, "kind") == "server")
        .collect();
    assert_eq!(servers.len(), 20, "{spans:?}");
    let known: BTreeSet<String> = servers.iter().map(|span| field(span, "span")).collect();
    for span in &spans {
        match field(span, "kind").as_str() {
            "server" => assert_eq!(field(span, "parent"), ONE[36..52], "{span}"),
            _ => assert!(known.contains(&field(span, "parent")), "{span}"),
        }
        assert!(span.contains("vendor=1"), "{span}");
    }
}

#[tokio::test]
async fn a_rust_plugin_passes_the_trace_on_and_names_it_in_its_log() {
    lines_of("traced-rust");
    let mut place = Place::new();
    let program = example("filelister");
    let launch = Launch::new(program, host_services_cookie()).named("traced-rust");
    let plugin = lists(&mut place, launch).await;
    let named = || in_traces("traced-rust");
    wait_for("its log", || named() == (20, 20)).await;
    plugin.stop().await;
}

#[tokio::test]
async fn a_python_plugin_passes_the_trace_on_and_names_it_in_its_log() {
    let Some(python) = python() else { return };
    lines_of("traced-python");
    let mut place = Place::new();
    let script = repository().join("examples/python/lister.py");
    let launch = Launch::new(python, host_services_cookie())
        .arg(script)
        .named("traced-python");
    let plugin = lists(&mut place, launch).await;
    wait_for("its log", || in_traces("traced-python") == (20, 20)).await;
    plugin.stop().await;
}

/// How many lines `listed` the log has of each trace.
fn in_traces(plugin: &str) -> (usize, usize) {
    let lines = lines_of(plugin);
    let count = |traceparent: &str| {
        let named = format!("trace_id={}", trace_id(traceparent));
        let listed = lines.iter().filter(|line| line.text("message") == "listed");
        listed
            .filter(|line| line.text("fields").contains(&named))
            .count()
    };
    (count(ONE), count(OTHER))
}

fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[tokio::test]
async fn what_is_handed_over_by_descriptor_is_recorded_in_the_trace_as_well() {
    let mut launches = vec![(
        "doors",
        Launch::new(env!("CARGO_BIN_EXE_doors"), host_services_cookie()),
    )];
    if let Some(python) = python() {
        let script = repository().join("examples/python/granted_lister.py");
        launches.push((
            "granted-lister",
            Launch::new(python, host_services_cookie()).arg(script),
        ));
    }
    for (name, launch) in launches {
        let mut place = Place::new();
        let plugin = launch
            .offer(1, PluginSet::new().with::<FileLister>(name))
            .host_services(place.services.clone())
            .start()
            .await
            .expect("started");
        let client = plugin.dispense::<FileLister>(name).await;
        let mut client = client.expect("a client");
        for (folder, traceparent) in [("one", Some(ONE)), ("other", Some(OTHER)), ("one", None)] {
            let path = match name {
                "doors" => format!(
                    "descriptor\nopen\n{}\nr",
                    place.path(&format!("{folder}/file"))
                ),
                _ => place.path(folder),
            };
            let mut request = list(String::new(), 0, ONE);
            request.get_mut().path = path;
            request.metadata_mut().remove("traceparent");
            let call = client.list(request);
            let reply = match traceparent {
                // As a handler of a call in that trace makes it.
                Some(traceparent) => {
                    let trace = TraceContext::parse(traceparent, None);
                    trace.expect("well-formed").scope(call).await
                }
                None => call.await,
            };
            let reply = reply.expect("a reply").into_inner();
            assert_eq!(reply.error, None, "{name}");
            let records = place.on_files();
            let opened = records.iter().filter(|record| record.operation == "open");
            assert!(opened.count() > 0, "{name}: {records:?}");
            for record in records {
                assert_eq!(
                    record.trace_id,
                    traceparent.map(trace_id),
                    "{name}: {record}"
                );
            }
        }
        plugin.stop().await;
    }
}
