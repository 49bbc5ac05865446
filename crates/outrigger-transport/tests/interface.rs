//! One trait, called over gRPC and over net/rpc, and the `.proto` file that is
//! printed of it.
#![allow(missing_docs)] // Some is written, to be found in the file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use outrigger_macros::{interface, message};
use outrigger_transport::interface::{Code, Interface, MethodError, Streaming, proto_text};
use outrigger_transport::{
    Broker, BrokerError, BrokerId, Channel, ChannelOptions, Fate, Listener, OwnedTask, ServeLimits,
    Stream, netrpc, serve_connection,
};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio_util::sync::CancellationToken;

/// Everything that a field can be.
#[message(netrpc, crate = ::outrigger_transport)]
pub struct Everything {
    /// Two lines
    /// of words.
    pub text: String,
    pub flag: bool,
    pub small: i32,
    pub large: i64,
    pub count: u32,
    pub total: u64,
    pub ratio: f64,
    pub raw: Vec<u8>,
    #[tag = 30]
    pub shared: Bytes,
    #[tag = 31]
    pub maybe: Option<String>,
    pub list: Vec<String>,
    pub numbers_of_it: Vec<i64>,
    pub counts: HashMap<String, u32>,
    pub by_number: BTreeMap<i64, Inner>,
    #[tag = 16]
    pub inner: Inner,
    #[tag = 20]
    pub next: Option<Box<Everything>>,
    #[tag = 21]
    pub all: Vec<Inner>,
    #[tag = 22]
    pub r#type: Option<u32>,
}

#[message(netrpc, crate = ::outrigger_transport)]
#[derive(Eq)]
pub struct Inner {
    pub name: String,
}

/// Has a method of every form.
#[interface(package = "forms.v1", netrpc, crate = ::outrigger_transport)]
pub trait Forms {
    /// No argument and no value.
    async fn nothing(&self) -> Result<(), MethodError>;
    async fn one(&self, name: String) -> Result<String, MethodError>;
    async fn several(
        &self,
        /// Who it is.
        name: String,
        #[tag = 4] times: u32,
        #[tag = 3] raw: Vec<u8>,
    ) -> Result<u64, MethodError>;
    async fn whole(&self, everything: Everything) -> Result<Everything, MethodError>;
    #[method(name = "Find", request = "Wanted", reply = "Found", field = "inner")]
    async fn look_for(
        &self,
        caller: Option<Inner>,
        reply: String,
    ) -> Result<Vec<Inner>, MethodError>;
    async fn fail(&self, code: i32) -> Result<(), MethodError>;
    async fn forever(&self) -> Result<(), MethodError>;
    /// Counts up to `last`.
    async fn count(&self, last: u32) -> Result<Streaming<u32>, MethodError>;
    async fn inners(&self) -> Result<Streaming<Inner>, MethodError>;
}

#[derive(Default)]
struct Served {
    dropped: Arc<AtomicBool>,
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Forms for Served {
    async fn nothing(&self) -> Result<(), MethodError> {
        Ok(())
    }

    async fn one(&self, name: String) -> Result<String, MethodError> {
        Ok(format!("hello, {name}"))
    }

    async fn several(&self, name: String, times: u32, raw: Vec<u8>) -> Result<u64, MethodError> {
        Ok((name.len() * raw.len()) as u64 * u64::from(times))
    }

    async fn whole(&self, everything: Everything) -> Result<Everything, MethodError> {
        Ok(everything)
    }

    async fn look_for(
        &self,
        caller: Option<Inner>,
        reply: String,
    ) -> Result<Vec<Inner>, MethodError> {
        Ok(caller.into_iter().chain([Inner { name: reply }]).collect())
    }

    async fn fail(&self, code: i32) -> Result<(), MethodError> {
        Err(MethodError::new(Code::from_i32(code), "it was asked to"))
    }

    async fn forever(&self) -> Result<(), MethodError> {
        let _dropped = SetOnDrop(self.dropped.clone());
        std::future::pending().await
    }

    async fn count(&self, last: u32) -> Result<Streaming<u32>, MethodError> {
        let numbers = (1..=last).map(Ok);
        let end = MethodError::new(Code::OutOfRange, "no more numbers");
        Ok(Box::pin(futures_util::stream::iter(
            numbers.chain([Err(end)]),
        )))
    }

    async fn inners(&self) -> Result<Streaming<Inner>, MethodError> {
        let named = |name: &str| Ok(Inner { name: name.into() });
        Ok(Box::pin(futures_util::stream::iter(["a", "b"].map(named))))
    }
}

/// A broker for interfaces that use none.
#[derive(Debug)]
struct NoBroker;

#[tonic::async_trait]
impl Broker for NoBroker {
    fn next_id(&self) -> BrokerId {
        BrokerId(1)
    }

    async fn accept(&self, _: BrokerId) -> Result<Listener, BrokerError> {
        std::future::pending().await
    }

    async fn dial(&self, _: BrokerId) -> Result<Stream, BrokerError> {
        std::future::pending().await
    }

    fn fate(&self) -> Fate {
        Fate::new()
    }

    fn close(&self) {}
}

/// Serves over one end of a stream and calls over the other.
async fn over_grpc(served: Served) -> (FormsClient, OwnedTask) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let services = FormsServer::new(served).grpc();
    let limits = ServeLimits::default();
    let serving = serve_connection(Box::new(far), services, limits, CancellationToken::new());
    let serving = OwnedTask::spawn(serving);
    let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
    let client = FormsClient::grpc(channel.expect("connected"), Arc::new(NoBroker));
    (client.expect("gRPC is supported"), serving)
}

fn over_netrpc(served: Served) -> (FormsClient, OwnedTask) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let methods = FormsServer::new(served).netrpc();
    let limits = ServeLimits::default();
    let serving = netrpc::serve(Box::new(far), methods, limits, CancellationToken::new());
    let serving = OwnedTask::spawn(serving);
    let client = netrpc::Client::new(Box::new(near), Fate::new());
    let client = FormsClient::netrpc(client, Arc::new(NoBroker));
    (client.expect("net/rpc is supported"), serving)
}

fn everything() -> Everything {
    let inner = |name: &str| Inner { name: name.into() };
    Everything {
        text: "text".into(),
        flag: true,
        small: -1,
        large: i64::MIN,
        count: 3,
        total: u64::MAX,
        ratio: 0.5,
        raw: vec![0, 255],
        shared: Bytes::from_static(b"shared"),
        maybe: Some("maybe".into()),
        list: vec!["a".into(), "b".into()],
        numbers_of_it: vec![1, -1],
        counts: HashMap::from([("a".into(), 1)]),
        by_number: BTreeMap::from([(-7, inner("seven"))]),
        inner: inner("inner"),
        next: Some(Box::new(Everything {
            text: "next".into(),
            ..Everything::default()
        })),
        all: vec![inner("x"), inner("y")],
        r#type: Some(9),
    }
}

async fn calls_arrive_as_they_were_made(client: FormsClient) -> Result<(), MethodError> {
    client.nothing().await?;
    assert_eq!(client.one("Ada".into()).await?, "hello, Ada");
    assert_eq!(client.several("Ada".into(), 7, vec![1, 2]).await?, 42);
    assert_eq!(client.whole(everything()).await?, everything());
    let inner = |name: &str| Inner { name: name.into() };
    let found = client.look_for(Some(inner("x")), "y".into()).await?;
    assert_eq!(found, [inner("x"), inner("y")]);
    let found = client.look_for(None, "y".into()).await?;
    assert_eq!(found, [inner("y")]);
    Ok(())
}

#[tokio::test]
async fn values_arrive_as_they_were_sent_over_grpc() {
    let (client, _serving) = over_grpc(Served::default()).await;
    calls_arrive_as_they_were_made(client).await.expect("calls");
}

#[tokio::test]
async fn values_arrive_as_they_were_sent_over_netrpc() {
    let (client, _serving) = over_netrpc(Served::default());
    calls_arrive_as_they_were_made(client).await.expect("calls");
}

#[tokio::test]
async fn an_error_crosses_with_its_code_over_grpc_and_with_its_text_over_netrpc() {
    let (client, _serving) = over_grpc(Served::default()).await;
    let error = client.fail(Code::NotFound as i32).await.expect_err("fails");
    assert_eq!(
        (error.code(), error.message()),
        (Code::NotFound, "it was asked to")
    );

    let (client, _serving) = over_netrpc(Served::default());
    let error = client.fail(Code::NotFound as i32).await.expect_err("fails");
    assert_eq!(
        (error.code(), error.message()),
        (Code::Unknown, "it was asked to")
    );
}

#[tokio::test]
async fn a_stream_brings_its_messages_and_then_its_error() {
    let (client, _serving) = over_grpc(Served::default()).await;
    let mut numbers = client.count(2).await.expect("a stream");
    let mut received = Vec::new();
    let error = loop {
        match numbers.next().await.expect("an error comes first") {
            Ok(number) => received.push(number),
            Err(error) => break error,
        }
    };
    assert_eq!(received, [1, 2]);
    assert_eq!(error.code(), Code::OutOfRange);

    let inners: Vec<_> = client.inners().await.expect("a stream").collect().await;
    let names: Vec<_> = inners
        .into_iter()
        .map(|inner| inner.expect("an inner").name)
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn a_stream_over_netrpc_is_refused_where_it_is_called() {
    let (client, _serving) = over_netrpc(Served::default());
    let error = client.count(2).await.err().expect("no stream");
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.message().contains("`count`"), "{error}");
}

#[tokio::test]
async fn a_caller_waits_no_longer_than_its_timeout() {
    let limit = Duration::from_millis(50);
    let (client, _serving) = over_grpc(Served::default()).await;
    let error = client
        .with_timeout(limit)
        .forever()
        .await
        .expect_err("too late");
    assert_eq!(error.code(), Code::DeadlineExceeded);

    let (client, _serving) = over_netrpc(Served::default());
    let error = client
        .with_timeout(limit)
        .forever()
        .await
        .expect_err("too late");
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_dropped_call_over_grpc_drops_the_method_at_the_other_end() {
    let dropped = Arc::new(AtomicBool::new(false));
    let (client, _serving) = over_grpc(Served {
        dropped: dropped.clone(),
    })
    .await;
    let waited = tokio::time::timeout(Duration::from_millis(50), client.forever()).await;
    assert!(waited.is_err());
    let dropped = async {
        while !dropped.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    };
    let dropped = tokio::time::timeout(Duration::from_secs(10), dropped).await;
    dropped.expect("the method is dropped");
}

#[tokio::test]
async fn a_server_without_the_service_is_told_apart_from_one_that_fails() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let limits = ServeLimits::default();
    let none = outrigger_transport::ServiceSet::new();
    let serving = serve_connection(Box::new(far), none, limits, CancellationToken::new());
    let _serving = OwnedTask::spawn(serving);
    let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
    let client = FormsClient::grpc(channel.expect("connected"), Arc::new(NoBroker));
    let error = client
        .expect("a client")
        .nothing()
        .await
        .expect_err("no service");
    assert_eq!(error.code(), Code::Unimplemented);
}

/// What another compiler makes of the printed file.
fn compiled(file: &str, text: &str) -> FileDescriptorSet {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join(file);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, text).expect("written");
    let mut set = protox::compile([path], [root.path()]).expect("it compiles");
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

#[test]
fn the_printed_proto_compiles_to_the_descriptors_that_reflection_serves() {
    let description = FormsClient::description();
    let mut own =
        FileDescriptorSet::decode(description.file_descriptor_set()).expect("descriptors");
    own.file[0].source_code_info = None;
    let printed = compiled("forms/v1/forms.proto", &description.proto());
    assert_eq!(own, printed);
}

#[test]
fn the_printed_proto_has_the_names_and_numbers_of_the_trait_and_what_is_written_about_them() {
    let expected = include_str!("interface/forms.proto");
    assert_eq!(FormsClient::description().proto(), expected);
}

#[test]
fn every_proto_of_ours_is_printed_so_that_it_compiles_to_the_same_descriptors() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let mut names = Vec::new();
    for folder in [
        "",
        "grpc/health/v1",
        "grpc/reflection/v1",
        "outrigger/host/v1",
    ] {
        let folder = std::path::Path::new(root).join(folder);
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "proto") {
                names.push(path);
            }
        }
    }
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let known = compiled_files(root.as_ref(), [name]);
        let printed = tempfile::tempdir().expect("a folder");
        for file in &known {
            let path = printed.path().join(file.name());
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, proto_text(file)).expect("written");
        }
        let files = known.iter().map(|file| printed.path().join(file.name()));
        let again = compiled_files(printed.path(), files);
        assert_eq!(known.len(), again.len());
        for (file, other) in known.iter().zip(&again) {
            // Comments are printed again as they were.
            assert_eq!(proto_text(file), proto_text(other));
            let bare = |file: &FileDescriptorProto| FileDescriptorProto {
                source_code_info: None,
                // Ours have none; Google's have those of each language.
                options: None,
                ..file.clone()
            };
            assert_eq!(bare(file), bare(other), "{}", file.name());
        }
    }
}

fn compiled_files(
    root: &std::path::Path,
    files: impl IntoIterator<Item = std::path::PathBuf>,
) -> Vec<FileDescriptorProto> {
    let mut compiler = protox::Compiler::new([root]).expect("a compiler");
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files).expect("they compile");
    compiler.file_descriptor_set().file
}
