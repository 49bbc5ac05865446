//! One direction of a stream: messages in, values out.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::decode::{Fit, Gob, Reader, Shared};
use crate::define::{Cursor, Definer};
use crate::encode::Encoder;
use crate::error::{DecodeError, DecodeErrorKind, bad_uint};
use crate::limits::Limits;
use crate::number::{BadUint, get_uint};
use crate::scan::{Scan, Scanned, marker, settle};
use crate::types::{DefKind, Reach, Ref, Table, Type};

/// The receiving end of one direction of one stream.
///
/// ```
/// use bytes::BytesMut;
/// use outrigger_gob::{Decoder, Limits};
///
/// let mut decoder = Decoder::new(Limits::default());
/// // The string "greeter" and the beginning of another value.
/// let mut input = BytesMut::from(&b"\x0a\x0c\x00\x07greeter\x03\x04"[..]);
///
/// let value = decoder.next(&mut input)?.expect("a whole value");
/// assert_eq!(value.decode::<String>()?, "greeter");
/// assert!(decoder.next(&mut input)?.is_none(), "more bytes are needed");
/// # Ok::<(), outrigger_gob::DecodeError>(())
/// ```
pub struct Decoder {
    table: Arc<Table>,
    shared: Arc<Shared>,
    /// A value that continues in the next message.
    scan: Option<Scan>,
    /// How many bytes of definitions there were.
    defined: usize,
    /// How many bytes were taken.
    offset: u64,
    ended: bool,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("offset", &self.offset)
            .field("types", &self.table.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new(Limits::default())
    }
}

impl Decoder {
    /// For a stream of which nothing was read yet.
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            table: Arc::default(),
            shared: Arc::new(Shared::new(limits)),
            scan: None,
            defined: 0,
            offset: 0,
            ended: false,
        }
    }

    /// How many bytes of the stream were taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the stream may end here: no value has begun.
    pub fn is_between_values(&self) -> bool {
        self.scan.is_none()
    }

    /// Takes the next value off the front of `input`, where all bytes of the
    /// stream must arrive; `None` if more of them are needed. Definitions are
    /// taken as they come.
    ///
    /// The bytes of the value stay where they are: as long as it is kept, so
    /// is the memory of `input` around it.
    ///
    /// # Errors
    ///
    /// When the framing or a definition is wrong or more than the limits
    /// allow. The stream cannot be read any further then; calls after that
    /// return an error too.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Encoded>, DecodeError> {
        if self.ended {
            return Err(DecodeError::new(DecodeErrorKind::Ended));
        }
        let result = self.advance(input);
        self.ended = result.is_err();
        result
    }

    fn advance(&mut self, input: &mut BytesMut) -> Result<Option<Encoded>, DecodeError> {
        while let Some(message) = self.message(input)? {
            let end = self.offset;
            let scan = match self.scan.take() {
                Some(mut scan) => {
                    self.bound(scan.received().saturating_add(message.len()))?;
                    scan.add(&message);
                    scan
                }
                None => match self.begin(message)? {
                    Begun::Nothing => continue,
                    Begun::Whole(value) => return Ok(Some(value)),
                    Begun::Scan(scan) => scan,
                },
            };
            let limits = self.shared.limits;
            match scan.run(end, &mut self.table, &limits)? {
                Scanned::Complete { ty, bytes, defined } => {
                    self.account(defined)?;
                    return Ok(Some(self.value(ty, bytes)));
                }
                Scanned::Continues(mut scan) => {
                    self.account(std::mem::take(&mut scan.defined))?;
                    self.scan = Some(scan);
                }
            }
        }
        Ok(None)
    }

    /// After [`Decoder::next`] found too little in `input`: how many bytes the
    /// value that has begun takes, as far as it is known. No more than the
    /// limit of a message and its length.
    pub fn pending(&self, input: &[u8]) -> usize {
        let begun = self.scan.as_ref().map_or(0, Scan::received);
        let announced = match get_uint(input) {
            Ok((length, prefix)) => usize::try_from(length).map_or(usize::MAX, |n| n + prefix),
            Err(_) => input.len(),
        };
        begun.saturating_add(announced)
    }

    /// The next message, if all of it is there.
    fn message(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        let (length, prefix) = match get_uint(input) {
            Ok(found) => found,
            Err(BadUint::Short) => return Ok(None),
            Err(bad) => return Err(bad_uint(bad).at(self.offset)),
        };
        if length == 0 {
            return Err(DecodeError::malformed("an empty message").at(self.offset));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.bound(length)?;
        if input.len() - prefix < length {
            return Ok(None);
        }
        let mut message = input.split_to(prefix + length).freeze();
        bytes::Buf::advance(&mut message, prefix);
        self.offset += (prefix + length) as u64;
        Ok(Some(message))
    }

    fn bound(&self, length: usize) -> Result<(), DecodeError> {
        let limit = self.shared.limits.message;
        if length > limit {
            return Err(DecodeError::new(DecodeErrorKind::Limit {
                what: "a message",
                found: length as u64,
                limit: limit as u64,
                setting: "message",
            })
            .at(self.offset));
        }
        Ok(())
    }

    fn account(&mut self, definitions: usize) -> Result<(), DecodeError> {
        self.defined += definitions;
        let limit = self.shared.limits.definitions;
        if self.defined > limit {
            return Err(DecodeError::new(DecodeErrorKind::Limit {
                what: "a size of all type definitions",
                found: self.defined as u64,
                limit: limit as u64,
                setting: "definitions",
            })
            .at(self.offset));
        }
        Ok(())
    }

    /// Looks at a message that does not continue a value.
    fn begin(&mut self, mut message: Bytes) -> Result<Begun, DecodeError> {
        let end = self.offset;
        let mut cursor = Cursor {
            bytes: &message,
            at: 0,
            end: message.len(),
        };
        match self.head(&mut cursor) {
            Ok(Some(ty)) => {
                let at = cursor.at;
                bytes::Buf::advance(&mut message, at);
                Ok(match self.table.known_reach(ty) {
                    Reach::Interfaces => Begun::Scan(Scan::new(ty, message)),
                    _ => Begun::Whole(self.value(ty, message)),
                })
            }
            Ok(None) => {
                let size = message.len();
                self.account(size)?;
                Ok(Begun::Nothing)
            }
            Err(error) => Err(error.at(end.saturating_sub(cursor.left() as u64))),
        }
    }

    /// Reads a definition, or the type of the value that follows.
    fn head(&mut self, from: &mut Cursor<'_>) -> Result<Option<Ref>, DecodeError> {
        let id = from.int()?;
        if id < 0 {
            let mut definer = Definer {
                table: Arc::make_mut(&mut self.table),
                limit: self.shared.limits.types,
            };
            definer.define(id.saturating_neg(), from)?;
            return match from.left() as u64 {
                0 => Ok(None),
                more => Err(DecodeError::new(DecodeErrorKind::Trailing(
                    more,
                    "the message of a type definition",
                ))),
            };
        }
        let ty = self
            .table
            .by_id(id)
            .ok_or_else(|| DecodeError::new(DecodeErrorKind::Undefined(id)))?;
        settle(&mut self.table, ty)?;
        let is_struct = matches!(
            self.table.def(ty).map(|def| &def.kind),
            Some(DefKind::Struct { .. })
        );
        if !is_struct {
            marker(from.uint()?)?;
        }
        Ok(Some(ty))
    }

    fn value(&self, ty: Ref, bytes: Bytes) -> Encoded {
        Encoded {
            bytes,
            ty,
            table: Arc::clone(&self.table),
            shared: Arc::clone(&self.shared),
        }
    }
}

/// What a message begins with.
enum Begun {
    /// It defined a type.
    Nothing,
    /// It is a value.
    Whole(Encoded),
    /// It is a value that may go on in other messages.
    Scan(Scan),
}

/// One complete value as it was received, not yet looked into.
///
/// Cloning is cheap: the bytes and the types of the stream are shared.
#[derive(Clone)]
pub struct Encoded {
    bytes: Bytes,
    ty: Ref,
    table: Arc<Table>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("type", &self.ty())
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Encoded {
    /// Reads the value as a Rust type. Fields that were left out are zero,
    /// and unknown ones are passed over.
    ///
    /// # Errors
    ///
    /// When the types differ by the rules of Go, the bytes are not a value of
    /// their type, or the value takes more memory than the limits allow. The
    /// stream can be read on in any case.
    pub fn decode<T: Gob>(&self) -> Result<T, DecodeError> {
        let mut reader = Reader::new(&self.bytes, &self.table, &self.shared);
        if reader.check::<T>(self.ty)? == Fit::NoCommonField {
            return Err(self.no_common_field::<T>());
        }
        let value = T::decode(&mut reader, self.ty)?;
        reader.finish()?;
        Ok(value)
    }

    /// The type it was sent as.
    pub fn ty(&self) -> Type {
        Type::new(&self.table, self.ty)
    }

    /// What the sender calls its type: `Point`, `string`; what it is if it
    /// has no name.
    pub fn type_name(&self) -> String {
        let ty = self.ty();
        match ty.name() {
            "" => ty.to_string(),
            name => name.to_owned(),
        }
    }

    /// How many bytes it takes on the wire, without its type.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it takes no bytes; no value does.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A value within another that was received.
    pub(crate) fn within(
        reader: &Reader<'_>,
        id: i64,
        mut bytes: Bytes,
    ) -> Result<Encoded, DecodeError> {
        let table = reader.table();
        let undefined = || DecodeError::new(DecodeErrorKind::Undefined(id));
        let ty = table.by_id(id).ok_or_else(undefined)?;
        let is_struct = matches!(
            table.def(ty).map(|def| &def.kind),
            Some(DefKind::Struct { .. })
        );
        if !is_struct {
            let (value, length) = get_uint(&bytes).map_err(bad_uint)?;
            marker(value)?;
            bytes::Buf::advance(&mut bytes, length);
        }
        Ok(Encoded {
            bytes,
            ty,
            table: Arc::clone(table),
            shared: Arc::clone(reader.shared()),
        })
    }

    /// Says that the types are those which `encoder` sent.
    pub(crate) fn identify(&mut self, encoder: &Encoder) {
        let table = Arc::make_mut(&mut self.table);
        for (id, key, name) in encoder.types() {
            table.identify(id, key, name);
        }
    }

    /// Keys and ids of the types of the stream.
    #[cfg(test)]
    pub(crate) fn ids(&self) -> impl Iterator<Item = (u64, i32)> {
        self.table.ids()
    }

    /// How far its type reaches.
    pub(crate) fn reach(&self) -> Reach {
        self.table.known_reach(self.ty)
    }

    /// The bytes, in the types of the stream they came from.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[cfg(test)]
    pub(crate) fn holds_interfaces(&self) -> bool {
        self.reach() == Reach::Interfaces
    }

    fn no_common_field<T: Gob>(&self) -> DecodeError {
        let found = match self.ty().kind() {
            crate::types::Kind::Struct { fields } => {
                let names: Vec<_> = fields.iter().map(|(name, _)| &**name).collect();
                crate::error::excerpt(names.join(", ").as_bytes())
            }
            _ => String::new(),
        };
        DecodeError::new(DecodeErrorKind::NoCommonField {
            expected: std::any::type_name::<T>(),
            found,
        })
    }
}
