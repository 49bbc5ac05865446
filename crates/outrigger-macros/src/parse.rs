//! From the author's code to the model, or to what the author should write instead.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, Fields, FnArg, GenericArgument, ItemStruct, ItemTrait, Lit, LitInt,
    LitStr, Meta, Pat, Path, PathArguments, Result, ReturnType, TraitItem, TraitItemFn, Type,
};

use crate::model::{
    Carried, Declared, Field, Interface, Kind, Label, Message, Method, Proto, Scalar,
};

/// The largest number of a field, and those that protobuf keeps for itself.
const LAST_NUMBER: i32 = (1 << 29) - 1;
const RESERVED_NUMBERS: std::ops::RangeInclusive<i32> = 19_000..=19_999;

/// Reads a trait, and takes our attributes out of `item`.
pub(crate) fn interface(
    krate: &str,
    options: TokenStream,
    item: &mut ItemTrait,
) -> Result<Interface> {
    let own = take_own_attributes(item);
    let mut options_of = InterfaceOptions::default();
    let parser = syn::meta::parser(|meta| options_of.read(meta));
    parser.parse2(options)?;
    let InterfaceOptions {
        package,
        name,
        dispense,
        netrpc,
        krate: other_krate,
    } = options_of;
    if package.is_none() && !netrpc {
        let problem = "say what serves the interface: `package = \"greeter.v1\"` for gRPC, \
                       `netrpc` for net/rpc, or both";
        return Err(Error::new(Span::call_site(), problem));
    }
    if let Some(parameter) = item.generics.params.first() {
        let problem = "an interface cannot be generic: both sides must know the types that cross";
        return Err(Error::new_spanned(parameter, problem));
    }
    let over = Over {
        grpc: package.is_some(),
        netrpc,
    };
    let mut methods: Vec<Method> = Vec::new();
    for (item, own) in item.items.iter().zip(own) {
        let TraitItem::Fn(function) = item else {
            let problem = "an interface has methods only: what else there is cannot cross";
            return Err(Error::new_spanned(item, problem));
        };
        let method = over.method(function, own)?;
        if methods.iter().any(|other| other.name == method.name) {
            let problem = format!(
                "two methods are called `{}` on the wire; give one another name with \
                 `#[method(name = \"…\")]`",
                method.name
            );
            return Err(Error::new_spanned(&function.sig.ident, problem));
        }
        methods.push(method);
    }
    let name = name.unwrap_or_else(|| item.ident.unraw().to_string());
    let read = Interface {
        krate: other_krate.map_or_else(|| syn::parse_str(krate), Ok)?,
        item: item.clone(),
        doc: doc(&item.attrs),
        service: package.map(|package| format!("{package}.{name}")),
        dispense,
        netrpc,
        methods,
    };
    names_are_unique(&read)?;
    Ok(read)
}

#[derive(Default)]
struct InterfaceOptions {
    package: Option<String>,
    name: Option<String>,
    dispense: Option<String>,
    netrpc: bool,
    krate: Option<Path>,
}

impl InterfaceOptions {
    fn read(&mut self, meta: ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("package") {
            let text: LitStr = meta.value()?.parse()?;
            if text.value().split('.').any(|part| !is_name(part)) {
                let problem = "a package is names with dots between them, such as `greeter.v1`";
                return Err(Error::new_spanned(text, problem));
            }
            self.package = Some(text.value());
        } else if meta.path.is_ident("name") {
            self.name = Some(name(&meta)?);
        } else if meta.path.is_ident("dispense") {
            self.dispense = Some(meta.value()?.parse::<LitStr>()?.value());
        } else if meta.path.is_ident("netrpc") {
            self.netrpc = true;
        } else if meta.path.is_ident("crate") {
            self.krate = Some(meta.value()?.call(Path::parse_mod_style)?);
        } else {
            return Err(meta.error(
                "unknown; an interface can have `package`, `name`, `netrpc`, `dispense` and `crate`",
            ));
        }
        Ok(())
    }
}

/// A declared name on the wire.
fn name(meta: &ParseNestedMeta<'_>) -> Result<String> {
    let text: LitStr = meta.value()?.parse()?;
    match is_name(&text.value()) {
        true => Ok(text.value()),
        false => {
            let problem = "a name begins with a letter and has only letters, digits and `_`";
            Err(Error::new_spanned(text, problem))
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What `#[method(…)]` says, and the attributes of the arguments.
struct OwnAttributes {
    method: Vec<Attribute>,
    arguments: Vec<Vec<Attribute>>,
}

/// Removes what only we understand, one entry for each item of the trait.
fn take_own_attributes(item: &mut ItemTrait) -> Vec<OwnAttributes> {
    let take = |item: &mut TraitItem| {
        let mut own = OwnAttributes {
            method: Vec::new(),
            arguments: Vec::new(),
        };
        if let TraitItem::Fn(function) = item {
            own.method = extract(&mut function.attrs, "method");
            for input in &mut function.sig.inputs {
                if let FnArg::Typed(argument) = input {
                    own.arguments.push(std::mem::take(&mut argument.attrs));
                }
            }
        }
        own
    };
    item.items.iter_mut().map(take).collect()
}

fn extract(attributes: &mut Vec<Attribute>, name: &str) -> Vec<Attribute> {
    attributes
        .extract_if(.., |attribute| attribute.path().is_ident(name))
        .collect()
}

#[derive(Default)]
struct MethodOptions {
    name: Option<String>,
    request: Option<String>,
    reply: Option<String>,
    field: Option<String>,
}

impl MethodOptions {
    fn of(attributes: &[Attribute]) -> Result<Self> {
        let mut options = Self::default();
        for attribute in attributes {
            attribute.parse_nested_meta(|meta| {
                let option = match &meta.path {
                    path if path.is_ident("name") => &mut options.name,
                    path if path.is_ident("request") => &mut options.request,
                    path if path.is_ident("reply") => &mut options.reply,
                    path if path.is_ident("field") => &mut options.field,
                    _ => {
                        return Err(meta.error(
                            "unknown; a method can have `name`, `request`, `reply` and `field`",
                        ));
                    }
                };
                *option = Some(name(&meta)?);
                Ok(())
            })?;
        }
        Ok(options)
    }
}

/// What the interface is served over.
#[derive(Clone, Copy)]
struct Over {
    grpc: bool,
    netrpc: bool,
}

impl Over {
    fn method(self, function: &TraitItemFn, own: OwnAttributes) -> Result<Method> {
        let signature = &function.sig;
        if signature.asyncness.is_none() {
            let problem = "a call waits for another process: write `async fn`";
            return Err(Error::new_spanned(signature.fn_token, problem));
        }
        if let Some(parameter) = signature.generics.params.first() {
            let problem = "a method of an interface cannot be generic: both sides must know the \
                           types that cross";
            return Err(Error::new_spanned(parameter, problem));
        }
        if let Some(body) = &function.default {
            let problem = "a method of an interface has no body: the plugin has it";
            return Err(Error::new_spanned(body, problem));
        }
        let options = MethodOptions::of(&own.method)?;
        let (value, streams) = result(signature.span(), &signature.output)?;
        if streams && !self.grpc {
            let problem = "net/rpc cannot carry a stream: add `package = \"…\"` to the interface, \
                           for gRPC";
            return Err(Error::new_spanned(&signature.output, problem));
        }
        let arguments = self.arguments(function, &own.arguments)?;
        let name = options
            .name
            .unwrap_or_else(|| pascal_case(&signature.ident));
        let request = match arguments.as_slice() {
            [only] if self.is_message(&only.ty)? => {
                taken_as_it_is(options.request, "request", &only.ty)?;
                Carried::Own(only.ty.clone())
            }
            fields => Carried::Made(made(options.request, &name, "Request", fields.to_vec())),
        };
        let reply = if self.is_message(&value)? {
            taken_as_it_is(options.reply, "reply", &value)?;
            taken_as_it_is(options.field, "field", &value)?;
            Carried::Own(value.clone())
        } else {
            let fields = match is_unit(&value) {
                true => Vec::new(),
                false => vec![self.reply_field(options.field, &value, streams)?],
            };
            Carried::Made(made(options.reply, &name, "Response", fields))
        };
        Ok(Method {
            ident: signature.ident.clone(),
            name,
            doc: doc(&function.attrs),
            arguments,
            request,
            value,
            reply,
            streams,
        })
    }

    fn arguments(self, function: &TraitItemFn, own: &[Vec<Attribute>]) -> Result<Vec<Field>> {
        let signature = &function.sig;
        let mut inputs = signature.inputs.iter();
        match inputs.next() {
            Some(FnArg::Receiver(this))
                if this.reference.is_some() && this.mutability.is_none() => {}
            other => {
                let problem = "write `&self` as the first argument: calls run at the same time";
                return Err(match other {
                    Some(other) => Error::new_spanned(other, problem),
                    None => Error::new_spanned(&signature.ident, problem),
                });
            }
        }
        let mut fields = Vec::new();
        for (input, attributes) in inputs.zip(own) {
            let FnArg::Typed(argument) = input else {
                continue;
            };
            let Pat::Ident(pattern) = &*argument.pat else {
                let problem = "an argument has a name, by which the other side knows it";
                return Err(Error::new_spanned(&argument.pat, problem));
            };
            let field = self.field(&pattern.ident, &argument.ty, attributes, fields.len() + 1)?;
            fields.push(field);
        }
        numbers_are_unique(&fields)?;
        if let ([only], true) = (fields.as_slice(), self.netrpc) {
            not_a_pointer(&only.ty)?;
        }
        Ok(fields)
    }

    fn reply_field(self, name: Option<String>, value: &Type, streams: bool) -> Result<Field> {
        if self.netrpc && !streams {
            not_a_pointer(value)?;
        }
        let ident = Ident::new(name.as_deref().unwrap_or("value"), Span::call_site());
        self.field(&ident, value, &[], 1)
    }

    fn field(
        self,
        ident: &Ident,
        ty: &Type,
        attributes: &[Attribute],
        place: usize,
    ) -> Result<Field> {
        Ok(Field {
            ident: ident.clone(),
            ty: ty.clone(),
            doc: doc(attributes),
            number: number(ident, attributes, place)?,
            gob: gob(attributes),
            proto: match self.grpc {
                true => Some(proto(ty)?),
                false => None,
            },
        })
    }

    /// Whether a value is a message by itself, and so needs none around it.
    fn is_message(self, ty: &Type) -> Result<bool> {
        if !self.grpc || is_unit(ty) {
            return Ok(false);
        }
        let proto = proto(ty)?;
        Ok(proto.label == Label::One && matches!(proto.kind, Kind::Message(_)))
    }
}

fn made(name: Option<String>, method: &str, suffix: &str, fields: Vec<Field>) -> Message {
    let ident = match name {
        Some(name) => format_ident!("{name}"),
        None => format_ident!("{method}{suffix}"),
    };
    Message {
        ident,
        doc: String::new(),
        fields,
    }
}

/// A name for a message that is not made would do nothing.
fn taken_as_it_is(option: Option<String>, which: &str, ty: &Type) -> Result<()> {
    if option.is_none() {
        return Ok(());
    }
    let problem = format!(
        "`{which} = \"…\"` names what is made around values; this is a message of its own and \
         crosses under its own name"
    );
    Err(Error::new_spanned(ty, problem))
}

/// Go sends no nil pointer by itself.
fn not_a_pointer(ty: &Type) -> Result<()> {
    match generic(ty) {
        Some((name, _)) if name == "Option" => {
            let problem = "net/rpc cannot carry a lone `Option`: make it a field of a message";
            Err(Error::new_spanned(ty, problem))
        }
        _ => Ok(()),
    }
}

/// The `T` of `Result<T, _>`, and whether it is a stream of these.
fn result(place: Span, output: &ReturnType) -> Result<(Type, bool)> {
    let problem = "a call can fail: write `-> Result<T, MethodError>`";
    let ReturnType::Type(_, ty) = output else {
        return Err(Error::new(place, problem));
    };
    let (name, arguments) = generic(ty).unwrap_or_default();
    let [value, _] = arguments.as_slice() else {
        return Err(Error::new_spanned(ty, problem));
    };
    if name != "Result" {
        return Err(Error::new_spanned(ty, problem));
    }
    let (name, arguments) = generic(value).unwrap_or_default();
    match arguments.first() {
        Some(of) if name == "Streaming" => Ok((of.clone(), true)),
        _ => Ok((value.clone(), false)),
    }
}

/// The last name of a path and the types that it is given.
fn generic(ty: &Type) -> Option<(String, Vec<Type>)> {
    let Type::Path(path) = ty else {
        return None;
    };
    let last = path.path.segments.last()?;
    let arguments = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty.clone()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    Some((last.ident.to_string(), arguments))
}

fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// What a Rust type is in protobuf.
fn proto(ty: &Type) -> Result<Proto> {
    let instead = match ty {
        Type::Reference(_) => {
            "what crosses is owned: write `String`, `Vec<u8>` or the value itself"
        }
        Type::Tuple(_) => "protobuf has no tuples: declare a struct with `#[message]`",
        Type::Array(_) | Type::Slice(_) => "protobuf has lists of any length: write `Vec<T>`",
        _ => "protobuf does not know this type: declare a struct with `#[message]`",
    };
    let Some((name, arguments)) = generic(ty) else {
        return Err(Error::new_spanned(ty, instead));
    };
    let one = |kind| {
        Ok(Proto {
            label: Label::One,
            kind,
        })
    };
    match (name.as_str(), arguments.as_slice()) {
        ("Vec", [item]) if is_u8(item) => one(Kind::Scalar(Scalar::Bytes { shared: false })),
        ("Bytes", []) => one(Kind::Scalar(Scalar::Bytes { shared: true })),
        ("Option", [inner]) => match generic(inner) {
            Some((name, boxed)) if name == "Box" && boxed.len() == 1 => {
                labelled(&boxed[0], Label::Optional { boxed: true })
            }
            _ => labelled(inner, Label::Optional { boxed: false }),
        },
        ("Box", [_]) => {
            let problem = "a message that holds itself does so in an `Option<Box<…>>`";
            Err(Error::new_spanned(ty, problem))
        }
        ("Vec", [item]) => labelled(item, Label::Repeated),
        ("HashMap" | "BTreeMap", [key, value]) => {
            let sorted = name == "BTreeMap";
            let key = map_key(key)?;
            labelled(value, Label::Map { key, sorted })
        }
        (name, []) => match scalar(name) {
            Some(scalar) => one(Kind::Scalar(scalar)),
            None => match wider(name) {
                None => one(Kind::Message(ty.clone())),
                Some(wider) => {
                    let problem = format!("protobuf has no `{name}`: write `{wider}`");
                    Err(Error::new_spanned(ty, problem))
                }
            },
        },
        _ => one(Kind::Message(ty.clone())),
    }
}

/// A type that is there more or less often than once.
fn labelled(inner: &Type, label: Label) -> Result<Proto> {
    let proto = proto(inner)?;
    if proto.label != Label::One {
        let problem = "protobuf cannot nest this: declare a struct with `#[message]` that has it \
                       as a field";
        return Err(Error::new_spanned(inner, problem));
    }
    if label == (Label::Optional { boxed: true }) && matches!(proto.kind, Kind::Scalar(_)) {
        return Err(Error::new_spanned(inner, "only a message needs a `Box`"));
    }
    Ok(Proto {
        label,
        kind: proto.kind,
    })
}

fn map_key(ty: &Type) -> Result<Scalar> {
    let key = generic(ty).and_then(|(name, _)| scalar(&name));
    key.filter(|key| !matches!(key, Scalar::Float | Scalar::Double))
        .ok_or_else(|| {
            let problem = "the key of a map is a `String`, a `bool` or a whole number";
            Error::new_spanned(ty, problem)
        })
}

fn is_u8(ty: &Type) -> bool {
    matches!(generic(ty), Some((name, _)) if name == "u8")
}

fn scalar(name: &str) -> Option<Scalar> {
    Some(match name {
        "bool" => Scalar::Bool,
        "i32" => Scalar::Int32,
        "i64" => Scalar::Int64,
        "u32" => Scalar::Uint32,
        "u64" => Scalar::Uint64,
        "f32" => Scalar::Float,
        "f64" => Scalar::Double,
        "String" => Scalar::String,
        _ => return None,
    })
}

/// What protobuf has instead of a type of Rust.
fn wider(name: &str) -> Option<&'static str> {
    Some(match name {
        "u8" | "u16" => "u32",
        "i8" | "i16" => "i32",
        "usize" | "u128" => "u64",
        "isize" | "i128" => "i64",
        "char" | "str" => "String",
        _ => return None,
    })
}

/// The number of a field: what `#[tag = …]` says, or its place.
fn number(ident: &Ident, attributes: &[Attribute], place: usize) -> Result<i32> {
    let mut number = i32::try_from(place).unwrap_or(i32::MAX);
    for attribute in attributes {
        if !attribute.path().is_ident("tag") {
            continue;
        }
        let value: Option<LitInt> = match &attribute.meta {
            Meta::NameValue(pair) => syn::parse2(pair.value.to_token_stream()).ok(),
            _ => None,
        };
        let Some(value) = value else {
            let problem = "write the number of the field: `#[tag = 3]`";
            return Err(Error::new_spanned(attribute, problem));
        };
        number = value.base10_parse().unwrap_or(0);
        if !(1..=LAST_NUMBER).contains(&number) || RESERVED_NUMBERS.contains(&number) {
            let problem = "a field has a number from 1 to 536870911, but none of 19000 to 19999";
            return Err(Error::new_spanned(value, problem));
        }
    }
    match number <= LAST_NUMBER {
        true => Ok(number),
        false => Err(Error::new_spanned(ident, "too many fields")),
    }
}

fn numbers_are_unique(fields: &[Field]) -> Result<()> {
    for (place, field) in fields.iter().enumerate() {
        if let Some(other) = fields[..place].iter().find(|f| f.number == field.number) {
            let problem = format!(
                "`{}` and `{}` both have the number {}; give one another with `#[tag = …]`",
                other.ident, field.ident, field.number
            );
            return Err(Error::new_spanned(&field.ident, problem));
        }
    }
    Ok(())
}

/// Messages that are made may share a name only where they are the same.
fn names_are_unique(interface: &Interface) -> Result<()> {
    let carried = || {
        interface.methods.iter().flat_map(|method| {
            let one = |carried, option| (method, carried, option);
            [one(&method.request, "request"), one(&method.reply, "reply")]
        })
    };
    for (method, one, option) in carried() {
        let Carried::Made(message) = one else {
            continue;
        };
        let clashes = carried().any(|(_, other, _)| match other {
            Carried::Made(other) => other.ident == message.ident && !other.equals(message),
            Carried::Own(ty) => generic(ty).is_some_and(|(name, _)| message.ident == name),
        });
        if clashes {
            let problem = format!(
                "two different messages are called `{}`; give one another name with \
                 `#[method({option} = \"…\")]`",
                message.ident
            );
            return Err(Error::new_spanned(&method.ident, problem));
        }
    }
    Ok(())
}

/// Reads a struct, and takes our attributes out of `item`.
pub(crate) fn message(
    krate: &str,
    options: TokenStream,
    item: &mut ItemStruct,
) -> Result<Declared> {
    let numbers: Vec<Vec<Attribute>> = item
        .fields
        .iter_mut()
        .map(|field| extract(&mut field.attrs, "tag"))
        .collect();
    let (mut netrpc, mut other_krate) = (false, None);
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("netrpc") {
            netrpc = true;
        } else if meta.path.is_ident("crate") {
            other_krate = Some(meta.value()?.call(Path::parse_mod_style)?);
        } else {
            return Err(meta.error("unknown; a message can have `netrpc` and `crate`"));
        }
        Ok(())
    });
    parser.parse2(options)?;
    if let Some(parameter) = item.generics.params.first() {
        let problem = "a message cannot be generic: both sides must know what it is";
        return Err(Error::new_spanned(parameter, problem));
    }
    if let Fields::Unnamed(fields) = &item.fields {
        let problem = "the fields of a message have names, by which other languages know them";
        return Err(Error::new_spanned(fields, problem));
    }
    let mut fields = Vec::new();
    for (field, number_of) in item.fields.iter().zip(&numbers) {
        let Some(ident) = &field.ident else { continue };
        fields.push(Field {
            ident: ident.clone(),
            ty: field.ty.clone(),
            doc: doc(&field.attrs),
            number: number(ident, number_of, fields.len() + 1)?,
            gob: Vec::new(), // They stay in the struct.
            proto: Some(proto(&field.ty)?),
        });
    }
    numbers_are_unique(&fields)?;
    Ok(Declared {
        krate: other_krate.map_or_else(|| syn::parse_str(krate), Ok)?,
        netrpc,
        message: Message {
            ident: item.ident.clone(),
            doc: doc(&item.attrs),
            fields,
        },
        item: item.clone(),
    })
}

/// What an argument says to gob's derive, as where Go calls a field `ID`.
fn gob(attributes: &[Attribute]) -> Vec<Attribute> {
    let of_gob = |attribute: &&Attribute| attribute.path().is_ident("gob");
    attributes.iter().filter(of_gob).cloned().collect()
}

/// What is written about an item, a line each.
fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        let Expr::Lit(literal) = &pair.value else {
            return None;
        };
        match &literal.lit {
            Lit::Str(text) if pair.path.is_ident("doc") => {
                let text = text.value();
                Some(text.strip_prefix(' ').unwrap_or(&text).to_owned())
            }
            _ => None,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `say_hello` as `SayHello`.
fn pascal_case(ident: &Ident) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        first.chain(letters).collect::<String>()
    };
    ident.unraw().to_string().split('_').map(word).collect()
}
