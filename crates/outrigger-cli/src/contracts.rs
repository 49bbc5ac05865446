//! Published services of plugins that do not describe themselves.
//!
//! Python's gRPC serves no reflection unless asked to, so the published plugins
//! in it could not be called at all. What a plugin says about itself always
//! comes first.

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
};

use crate::failure::{Exit, Failure};

/// A field: its name and type; numbers count from 1.
type Field = (&'static str, Shape);
/// A message: its name and fields.
type Message = (&'static str, &'static [Field]);

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Texts,
    /// `optional string`.
    MaybeText,
    Number,
    /// `int64`.
    Long,
    Bytes,
    Truth,
}

/// Method, request, reply; all are unary.
type Method = (&'static str, &'static str, &'static str);

struct Contract {
    file: &'static str,
    package: &'static str,
    messages: &'static [Message],
    /// Each with its methods; those after the first are served by hosts.
    services: &'static [(&'static str, &'static [Method])],
}

const REQUEST: Message = ("HostServiceRequest", &[("host_service", Shape::Number)]);
const RESPONSE: Message = (
    "HostServiceResponse",
    &[("client_id", Shape::Text), ("error", Shape::MaybeText)],
);
const ESTABLISH: Method = (
    "EstablishHostServices",
    "HostServiceRequest",
    "HostServiceResponse",
);
const RESP: &[Field] = &[("resp", Shape::Text), ("error", Shape::MaybeText)];

const CONTRACTS: [Contract; 5] = [
    Contract {
        file: "filelister.proto",
        package: "filelister.v1",
        messages: &[
            REQUEST,
            RESPONSE,
            (
                "FileListRequest",
                &[
                    ("root_dir", Shape::Text),
                    ("path", Shape::Text),
                    ("host_service", Shape::Number),
                ],
            ),
            (
                "FileListResponse",
                &[("entry", Shape::Texts), ("error", Shape::MaybeText)],
            ),
        ],
        services: &[(
            "FileLister",
            &[ESTABLISH, ("List", "FileListRequest", "FileListResponse")],
        )],
    },
    Contract {
        file: "hostdemo.proto",
        package: "hostdemo.v1",
        messages: &[
            REQUEST,
            RESPONSE,
            ("GetEnvDemoReq", &[("key", Shape::Text)]),
            ("GetEnvDemoResp", RESP),
            ("EnvDemoReq", &[]),
            ("EnvDemoResp", RESP),
            (
                "TempDemoReq",
                &[("pattern", Shape::Text), ("text_to_write", Shape::Text)],
            ),
            ("TempDemoResp", RESP),
            (
                "CreateDemoReq",
                &[
                    ("dir_to_create", Shape::Text),
                    ("file_to_create", Shape::Text),
                ],
            ),
            (
                "CreateDemoResp",
                &[("demo_resp", Shape::Text), ("error", Shape::MaybeText)],
            ),
            ("ReadFrankensteinReq", &[]),
            (
                "ReadFrankensteinResp",
                &[("frank", Shape::Text), ("error", Shape::MaybeText)],
            ),
        ],
        services: &[(
            "HostDemo",
            &[
                ESTABLISH,
                ("GetEnvDemo", "GetEnvDemoReq", "GetEnvDemoResp"),
                ("EnvDemo", "EnvDemoReq", "EnvDemoResp"),
                ("TempDemo", "TempDemoReq", "TempDemoResp"),
                ("CreateDirFileDemo", "CreateDemoReq", "CreateDemoResp"),
                (
                    "ReadFrankenstein",
                    "ReadFrankensteinReq",
                    "ReadFrankensteinResp",
                ),
            ],
        )],
    },
    Contract {
        file: "animal.proto",
        package: "animal.v1",
        messages: &[
            ("SpeakRequest", &[("isLoud", Shape::Truth)]),
            ("SpeakResponse", &[("resp", Shape::Text)]),
        ],
        services: &[("Animal", &[("Speak", "SpeakRequest", "SpeakResponse")])],
    },
    Contract {
        file: "kv.proto",
        package: "proto",
        messages: &[
            ("GetRequest", &[("key", Shape::Text)]),
            ("GetResponse", &[("value", Shape::Bytes)]),
            (
                "PutRequest",
                &[("key", Shape::Text), ("value", Shape::Bytes)],
            ),
            ("Empty", &[]),
        ],
        services: &[(
            "KV",
            &[
                ("Get", "GetRequest", "GetResponse"),
                ("Put", "PutRequest", "Empty"),
            ],
        )],
    },
    Contract {
        file: "counter.proto",
        package: "proto",
        messages: &[
            ("GetRequest", &[("key", Shape::Text)]),
            ("GetResponse", &[("value", Shape::Long)]),
            (
                "PutRequest",
                &[
                    ("add_server", Shape::Number),
                    ("key", Shape::Text),
                    ("value", Shape::Long),
                ],
            ),
            ("Empty", &[]),
            ("SumRequest", &[("a", Shape::Long), ("b", Shape::Long)]),
            ("SumResponse", &[("r", Shape::Long)]),
        ],
        services: &[
            (
                "Counter",
                &[
                    ("Get", "GetRequest", "GetResponse"),
                    ("Put", "PutRequest", "Empty"),
                ],
            ),
            ("AddHelper", &[("Sum", "SumRequest", "SumResponse")]),
        ],
    },
];

/// Their files.
pub(crate) fn files() -> Vec<FileDescriptorProto> {
    CONTRACTS.iter().map(file).collect()
}

/// Their files, and those of the services that every gRPC plugin has.
///
/// # Errors
/// `descriptors-invalid`, which would be our own fault.
pub(crate) fn all() -> Result<FileDescriptorSet, Failure> {
    let standard = FileDescriptorSet::decode(outrigger_transport::GO_PLUGIN_DESCRIPTORS);
    let mut all = standard.map_err(|error| {
        let message = "own descriptors are damaged";
        Failure::new(Exit::Internal, "descriptors-invalid", message).note(error.to_string())
    })?;
    all.file.extend(files());
    Ok(all)
}

fn file(contract: &Contract) -> FileDescriptorProto {
    let services = contract.services.iter();
    FileDescriptorProto {
        name: Some(contract.file.to_owned()),
        package: Some(contract.package.to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: contract.messages.iter().map(message).collect(),
        service: services
            .map(|(name, methods)| service(contract.package, name, methods))
            .collect(),
        ..Default::default()
    }
}

fn service(package: &str, name: &str, methods: &[Method]) -> ServiceDescriptorProto {
    let full = |name: &str| Some(format!(".{package}.{name}"));
    let methods = methods
        .iter()
        .map(|(name, request, reply)| MethodDescriptorProto {
            name: Some((*name).to_owned()),
            input_type: full(request),
            output_type: full(reply),
            ..Default::default()
        });
    ServiceDescriptorProto {
        name: Some(name.to_owned()),
        method: methods.collect(),
        ..Default::default()
    }
}

fn message((name, fields): &Message) -> DescriptorProto {
    let optional = fields
        .iter()
        .filter(|(_, shape)| matches!(shape, Shape::MaybeText));
    DescriptorProto {
        name: Some((*name).to_owned()),
        // proto3 has an `optional` as the only field of a oneof; none has two.
        oneof_decl: optional
            .map(|(name, _)| OneofDescriptorProto {
                name: Some(format!("_{name}")),
                ..Default::default()
            })
            .collect(),
        field: (1..).zip(*fields).map(|(at, of)| field(at, of)).collect(),
        ..Default::default()
    }
}

fn field(number: i32, (name, shape): &Field) -> FieldDescriptorProto {
    let optional = matches!(shape, Shape::MaybeText);
    let kind = match shape {
        Shape::Text | Shape::Texts | Shape::MaybeText => Type::String,
        Shape::Number => Type::Uint32,
        Shape::Long => Type::Int64,
        Shape::Bytes => Type::Bytes,
        Shape::Truth => Type::Bool,
    };
    let label = match shape {
        Shape::Texts => Label::Repeated,
        _ => Label::Optional,
    };
    FieldDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(label.into()),
        proto3_optional: optional.then_some(true),
        oneof_index: optional.then_some(0),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    /// The services of a file, each with the number of its methods, from types made of it.
    fn services(file: FileDescriptorProto) -> (DescriptorPool, Vec<(String, usize)>) {
        let pool = DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: vec![file] })
            .expect("sound descriptors");
        let services = pool.services();
        let names = services.map(|own| (own.full_name().to_owned(), own.methods().len()));
        let names = names.collect();
        (pool, names)
    }

    #[test]
    fn types_can_be_made_of_every_contract() {
        let all = files().into_iter().flat_map(|file| services(file).1);
        let all: Vec<_> = all.collect();
        let all: Vec<_> = all.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(
            all,
            [
                ("filelister.v1.FileLister", 2),
                ("hostdemo.v1.HostDemo", 6),
                ("animal.v1.Animal", 1),
                ("proto.KV", 2),
                ("proto.Counter", 2),
                ("proto.AddHelper", 1),
            ]
        );
        let (pool, _) = services(files().swap_remove(0));
        let list = pool
            .get_message_by_name("filelister.v1.FileListResponse")
            .expect("it is there");
        assert!(list.get_field_by_name("entry").expect("a field").is_list());
        let error = list.get_field_by_name("error").expect("a field");
        assert!(error.supports_presence() && error.number() == 2);
    }
}
