//! An interface as data, and its descriptors.

use std::sync::OnceLock;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label as WireLabel, Type};
use prost_types::source_code_info::Location;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
    MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto, SourceCodeInfo,
};

use super::text::{MEMBER, MESSAGE, SERVICE, proto_text};

/// A message of protobuf that says what it is made of. `#[message]` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no message that an interface can carry",
    label = "not a message",
    note = "write `#[message]` above a struct of your own; a type of another crate becomes a field of one"
)]
pub trait Message: prost::Message + Default + 'static {
    /// Its name and fields.
    fn description() -> &'static MessageDescription;
}

/// A service of protobuf: the gRPC side of an interface.
#[derive(Debug)]
pub struct InterfaceDescription {
    service: &'static str,
    doc: &'static str,
    methods: &'static [MethodDescription],
    encoded: OnceLock<Vec<u8>>,
}

/// One method of an interface.
#[derive(Debug)]
pub struct MethodDescription {
    /// As on the wire: `Greet`.
    pub name: &'static str,
    /// Its documentation.
    pub doc: &'static str,
    /// What it takes.
    pub request: fn() -> &'static MessageDescription,
    /// What it answers with.
    pub reply: fn() -> &'static MessageDescription,
    /// Whether the answer is a stream of these.
    pub streams: bool,
}

/// One message.
#[derive(Debug)]
pub struct MessageDescription {
    /// Without its package.
    pub name: &'static str,
    /// Its documentation.
    pub doc: &'static str,
    /// In the order of the source.
    pub fields: &'static [FieldDescription],
}

/// One field of a message.
#[derive(Debug)]
pub struct FieldDescription {
    /// As in the `.proto` file.
    pub name: &'static str,
    /// Its documentation.
    pub doc: &'static str,
    /// The field's number, which is what crosses.
    pub number: i32,
    /// How often it is there.
    pub label: Label,
    /// What it is.
    pub kind: Kind,
}

/// How often a field is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Once; a value that is not sent reads as its zero.
    One,
    /// Once or not at all.
    Optional,
    /// Any number of times.
    Repeated,
    /// As the values of a map with keys of this type.
    Map(Scalar),
}

/// What a field is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A value.
    Scalar(Scalar),
    /// Another message.
    Message(fn() -> &'static MessageDescription),
}

/// A type of protobuf that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Their names say it.
pub enum Scalar {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Float,
    Double,
    String,
    Bytes,
}

impl Scalar {
    fn wire_type(self) -> Type {
        match self {
            Self::Bool => Type::Bool,
            Self::Int32 => Type::Int32,
            Self::Int64 => Type::Int64,
            Self::Uint32 => Type::Uint32,
            Self::Uint64 => Type::Uint64,
            Self::Float => Type::Float,
            Self::Double => Type::Double,
            Self::String => Type::String,
            Self::Bytes => Type::Bytes,
        }
    }
}

impl InterfaceDescription {
    /// A service with its full name, such as `greeter.v1.Greeter`.
    pub const fn new(
        service: &'static str,
        doc: &'static str,
        methods: &'static [MethodDescription],
    ) -> Self {
        Self {
            service,
            doc,
            methods,
            encoded: OnceLock::new(),
        }
    }

    /// The full name: `greeter.v1.Greeter`.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// The methods, in the order of the source.
    pub fn methods(&self) -> &'static [MethodDescription] {
        self.methods
    }

    /// Where the `.proto` file is, as other languages expect it: `greeter/v1/greeter.proto`.
    pub fn file_name(&self) -> String {
        let mut path = self.service.replace('.', "/");
        path.truncate(path.len() - self.name().len());
        let mut after_small = false;
        for letter in self.name().chars() {
            if after_small && letter.is_uppercase() {
                path.push('_');
            }
            after_small = letter.is_lowercase() || letter.is_ascii_digit();
            path.extend(letter.to_lowercase());
        }
        path + ".proto"
    }

    fn package(&self) -> &'static str {
        self.split().0
    }

    fn name(&self) -> &'static str {
        self.split().1
    }

    fn split(&self) -> (&'static str, &'static str) {
        self.service.rsplit_once('.').unwrap_or(("", self.service))
    }

    /// The interface as a `.proto` file, with what is written about it.
    ///
    /// # Panics
    /// Two different messages of the interface have the same name.
    pub fn proto(&self) -> String {
        proto_text(&self.file())
    }

    /// An encoded `FileDescriptorSet` of the interface, for
    /// [`ServiceSet::describe`](crate::ServiceSet::describe): what a compiler makes
    /// of [`proto`](Self::proto).
    ///
    /// # Panics
    /// As [`proto`](Self::proto).
    pub fn file_descriptor_set(&'static self) -> &'static [u8] {
        self.encoded.get_or_init(|| {
            let file = vec![self.file()];
            FileDescriptorSet { file }.encode_to_vec()
        })
    }

    fn file(&self) -> FileDescriptorProto {
        let package = self.package();
        let full = |name: &str| match package {
            "" => format!(".{name}"),
            package => format!(".{package}.{name}"),
        };
        let method = |method: &MethodDescription| MethodDescriptorProto {
            name: Some(method.name.into()),
            input_type: Some(full((method.request)().name)),
            output_type: Some(full((method.reply)().name)),
            server_streaming: method.streams.then_some(true),
            ..Default::default()
        };
        let service = ServiceDescriptorProto {
            name: Some(self.name().into()),
            method: self.methods.iter().map(method).collect(),
            ..Default::default()
        };
        let messages = self.messages();
        let comments = self.comments(&messages);
        FileDescriptorProto {
            name: Some(self.file_name()),
            package: Some(package.into()),
            message_type: messages.iter().map(|m| m.descriptor(&full)).collect(),
            service: vec![service],
            syntax: Some("proto3".into()),
            source_code_info: Some(SourceCodeInfo { location: comments }),
            ..Default::default()
        }
    }

    /// What is written about the service, the messages and what they consist of.
    fn comments(&self, messages: &[&MessageDescription]) -> Vec<Location> {
        let mut comments = vec![comment(&[SERVICE, 0], self.doc)];
        for (index, method) in (0..).zip(self.methods) {
            comments.push(comment(&[SERVICE, 0, MEMBER, index], method.doc));
        }
        for (at, message) in (0..).zip(messages) {
            comments.push(comment(&[MESSAGE, at], message.doc));
            for (index, field) in (0..).zip(message.fields) {
                comments.push(comment(&[MESSAGE, at, MEMBER, index], field.doc));
            }
        }
        comments.into_iter().flatten().collect()
    }

    /// Every message that a method or another message names, once.
    fn messages(&self) -> Vec<&'static MessageDescription> {
        let mut found = Vec::new();
        for method in self.methods {
            (method.request)().collect(&mut found);
            (method.reply)().collect(&mut found);
        }
        found
    }
}

impl MessageDescription {
    fn collect(&'static self, found: &mut Vec<&'static MessageDescription>) {
        if let Some(known) = found.iter().find(|known| known.name == self.name) {
            let same = known.shape() == self.shape();
            assert!(same, "two messages are called `{}`", self.name);
            return;
        }
        found.push(self);
        for field in self.fields {
            if let Kind::Message(message) = field.kind {
                message().collect(found);
            }
        }
    }

    /// What makes it another message than one of the same name.
    fn shape(&self) -> Vec<(&'static str, i32, Label, Type, &'static str)> {
        let shape = |f: &FieldDescription| {
            let (kind, message) = match f.kind {
                Kind::Scalar(scalar) => (scalar.wire_type(), ""),
                Kind::Message(message) => (Type::Message, message().name),
            };
            (f.name, f.number, f.label, kind, message)
        };
        self.fields.iter().map(shape).collect()
    }

    fn descriptor(&self, full: &impl Fn(&str) -> String) -> DescriptorProto {
        let mut descriptor = DescriptorProto {
            name: Some(self.name.into()),
            ..Default::default()
        };
        for field in self.fields {
            let mut own = wire_field(field.name, field.number, field.kind, full);
            match (field.label, field.kind) {
                (Label::One, _) | (Label::Optional, Kind::Message(_)) => {}
                // As every compiler writes a field that knows whether it is there.
                (Label::Optional, Kind::Scalar(_)) => {
                    own.proto3_optional = Some(true);
                    own.oneof_index = i32::try_from(descriptor.oneof_decl.len()).ok();
                    descriptor.oneof_decl.push(OneofDescriptorProto {
                        name: Some(format!("_{}", field.name)),
                        ..Default::default()
                    });
                }
                (Label::Repeated, _) => own.set_label(WireLabel::Repeated),
                (Label::Map(key), _) => {
                    let entry = map_entry(field, key, full);
                    let path = format!("{}.{}", self.name, entry.name());
                    descriptor.nested_type.push(entry);
                    own.set_label(WireLabel::Repeated);
                    own.set_type(Type::Message);
                    own.type_name = Some(full(&path));
                }
            }
            descriptor.field.push(own);
        }
        descriptor
    }
}

fn wire_field(
    name: &str,
    number: i32,
    kind: Kind,
    full: &impl Fn(&str) -> String,
) -> FieldDescriptorProto {
    let (kind, type_name) = match kind {
        Kind::Scalar(scalar) => (scalar.wire_type(), None),
        Kind::Message(message) => (Type::Message, Some(full(message().name))),
    };
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(WireLabel::Optional.into()),
        r#type: Some(kind.into()),
        type_name,
        json_name: Some(camel_case(name, false)),
        ..Default::default()
    }
}

/// A map is a list of messages with a key and a value.
fn map_entry(
    field: &FieldDescription,
    key: Scalar,
    full: &impl Fn(&str) -> String,
) -> DescriptorProto {
    DescriptorProto {
        name: Some(format!("{}Entry", camel_case(field.name, true))),
        field: vec![
            wire_field("key", 1, Kind::Scalar(key), full),
            wire_field("value", 2, field.kind, full),
        ],
        options: Some(MessageOptions {
            map_entry: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// `reply_to` as `replyTo`, or as `ReplyTo`.
fn camel_case(name: &str, mut upper: bool) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            letter if upper => {
                text.extend(letter.to_uppercase());
                upper = false;
            }
            letter => text.push(letter),
        }
    }
    text
}

/// What is written about one thing, as compilers pass it on.
fn comment(path: &[i32], doc: &str) -> Option<Location> {
    let line = |line: &str| match line {
        "" => "\n".to_owned(),
        line => format!(" {line}\n"),
    };
    (!doc.is_empty()).then(|| Location {
        path: path.to_vec(),
        span: vec![0, 0, 0], // There is no file with lines.
        leading_comments: Some(doc.lines().map(line).collect()),
        ..Default::default()
    })
}
