//! `call --establish` with plugins that have no broker, and what is sent to them.

use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use outrigger_transport::{IncomingBody, ServiceSet};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status};
use tower_service::Service;

use super::{Fake, Ran, run};

/// What each method of `intro.Intro` replies with.
const METHODS: [(&str, &str); 4] = [
    ("Silent", "Nothing"),
    ("Needless", "Named"),
    ("Takes", "Named"),
    ("Fails", "Named"),
];

/// A service that answers only who sends `multiplex-id`, as go-plugin backends
/// that serve several hosts do.
#[derive(Clone)]
struct Intro;

impl tonic::server::NamedService for Intro {
    const NAME: &'static str = "intro.Intro";
}

impl Service<http::Request<IncomingBody>> for Intro {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = Result<Self::Response, std::convert::Infallible>> + Send>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<IncomingBody>) -> Self::Future {
        let path = request.uri().path();
        let method = path.rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            Ok(tonic::server::Grpc::new(Raw)
                .unary(Answer(method), request)
                .await)
        })
    }
}

struct Answer(String);

impl Service<Request<Vec<u8>>> for Answer {
    type Response = Response<Vec<u8>>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        std::future::ready(if request.metadata().get("multiplex-id").is_none() {
            Err(Status::failed_precondition("no multiplexing ID found"))
        } else if self.0 == "Fails" {
            Err(Status::unavailable("the host cannot be reached"))
        } else if self.0 == "Absent" {
            Err(Status::unimplemented("unknown method"))
        } else if self.0 == "Takes" {
            Ok(Response::new(b"\x0a\x04me-1".to_vec()))
        } else {
            Ok(Response::new(Vec::new()))
        })
    }
}

/// Messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

fn file() -> &'static [u8] {
    let message = |name: &str, field: Option<(&str, Type)>| DescriptorProto {
        name: Some(name.into()),
        field: field
            .map(|(name, kind)| FieldDescriptorProto {
                name: Some(name.into()),
                number: Some(1),
                label: Some(Label::Optional.into()),
                r#type: Some(kind.into()),
                ..Default::default()
            })
            .into_iter()
            .collect(),
        ..Default::default()
    };
    let methods = METHODS
        .iter()
        .chain(&[("Absent", "Named"), ("Fill", "Nothing")]);
    let file = FileDescriptorProto {
        name: Some("intro.proto".into()),
        package: Some("intro".into()),
        syntax: Some("proto3".into()),
        message_type: vec![
            message("Offer", Some(("host_service", Type::Uint32))),
            message("Nothing", None),
            message("Named", Some(("client_id", Type::String))),
        ],
        service: vec![ServiceDescriptorProto {
            name: Some("Intro".into()),
            method: methods
                .map(|(name, reply)| MethodDescriptorProto {
                    name: Some((*name).into()),
                    input_type: Some(".intro.Offer".into()),
                    output_type: Some(format!(".intro.{reply}")),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let set = FileDescriptorSet { file: vec![file] };
    set.encode_to_vec().leak()
}

/// A plugin with a controller and no broker.
fn plugin() -> Fake {
    let more = |services: ServiceSet| services.with(Intro).describe(file());
    Fake::new(more, true)
}

fn introduced(plugin: &Fake, method: &str) -> Ran {
    run(&[
        "call",
        "--establish",
        method,
        "--metadata",
        "multiplex-id=7",
        "--method",
        "grpc.health.v1.Health/Check",
        "--data",
        "{\"service\": \"plugin\"}",
        "--",
        &plugin.program(),
    ])
}

#[test]
fn a_plugin_without_a_broker_is_introduced_all_the_same() {
    let plugin = plugin();
    let needless = "note: the plugin named no client id";
    let no_broker = "the plugin has no broker (`plugin.GRPCBroker`)";
    for (method, _) in METHODS {
        let ran = introduced(&plugin, &format!("intro.Intro/{method}"));
        let (code, says_needless, says_no_broker) = match method {
            // Its reply has no field for the id.
            "Silent" => (0, false, false),
            "Needless" => (0, true, false),
            // It says that it took what it cannot reach.
            "Takes" => (0, false, true),
            _ => (1, false, true),
        };
        let ran = ran.expect(code);
        assert_eq!(ran.stderr.contains(needless), says_needless, "{ran:?}");
        assert_eq!(ran.stderr.contains(no_broker), says_no_broker, "{ran:?}");
        if code == 1 {
            ran.says("error[establish-failed]")
                .says("UNAVAILABLE: \"the host cannot be reached\"");
        }
    }
    introduced(&plugin, "intro.Intro/Absent")
        .expect(0)
        .says("note: the plugin does not implement `intro.Intro/Absent`");
}

#[test]
fn metadata_goes_with_the_introduction_too() {
    let plugin = plugin();
    let call = |more: &[&str]| {
        let program = plugin.program();
        let mut args = vec!["call", "--method", "intro.Intro/Fill"];
        args.extend(["--establish", "intro.Intro/Needless"]);
        args.extend(more);
        args.extend(["--", &program]);
        run(&args)
    };
    call(&["--metadata", "multiplex-id=7"]).expect(0);
    call(&["--metadata", "other=7"])
        .expect(1)
        .says("error[establish-failed]")
        .says("no multiplexing ID found");
}
