//! Descriptors as a `.proto` file.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{Display, Write};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};

// Where things are in a file's descriptor, by the numbers of its fields.
pub(super) const MESSAGE: i32 = 4;
pub(super) const SERVICE: i32 = 6;
/// A message's field, an enum's value, a service's method.
pub(super) const MEMBER: i32 = 2;
const ENUM: i32 = 5;
const NESTED_MESSAGE: i32 = 3;
const NESTED_ENUM: i32 = 4;
const ONEOF: i32 = 8;

/// A file of `proto3` as its author could have written it, with the comments that the
/// descriptors carry. A compiler makes the same descriptors of it, but for options:
/// of these only `go_package`, `packed`, `deprecated` fields and `allow_alias` are written.
///
/// Names and comments are written as they are; who has them from a stranger looks at
/// them first.
pub fn proto_text(file: &FileDescriptorProto) -> String {
    let mut printer = Printer::new(file);
    printer.file(file);
    printer.text
}

struct Printer<'a> {
    text: String,
    depth: usize,
    /// Where the printer is.
    path: Vec<i32>,
    comments: HashMap<&'a [i32], &'a str>,
    /// `.greeter.v1.`, before the names of the file's own types.
    package: String,
    /// What a name inside a message could mean instead of a type of the package.
    nested: BTreeSet<&'a str>,
}

impl<'a> Printer<'a> {
    fn new(file: &'a FileDescriptorProto) -> Self {
        let places = file.source_code_info.iter().flat_map(|info| &info.location);
        let comments = places.filter_map(|place| {
            let comment = place.leading_comments.as_deref()?;
            Some((place.path.as_slice(), comment))
        });
        let mut nested = BTreeSet::new();
        file.message_type
            .iter()
            .for_each(|message| collect_nested(message, &mut nested));
        Self {
            text: String::new(),
            depth: 0,
            path: Vec::new(),
            comments: comments.collect(),
            package: match file.package() {
                "" => ".".to_owned(),
                package => format!(".{package}."),
            },
            nested,
        }
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{:1$}{line}", "", self.depth * 2);
    }

    /// What stands in braces, one step further in.
    fn block(&mut self, head: impl Display, is_empty: bool, inside: impl FnOnce(&mut Self)) {
        if is_empty {
            return self.line(format_args!("{head} {{}}"));
        }
        self.line(format_args!("{head} {{"));
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line("}");
    }

    /// Prints each of `items` with its comment, where `kind` says what they are.
    fn each<T>(&mut self, kind: i32, items: &[T], mut print: impl FnMut(&mut Self, &T)) {
        for (index, item) in (0..).zip(items) {
            if self.depth == 0 {
                self.text.push('\n');
            }
            self.path.extend([kind, index]);
            self.comment();
            print(self, item);
            self.path.truncate(self.path.len() - 2);
        }
    }

    fn comment(&mut self) {
        let comment = self.comments.get(self.path.as_slice()).copied();
        for line in comment.unwrap_or_default().lines() {
            self.line(format_args!("//{line}").to_string().trim_end());
        }
    }

    fn file(&mut self, file: &FileDescriptorProto) {
        self.line("syntax = \"proto3\";");
        if !file.package().is_empty() {
            self.line(format_args!("\npackage {};", file.package()));
        }
        for (index, import) in (0..).zip(&file.dependency) {
            let before = if index == 0 { "\n" } else { "" };
            let public = match file.public_dependency.contains(&index) {
                true => "public ",
                false => "",
            };
            self.line(format_args!("{before}import {public}{import:?};"));
        }
        if let Some(package) = file.options.as_ref().and_then(|o| o.go_package.as_ref()) {
            self.line(format_args!("\noption go_package = {package:?};"));
        }
        self.each(SERVICE, &file.service, |printer, service| {
            printer.service(service);
        });
        self.each(MESSAGE, &file.message_type, |printer, message| {
            printer.message(message);
        });
        self.each(ENUM, &file.enum_type, |printer, of| printer.enumeration(of));
    }

    fn service(&mut self, service: &ServiceDescriptorProto) {
        let head = format!("service {}", service.name());
        self.block(head, service.method.is_empty(), |printer| {
            printer.each(MEMBER, &service.method, |printer, method| {
                let stream = |streams| if streams { "stream " } else { "" };
                let line = format!(
                    "rpc {}({}{}) returns ({}{});",
                    method.name(),
                    stream(method.client_streaming()),
                    printer.type_name(method.input_type()),
                    stream(method.server_streaming()),
                    printer.type_name(method.output_type()),
                );
                printer.line(line);
            });
        });
    }

    fn message(&mut self, message: &DescriptorProto) {
        let is_empty = message.field.is_empty()
            && message.nested_type.is_empty()
            && message.enum_type.is_empty()
            && message.reserved_range.is_empty()
            && message.reserved_name.is_empty();
        self.block(format!("message {}", message.name()), is_empty, |printer| {
            for range in &message.reserved_range {
                // The end is no longer reserved.
                printer.line(format_args!(
                    "reserved {} to {};",
                    range.start(),
                    range.end() - 1
                ));
            }
            printer.reserved_names(&message.reserved_name);
            let own: Vec<_> = message.nested_type.iter().map(is_map_entry).collect();
            let mut entries = own.iter();
            printer.each(NESTED_MESSAGE, &message.nested_type, |printer, nested| {
                if entries.next() == Some(&false) {
                    printer.message(nested);
                }
            });
            printer.each(NESTED_ENUM, &message.enum_type, |printer, of| {
                printer.enumeration(of);
            });
            printer.fields(message);
        });
    }

    fn fields(&mut self, message: &DescriptorProto) {
        let choice = |field: &FieldDescriptorProto| match field.proto3_optional() {
            true => None,
            false => field.oneof_index,
        };
        let mut begun = BTreeSet::new();
        for (index, field) in (0..).zip(&message.field) {
            let Some(of) = choice(field) else {
                self.path.extend([MEMBER, index]);
                self.comment();
                self.field(message, field);
                self.path.truncate(self.path.len() - 2);
                continue;
            };
            if !begun.insert(of) {
                continue;
            }
            self.path.extend([ONEOF, of]);
            self.comment();
            self.path.truncate(self.path.len() - 2);
            let declared = usize::try_from(of)
                .ok()
                .and_then(|of| message.oneof_decl.get(of));
            let name = declared.map_or("", |declared| declared.name());
            self.block(format!("oneof {name}"), false, |printer| {
                for (index, field) in (0..).zip(&message.field) {
                    if choice(field) == Some(of) {
                        printer.path.extend([MEMBER, index]);
                        printer.comment();
                        printer.field(message, field);
                        printer.path.truncate(printer.path.len() - 2);
                    }
                }
            });
        }
    }

    fn field(&mut self, message: &DescriptorProto, field: &FieldDescriptorProto) {
        let kind = match map_entry(message, field) {
            Some((key, value)) => format!("map<{}, {}>", self.kind(key), self.kind(value)),
            None if field.label() == Label::Repeated => format!("repeated {}", self.kind(field)),
            None if field.proto3_optional() => format!("optional {}", self.kind(field)),
            None => self.kind(field),
        };
        let options = field.options.as_ref();
        let packed = options.and_then(|options| options.packed);
        let packed = packed.map(|packed| format!("packed = {packed}"));
        let deprecated = options.is_some_and(|options| options.deprecated());
        let deprecated = deprecated.then(|| "deprecated = true".to_owned());
        let options: Vec<_> = packed.into_iter().chain(deprecated).collect();
        let options = match options.is_empty() {
            true => String::new(),
            false => format!(" [{}]", options.join(", ")),
        };
        let line = format!("{kind} {} = {}{options};", field.name(), field.number());
        self.line(line);
    }

    fn kind(&self, field: &FieldDescriptorProto) -> String {
        match scalar(field.r#type()) {
            Some(name) => name.to_owned(),
            None => self.type_name(field.type_name()),
        }
    }

    /// The name of a message or an enum, as short as it can be.
    fn type_name(&self, full: &str) -> String {
        let Some(short) = full.strip_prefix(&self.package) else {
            return full.to_owned();
        };
        let first = short.split('.').next().unwrap_or_default();
        match self.nested.contains(first) {
            true => full.to_owned(),
            false => short.to_owned(),
        }
    }

    fn enumeration(&mut self, of: &EnumDescriptorProto) {
        self.block(format!("enum {}", of.name()), false, |printer| {
            if of.options.as_ref().is_some_and(|o| o.allow_alias()) {
                printer.line("option allow_alias = true;");
            }
            for range in &of.reserved_range {
                // Of an enum, the end is reserved as well.
                printer.line(format_args!(
                    "reserved {} to {};",
                    range.start(),
                    range.end()
                ));
            }
            printer.reserved_names(&of.reserved_name);
            printer.each(MEMBER, &of.value, |printer, value| {
                printer.line(format_args!("{} = {};", value.name(), value.number()));
            });
        });
    }

    fn reserved_names(&mut self, names: &[String]) {
        for name in names {
            self.line(format_args!("reserved {name:?};"));
        }
    }
}

fn collect_nested<'a>(message: &'a DescriptorProto, names: &mut BTreeSet<&'a str>) {
    names.extend(message.enum_type.iter().map(|of| of.name()));
    for nested in &message.nested_type {
        names.insert(nested.name());
        collect_nested(nested, names);
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|o| o.map_entry())
}

/// The key and the value of a field that is a map.
fn map_entry<'a>(
    message: &'a DescriptorProto,
    field: &FieldDescriptorProto,
) -> Option<(&'a FieldDescriptorProto, &'a FieldDescriptorProto)> {
    let (_, name) = field.type_name().rsplit_once('.')?;
    let mut nested = message.nested_type.iter();
    let entry = nested.find(|nested| is_map_entry(nested) && nested.name() == name)?;
    Some((entry.field.first()?, entry.field.get(1)?))
}

fn scalar(kind: Type) -> Option<&'static str> {
    Some(match kind {
        Type::Double => "double",
        Type::Float => "float",
        Type::Int64 => "int64",
        Type::Uint64 => "uint64",
        Type::Int32 => "int32",
        Type::Fixed64 => "fixed64",
        Type::Fixed32 => "fixed32",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Uint32 => "uint32",
        Type::Sfixed32 => "sfixed32",
        Type::Sfixed64 => "sfixed64",
        Type::Sint32 => "sint32",
        Type::Sint64 => "sint64",
        Type::Group | Type::Message | Type::Enum => return None,
    })
}
