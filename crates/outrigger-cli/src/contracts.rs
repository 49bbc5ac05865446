//! Published services of plugins that do not describe themselves.
//!
//! Python's gRPC serves no reflection unless asked to, so the published plugins
//! in it could not be called at all. What a plugin says about itself always
//! comes first.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MethodDescriptorProto,
    OneofDescriptorProto, ServiceDescriptorProto,
};

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
    Truth,
}

struct Contract {
    file: &'static str,
    package: &'static str,
    service: &'static str,
    messages: &'static [Message],
    /// Method, request, reply; all are unary.
    methods: &'static [(&'static str, &'static str, &'static str)],
}

const REQUEST: Message = ("HostServiceRequest", &[("host_service", Shape::Number)]);
const RESPONSE: Message = (
    "HostServiceResponse",
    &[("client_id", Shape::Text), ("error", Shape::MaybeText)],
);
const ESTABLISH: (&str, &str, &str) = (
    "EstablishHostServices",
    "HostServiceRequest",
    "HostServiceResponse",
);
const RESP: &[Field] = &[("resp", Shape::Text), ("error", Shape::MaybeText)];

const CONTRACTS: [Contract; 3] = [
    Contract {
        file: "filelister.proto",
        package: "filelister.v1",
        service: "FileLister",
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
        methods: &[ESTABLISH, ("List", "FileListRequest", "FileListResponse")],
    },
    Contract {
        file: "hostdemo.proto",
        package: "hostdemo.v1",
        service: "HostDemo",
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
        methods: &[
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
    },
    Contract {
        file: "animal.proto",
        package: "animal.v1",
        service: "Animal",
        messages: &[
            ("SpeakRequest", &[("isLoud", Shape::Truth)]),
            ("SpeakResponse", &[("resp", Shape::Text)]),
        ],
        methods: &[("Speak", "SpeakRequest", "SpeakResponse")],
    },
];

/// Their files.
pub(crate) fn files() -> Vec<FileDescriptorProto> {
    CONTRACTS.iter().map(file).collect()
}

fn file(contract: &Contract) -> FileDescriptorProto {
    let full = |name: &str| Some(format!(".{}.{name}", contract.package));
    let methods = contract
        .methods
        .iter()
        .map(|(name, request, reply)| MethodDescriptorProto {
            name: Some((*name).to_owned()),
            input_type: full(request),
            output_type: full(reply),
            ..Default::default()
        });
    FileDescriptorProto {
        name: Some(contract.file.to_owned()),
        package: Some(contract.package.to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: contract.messages.iter().map(message).collect(),
        service: vec![ServiceDescriptorProto {
            name: Some(contract.service.to_owned()),
            method: methods.collect(),
            ..Default::default()
        }],
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
        Shape::Truth => Type::Bool,
    };
    let label = match shape {
        Shape::Texts => Label::Repeated,
        Shape::Text | Shape::MaybeText | Shape::Number | Shape::Truth => Label::Optional,
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
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn types_can_be_made_of_every_contract() {
        let pool = DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: files() })
            .expect("sound descriptors");
        let names: Vec<_> = pool
            .services()
            .map(|service| (service.full_name().to_owned(), service.methods().len()))
            .collect();
        let names: Vec<_> = names.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(
            names,
            [
                ("filelister.v1.FileLister", 2),
                ("hostdemo.v1.HostDemo", 6),
                ("animal.v1.Animal", 1)
            ]
        );
        let list = pool
            .get_message_by_name("filelister.v1.FileListResponse")
            .expect("it is there");
        assert!(list.get_field_by_name("entry").expect("a field").is_list());
        let error = list.get_field_by_name("error").expect("a field");
        assert!(error.supports_presence() && error.number() == 2);
    }
}
