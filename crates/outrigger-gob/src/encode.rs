//! Writing values: [`Encode`], [`Encoder`] and the [`Writer`] between them.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;

use crate::describe::{self, Describe};
use crate::error::{EncodeError, EncodeErrorKind};
use crate::hash::Quick;
use crate::limits::MAX_INTERFACE_NAME;
use crate::number::{MAX_UINT, float_bits, put_int, put_uint, uint_bytes, uint_len};
use crate::types::{Def, DefKind, Field, Name, OpaqueKind, Ref, Type};

/// The first id an encoder gives away.
const FIRST_ID: i32 = 65;

/// A value that can be sent as gob.
///
/// Types that are owned implement [`Gob`](crate::Gob) too, which reads them
/// again; both come from `#[derive(Gob)]`. The methods are plumbing between
/// that macro and this crate.
pub trait Encode {
    /// What makes this type one type on a stream. Types that are transparent,
    /// such as `Box<T>`, have that of what is in them.
    #[doc(hidden)]
    fn identity() -> TypeId;

    /// Puts the description of this type together.
    #[doc(hidden)]
    fn describe(types: &mut Describe) -> Ref;

    /// Whether a field with this value is left out.
    #[doc(hidden)]
    fn is_zero(&self) -> bool;

    /// Whether a field that points to this value is left out.
    #[doc(hidden)]
    fn is_zero_behind_pointer(&self) -> bool {
        self.is_zero()
    }

    /// Writes the value, whatever it is.
    #[doc(hidden)]
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError>;

    /// About how many bytes [`Encode::encode`] writes; may be wrong.
    #[doc(hidden)]
    fn size_hint(&self) -> usize {
        1
    }

    /// The type of this value if its Rust type does not say.
    #[doc(hidden)]
    fn dynamic(&self) -> Option<Type> {
        None
    }

    /// What makes slices of this type one type.
    #[doc(hidden)]
    fn slice_identity() -> TypeId
    where
        Self: Sized + 'static,
    {
        TypeId::of::<Vec<Self>>()
    }

    /// The description of a slice of this type.
    #[doc(hidden)]
    fn describe_slice(types: &mut Describe) -> Ref
    where
        Self: Sized + 'static,
    {
        types.slice::<Self>()
    }

    /// Writes a slice.
    #[doc(hidden)]
    fn encode_slice(items: &[Self], to: &mut Writer<'_>) -> Result<(), EncodeError>
    where
        Self: Sized,
    {
        to.uint(items.len() as u64);
        to.elements(items)
    }

    /// About how many bytes a slice takes.
    #[doc(hidden)]
    fn slice_hint(items: &[Self]) -> usize
    where
        Self: Sized,
    {
        1 + items.iter().map(Encode::size_hint).sum::<usize>()
    }
}

/// The description of a Rust type.
pub(crate) fn type_of<T: Encode + ?Sized>() -> Result<Type, EncodeError> {
    describe::type_of(T::identity(), T::describe)
}

impl Describe {
    /// `[]T` for any `T` but bytes.
    pub fn slice<T: Encode + 'static>(&mut self) -> Ref {
        self.define(TypeId::of::<Vec<T>>(), Name::None, |types| DefKind::Slice {
            elem: T::describe(types),
        })
    }

    /// `[N]T`.
    pub fn array<T: Encode + 'static, const N: usize>(&mut self) -> Ref {
        self.define(TypeId::of::<[T; N]>(), Name::None, |types| DefKind::Array {
            elem: T::describe(types),
            len: N as u64,
        })
    }

    /// `map[K]V`.
    pub fn map<K: Encode + 'static, V: Encode + 'static>(&mut self) -> Ref {
        let identity = TypeId::of::<HashMap<K, V>>();
        self.define(identity, Name::None, |types| DefKind::Map {
            key: K::describe(types),
            elem: V::describe(types),
        })
    }
}

/// What an encoder knows about a type that it has sent at the top level.
#[derive(Clone, Copy)]
struct Root {
    id: i32,
    /// Everything but structs is preceded by a zero.
    marked: bool,
}

/// A type of this stream.
struct Sent {
    /// 0 while what it is made of is being looked at.
    id: i32,
    /// What its definition calls it.
    name: Arc<str>,
    /// What it is called by itself.
    own: Name,
    defined: bool,
}

/// One direction of one stream: remembers which types were sent.
///
/// A type is the same if it is the same Rust type, came from the same stream,
/// or was made here with the same names and parts. Dynamic values that come from ever new streams therefore define
/// ever new types; whoever passes such values on without end should begin a
/// new stream now and then.
///
/// ```
/// use bytes::BytesMut;
/// use outrigger_gob::{Encoder, Gob};
///
/// #[derive(Gob)]
/// struct Point {
///     x: i32,
///     y: i32,
/// }
///
/// let mut encoder = Encoder::new();
/// let mut out = BytesMut::new();
/// encoder.encode(&Point { x: 22, y: 33 }, &mut out)?;
/// assert_eq!(out.len(), 40, "a definition and a value");
///
/// out.clear();
/// encoder.encode(&Point { x: 22, y: 0 }, &mut out)?;
/// assert_eq!(out[..], [0x05, 0xff, 0x82, 0x01, 0x2c, 0x00]);
/// # Ok::<(), outrigger_gob::EncodeError>(())
/// ```
#[derive(Default)]
pub struct Encoder {
    roots: HashMap<TypeId, Root, Quick>,
    sent: HashMap<u64, Sent, Quick>,
    /// The types among them that were made here, by what they are: made again,
    /// they are the same to the receiver.
    shapes: HashMap<Vec<u8>, u64>,
    /// How many ids were given away.
    given: i32,
    /// How many bytes a value may take.
    limit: Option<usize>,
    /// What this call added, to be forgotten if it fails.
    added_roots: Vec<TypeId>,
    added: Vec<u64>,
    /// Ids that types had where they came from.
    #[cfg(test)]
    repeated: HashMap<u64, i32>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("types", &self.sent.len())
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// For a stream on which nothing was sent yet.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Refuses values of more than `limit` bytes, as a [`Decoder`](crate::Decoder)
    /// with this [`Limits::message`](crate::Limits::message) at the other end would.
    #[must_use]
    pub fn limited(self, limit: usize) -> Encoder {
        Encoder {
            limit: Some(limit),
            ..self
        }
    }

    /// Appends `value` to `out`, preceded by the definitions of types that
    /// this stream does not know yet. All of it must be sent, in order.
    ///
    /// # Errors
    ///
    /// When there is no gob for this value, such as for `None` outside of a
    /// field. Then nothing is appended, and the encoder is as before.
    pub fn encode<T: Encode + ?Sized>(
        &mut self,
        value: &T,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        self.all_or_nothing(out, |encoder, out| Writer::new(encoder, out).top(value))
    }

    /// Appends two values, such as the header and the body of a call: both or,
    /// if one of them cannot be sent, none.
    ///
    /// # Errors
    ///
    /// As [`Encoder::encode`].
    pub fn encode_pair<A: Encode + ?Sized, B: Encode + ?Sized>(
        &mut self,
        first: &A,
        second: &B,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        self.all_or_nothing(out, |encoder, out| {
            Writer::new(encoder, out).top(first)?;
            Writer::new(encoder, out).top(second)
        })
    }

    fn all_or_nothing(
        &mut self,
        out: &mut BytesMut,
        append: impl FnOnce(&mut Encoder, &mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let before = out.len();
        let given = self.given;
        let result = append(self, out);
        if result.is_err() {
            out.truncate(before);
            self.given = given;
            for key in self.added.drain(..) {
                self.sent.remove(&key);
            }
            self.shapes.retain(|_, key| self.sent.contains_key(key));
            for identity in self.added_roots.drain(..) {
                self.roots.remove(&identity);
            }
        } else {
            self.added.clear();
            self.added_roots.clear();
        }
        result
    }

    /// Gives ids to a type and all it is made of, in the order in which Go
    /// does.
    fn assign(&mut self, ty: &Type) -> Result<(), EncodeError> {
        enum Visit {
            Enter(Ref, Context),
            /// The parts were looked at; this one and they need ids now.
            Leave(u32),
            Part(Ref),
        }
        /// What decides how a type without a name is called.
        enum Context {
            Field,
            SliceElement,
            Element,
            Top,
        }
        let Some(table) = &ty.table else {
            return Ok(());
        };
        let mut stack = vec![Visit::Enter(ty.at, Context::Top)];
        while let Some(visit) = stack.pop() {
            match visit {
                Visit::Enter(at, context) => {
                    let Ref::Defined(place) = at else { continue };
                    let def = table.get(place).ok_or_else(incomplete)?;
                    if self.sent.contains_key(&def.key) {
                        continue;
                    }
                    let name: Arc<str> = match (&def.name, context) {
                        (Name::Wire(name), _) => Arc::clone(name),
                        (Name::None, Context::Field) => Type::new(table, at).to_string().into(),
                        (Name::None, _) | (Name::Declared { .. }, Context::Element) => "".into(),
                        (Name::Declared { own, .. }, _) => Arc::clone(own),
                    };
                    let sent = Sent {
                        id: 0,
                        name,
                        own: def.name.clone(),
                        defined: false,
                    };
                    self.sent.insert(def.key, sent);
                    self.added.push(def.key);
                    match &def.kind {
                        DefKind::Struct { fields } => {
                            self.give(def);
                            for field in fields.iter().rev() {
                                stack.push(Visit::Part(field.ty));
                                stack.push(Visit::Enter(field.ty, Context::Field));
                            }
                        }
                        DefKind::Opaque(_) => self.give(def),
                        DefKind::Slice { elem } => {
                            stack.push(Visit::Leave(place));
                            stack.push(Visit::Enter(*elem, Context::SliceElement));
                        }
                        DefKind::Array { elem, .. } => {
                            stack.push(Visit::Leave(place));
                            stack.push(Visit::Enter(*elem, Context::Element));
                        }
                        DefKind::Map { key, elem } => {
                            stack.push(Visit::Leave(place));
                            stack.push(Visit::Enter(*elem, Context::Element));
                            stack.push(Visit::Enter(*key, Context::Element));
                        }
                    }
                }
                Visit::Leave(place) => {
                    let def = table.get(place).ok_or_else(incomplete)?;
                    self.give(def);
                    def.parts(|part| {
                        if let Some(part) = table.def(part) {
                            self.give(part);
                        }
                    });
                }
                Visit::Part(at) => {
                    if let Some(def) = table.def(at) {
                        self.give(def);
                    }
                }
            }
        }
        Ok(())
    }

    /// The types of this stream: id, key and name.
    pub(crate) fn types(&self) -> impl Iterator<Item = (i32, u64, &Name)> {
        let sent = self.sent.iter();
        sent.map(|(&key, sent)| (sent.id, key, &sent.own))
    }

    /// From here on, types have the ids that they were received with.
    #[cfg(test)]
    pub(crate) fn repeat_ids(&mut self, received: &crate::Encoded) {
        self.repeated.extend(received.ids());
    }

    fn give(&mut self, def: &Def) {
        if let Some(sent) = self.sent.get_mut(&def.key)
            && sent.id == 0
        {
            sent.id = FIRST_ID + self.given;
            self.given += 1;
            #[cfg(test)]
            if let Some(&id) = self.repeated.get(&def.key) {
                sent.id = id;
            }
        }
    }

    fn id(&self, ty: Ref, def: Option<&Arc<Def>>) -> Result<i32, EncodeError> {
        match ty {
            Ref::Builtin(builtin) => Ok(builtin.wire_id()),
            Ref::Defined(_) => def
                .and_then(|def| self.sent.get(&def.key))
                .map(|sent| sent.id)
                .ok_or_else(incomplete),
        }
    }
}

/// All that a definition of a type and of its parts says; nothing for types
/// that were received, which keep what their sender told apart.
fn shape(ty: &Type) -> Option<Vec<u8>> {
    let (table, Ref::Defined(root)) = (ty.table.as_ref()?, ty.at) else {
        return None;
    };
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend_from_slice(&text.len().to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    let mut order = vec![root];
    let mut known: HashMap<u32, usize, Quick> = HashMap::from_iter([(root, 0)]);
    let mut at = 0;
    while let Some(&place) = order.get(at) {
        at += 1;
        let def = table.get(place)?;
        match &def.name {
            Name::None => out.push(0),
            Name::Declared { printed, .. } => {
                out.push(1);
                text(&mut out, printed);
            }
            Name::Wire(_) => return None,
        }
        match &def.kind {
            DefKind::Array { len, .. } => {
                out.push(2);
                out.extend_from_slice(&len.to_le_bytes());
            }
            DefKind::Slice { .. } => out.push(3),
            DefKind::Map { .. } => out.push(4),
            DefKind::Struct { fields } => {
                out.push(5);
                out.extend_from_slice(&fields.len().to_le_bytes());
                fields.iter().for_each(|field| text(&mut out, &field.name));
            }
            DefKind::Opaque(kind) => {
                out.push(6);
                text(&mut out, kind.go_name());
            }
        }
        def.parts(|part| match part {
            Ref::Builtin(builtin) => {
                out.push(7);
                text(&mut out, builtin.go_name());
            }
            Ref::Defined(place) => {
                let next = known.len();
                let index = *known.entry(place).or_insert(next);
                if index == next {
                    order.push(place);
                }
                out.push(8);
                out.extend_from_slice(&index.to_le_bytes());
            }
        });
    }
    Some(out)
}

fn incomplete() -> EncodeError {
    EncodeError::new(EncodeErrorKind::Incomplete)
}

/// Where [`Encode::encode`] writes to.
///
/// Messages, and values within interfaces, begin with their length, which is
/// known when they are complete. So a gap is left for it, as wide as the
/// length is expected to be; the bytes are moved if that was wrong.
pub struct Writer<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut BytesMut,
    /// Where the gap of the current message or interface value begins.
    start: usize,
    gap: usize,
    depth: usize,
}

/// How deep a value may nest that we send ourselves. Deeper ones would be
/// refused by most receivers, and must not exhaust our stack.
pub(crate) const MAX_ENCODE_DEPTH: usize = 512;

impl<'a> Writer<'a> {
    fn new(encoder: &'a mut Encoder, out: &'a mut BytesMut) -> Writer<'a> {
        let start = out.len();
        Writer {
            encoder,
            out,
            start,
            gap: 0,
            depth: 0,
        }
    }

    fn top<T: Encode + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let hint = value.size_hint();
        let root = match value.dynamic() {
            Some(ty) => {
                self.open(0);
                self.send(&ty)?
            }
            None => match self.encoder.roots.get(&T::identity()) {
                Some(&root) => root,
                None => {
                    let ty = type_of::<T>()?;
                    self.open(0);
                    let root = self.send(&ty)?;
                    self.encoder.roots.insert(T::identity(), root);
                    self.encoder.added_roots.push(T::identity());
                    root
                }
            },
        };
        self.reopen(hint + 4);
        self.head(root);
        let begin = self.start;
        value.encode(self)?;
        self.close();
        // It may have become several messages, which the receiver takes as one.
        let whole = self.out.len() - begin;
        let found = whole - uint_len(whole as u64);
        match self.encoder.limit {
            Some(limit) if found > limit => {
                Err(EncodeError::new(EncodeErrorKind::Limit { found, limit }))
            }
            _ => Ok(()),
        }
    }

    fn head(&mut self, root: Root) {
        put_int(i64::from(root.id), self.out);
        if root.marked {
            put_uint(0, self.out);
        }
    }

    /// Begins a message or an interface value of about `hint` bytes.
    fn open(&mut self, hint: usize) {
        self.start = self.out.len();
        self.reopen(hint);
    }

    /// Begins again one in which there is nothing yet.
    fn reopen(&mut self, hint: usize) {
        self.out.truncate(self.start);
        self.gap = uint_len(hint as u64);
        self.out.reserve(self.gap + hint);
        self.out.extend_from_slice(&[0; MAX_UINT][..self.gap]);
    }

    /// Completes one with its length.
    fn close(&mut self) {
        let from = self.start + self.gap;
        let length = self.out.len() - from;
        let (prefix, needed) = uint_bytes(length as u64);
        if needed > self.gap {
            self.out
                .extend_from_slice(&[0; MAX_UINT][..needed - self.gap]);
            self.out
                .copy_within(from..from + length, self.start + needed);
        } else if needed < self.gap {
            self.out.copy_within(from.., self.start + needed);
            self.out.truncate(self.start + needed + length);
        }
        self.out[self.start..self.start + needed].copy_from_slice(&prefix[..needed]);
    }

    /// Makes sure that the stream knows a type. Each definition ends the
    /// current message or part of an interface value.
    fn send(&mut self, ty: &Type) -> Result<Root, EncodeError> {
        let Some(table) = &ty.table else {
            return Ok(Root {
                id: self.encoder.id(ty.at, None)?,
                marked: true,
            });
        };
        let root = table.def(ty.at).ok_or_else(incomplete)?;
        let marked = !matches!(root.kind, DefKind::Struct { .. });
        let known = self.encoder.sent.get(&root.key);
        if !known.is_some_and(|sent| sent.defined) {
            if known.is_none()
                && let Some(shape) = shape(ty)
            {
                if let Some(same) = self.encoder.shapes.get(&shape)
                    && let Some(sent) = self.encoder.sent.get(same)
                {
                    return Ok(Root {
                        id: sent.id,
                        marked,
                    });
                }
                self.encoder.shapes.insert(shape, root.key);
            }
            self.encoder.assign(ty)?;
            let mut stack = vec![ty.at];
            while let Some(at) = stack.pop() {
                let Ref::Defined(place) = at else { continue };
                let def = table.get(place).ok_or_else(incomplete)?;
                let sent = self.encoder.sent.get_mut(&def.key).ok_or_else(incomplete)?;
                if sent.defined {
                    continue;
                }
                sent.defined = true;
                let (id, name) = (sent.id, Arc::clone(&sent.name));
                self.definition(ty, def, id, &name)?;
                self.close();
                self.open(0);
                let first = stack.len();
                def.parts(|part| stack.push(part));
                stack[first..].reverse();
            }
        }
        Ok(Root {
            id: self.encoder.id(ty.at, Some(root))?,
            marked,
        })
    }

    /// Writes what defines a type: the negated id, then a value of a type
    /// that every stream knows.
    fn definition(&mut self, ty: &Type, def: &Def, id: i32, name: &str) -> Result<(), EncodeError> {
        put_int(-i64::from(id), self.out);
        let part = |writer: &Writer<'_>, at: Ref| -> Result<i64, EncodeError> {
            let def = ty.table.as_ref().and_then(|table| table.def(at));
            writer.encoder.id(at, def).map(i64::from)
        };
        let field = match &def.kind {
            DefKind::Array { .. } => 0,
            DefKind::Slice { .. } => 1,
            DefKind::Struct { .. } => 2,
            DefKind::Map { .. } => 3,
            DefKind::Opaque(OpaqueKind::GobEncoder) => 4,
            DefKind::Opaque(OpaqueKind::BinaryMarshaler) => 5,
            DefKind::Opaque(OpaqueKind::TextMarshaler) => 6,
        };
        self.uint(field + 1);
        self.uint(1);
        let mut skipped = 1;
        if !name.is_empty() {
            self.uint(1);
            self.bytes(name.as_bytes());
        } else {
            skipped += 1;
        }
        self.uint(skipped);
        put_int(i64::from(id), self.out);
        self.uint(0);
        match &def.kind {
            DefKind::Array { elem, len } => {
                self.uint(1);
                put_int(part(self, *elem)?, self.out);
                if *len != 0 {
                    self.uint(1);
                    put_int(*len as i64, self.out);
                }
            }
            DefKind::Slice { elem } => {
                self.uint(1);
                put_int(part(self, *elem)?, self.out);
            }
            DefKind::Map { key, elem } => {
                self.uint(1);
                put_int(part(self, *key)?, self.out);
                self.uint(1);
                put_int(part(self, *elem)?, self.out);
            }
            DefKind::Struct { fields } if fields.is_empty() => {}
            DefKind::Struct { fields } => {
                self.uint(1);
                self.uint(fields.len() as u64);
                for Field { name, ty } in fields {
                    self.uint(1);
                    self.bytes(name.as_bytes());
                    self.uint(1);
                    put_int(part(self, *ty)?, self.out);
                    self.uint(0);
                }
            }
            DefKind::Opaque(_) => {}
        }
        self.uint(0);
        self.uint(0);
        Ok(())
    }

    /// Writes an interface: the registered name, definitions if needed, the
    /// type and, with its length, the value.
    pub(crate) fn interface(
        &mut self,
        name: &str,
        ty: &Type,
        hint: usize,
        value: impl FnOnce(&mut Writer<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        if name.is_empty() || name.len() > MAX_INTERFACE_NAME {
            let name = crate::error::excerpt(name.as_bytes());
            return Err(EncodeError::new(EncodeErrorKind::Name(name)));
        }
        self.bytes(name.as_bytes());
        let root = self.send(ty)?;
        put_int(i64::from(root.id), self.out);
        let outer = (self.start, self.gap);
        self.open(hint + 1);
        if root.marked {
            self.uint(0);
        }
        self.deeper(value)?;
        self.close();
        (self.start, self.gap) = outer;
        Ok(())
    }

    /// Runs `body` one level down.
    pub(crate) fn deeper<T>(
        &mut self,
        body: impl FnOnce(&mut Writer<'_>) -> Result<T, EncodeError>,
    ) -> Result<T, EncodeError> {
        if self.depth >= MAX_ENCODE_DEPTH {
            return Err(EncodeError::new(EncodeErrorKind::Depth(MAX_ENCODE_DEPTH)));
        }
        self.depth += 1;
        let result = body(self);
        self.depth -= 1;
        result
    }

    /// Writes an unsigned integer.
    pub fn uint(&mut self, value: u64) {
        put_uint(value, self.out);
    }

    /// Writes a signed integer.
    pub fn int(&mut self, value: i64) {
        put_int(value, self.out);
    }

    /// Writes a float.
    pub fn float(&mut self, value: f64) {
        put_uint(float_bits(value), self.out);
    }

    /// Writes a length and that many bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        put_uint(bytes.len() as u64, self.out);
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes elements one after the other.
    pub fn elements<T: Encode>(&mut self, items: &[T]) -> Result<(), EncodeError> {
        self.deeper(|to| {
            for (index, item) in items.iter().enumerate() {
                item.encode(to).map_err(|error| error.at_index(index))?;
            }
            Ok(())
        })
    }

    /// Writes a map.
    pub fn entries<'m, K: Encode + 'm, V: Encode + 'm>(
        &mut self,
        entries: impl ExactSizeIterator<Item = (&'m K, &'m V)>,
    ) -> Result<(), EncodeError> {
        self.uint(entries.len() as u64);
        self.deeper(|to| {
            for (key, value) in entries {
                key.encode(to).map_err(EncodeError::at_key)?;
                value.encode(to).map_err(EncodeError::at_element)?;
            }
            Ok(())
        })
    }

    /// Writes a struct; `fields` calls [`Fields::field`] for each.
    pub fn structure(
        &mut self,
        of: &'static str,
        fields: impl FnOnce(&mut Fields<'_, '_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.deeper(|to| {
            let mut all = Fields {
                writer: to,
                of,
                last: -1,
                next: 0,
            };
            fields(&mut all)
        })?;
        self.uint(0);
        Ok(())
    }
}

/// The fields of a struct that is being written.
pub struct Fields<'w, 'a> {
    writer: &'w mut Writer<'a>,
    of: &'static str,
    last: i64,
    next: i64,
}

impl Fields<'_, '_> {
    /// Writes the next field, or leaves it out if it is zero.
    #[inline]
    pub fn field<T: Encode>(&mut self, name: &'static str, value: &T) -> Result<(), EncodeError> {
        let at = self.next;
        self.next += 1;
        if value.is_zero() {
            return Ok(());
        }
        self.writer.uint((at - self.last).cast_unsigned());
        self.last = at;
        value
            .encode(self.writer)
            .map_err(|error| error.within(self.of, name))
    }
}
