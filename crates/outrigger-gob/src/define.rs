//! Definitions of types, as they are received.

use std::sync::Arc;

use crate::error::{DecodeError, DecodeErrorKind, bad_uint, excerpt};
use crate::number::{get_uint, unzigzag};
use crate::types::{Def, DefKind, FIRST_USER_ID, Field, Name, OpaqueKind, Ref, Table, fresh_key};

/// Bytes of a message from `at` on, up to `end`.
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
    pub(crate) end: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn left(&self) -> usize {
        self.end - self.at
    }

    pub(crate) fn uint(&mut self) -> Result<u64, DecodeError> {
        let rest = self.bytes.get(self.at..self.end).unwrap_or_default();
        let (value, length) = get_uint(rest).map_err(bad_uint)?;
        self.at += length;
        Ok(value)
    }

    pub(crate) fn int(&mut self) -> Result<i64, DecodeError> {
        self.uint().map(unzigzag)
    }

    /// A length and that many bytes.
    pub(crate) fn take(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let declared = self.uint()?;
        let possible = self.left();
        let length = usize::try_from(declared).ok().filter(|&n| n <= possible);
        let Some(length) = length else {
            return Err(DecodeError::new(DecodeErrorKind::Length {
                what,
                declared,
                possible: possible as u64,
            }));
        };
        let taken = self.bytes.get(self.at..self.at + length);
        self.at += length;
        Ok(taken.unwrap_or_default())
    }

    /// The number of the next field of a struct of `fields` fields, after
    /// `last`; `None` at its end.
    fn field(&mut self, last: &mut i64, fields: i64) -> Result<Option<i64>, DecodeError> {
        let delta = self.uint()?;
        if delta == 0 {
            return Ok(None);
        }
        let next = i64::try_from(delta).ok().and_then(|d| last.checked_add(d));
        match next.filter(|&at| at < fields) {
            Some(at) => {
                *last = at;
                Ok(Some(at))
            }
            None => Err(DecodeError::malformed(
                "a type definition with an unknown field",
            )),
        }
    }

    fn name(&mut self) -> Result<Arc<str>, DecodeError> {
        let name = self.take("a name")?;
        match std::str::from_utf8(name) {
            Ok(name) => Ok(name.into()),
            Err(_) => Err(DecodeError::new(DecodeErrorKind::NotUtf8(excerpt(name)))),
        }
    }
}

/// What a definition may refer to, and how many there may be.
pub(crate) struct Definer<'a> {
    pub(crate) table: &'a mut Table,
    /// How many types there may be.
    pub(crate) limit: usize,
}

impl Definer<'_> {
    /// Reads the definition of the type `id`, which was read already.
    pub(crate) fn define(&mut self, id: i64, from: &mut Cursor<'_>) -> Result<(), DecodeError> {
        let redefined = || DecodeError::new(DecodeErrorKind::Redefined(id));
        if id < FIRST_USER_ID {
            return Err(redefined());
        }
        let Ref::Defined(place) = self.place(id)? else {
            return Err(redefined());
        };
        if self.table.get(place).is_some() {
            return Err(redefined());
        }
        let (name, kind) = self.wire_type(from)?;
        let def = Def {
            key: fresh_key(),
            name: Name::Wire(name),
            kind,
        };
        self.table.fill(place, def);
        Ok(())
    }

    fn place(&mut self, id: i64) -> Result<Ref, DecodeError> {
        let at = self
            .table
            .place_of(id)
            .ok_or_else(|| DecodeError::new(DecodeErrorKind::Undefined(id)))?;
        if self.table.len() > self.limit {
            return Err(DecodeError::new(DecodeErrorKind::Limit {
                what: "a number of types",
                found: self.table.len() as u64,
                limit: self.limit as u64,
                setting: "types",
            }));
        }
        Ok(at)
    }

    /// The one description that is there, of the seven that can be.
    fn wire_type(&mut self, from: &mut Cursor<'_>) -> Result<(Arc<str>, DefKind), DecodeError> {
        const ONE: &str = "a type definition must describe exactly one type";
        let mut last = -1;
        let Some(which) = from.field(&mut last, 7)? else {
            return Err(DecodeError::malformed(ONE));
        };
        let description = match which {
            0 => self.array(from)?,
            1 => self.slice(from)?,
            2 => self.structure(from)?,
            3 => self.map(from)?,
            4 => opaque(OpaqueKind::GobEncoder, from)?,
            5 => opaque(OpaqueKind::BinaryMarshaler, from)?,
            _ => opaque(OpaqueKind::TextMarshaler, from)?,
        };
        match from.field(&mut last, 7)? {
            None => Ok(description),
            Some(_) => Err(DecodeError::malformed(ONE)),
        }
    }

    fn array(&mut self, from: &mut Cursor<'_>) -> Result<(Arc<str>, DefKind), DecodeError> {
        let (mut name, mut elem, mut len) = (None, 0, 0);
        let mut last = -1;
        while let Some(field) = from.field(&mut last, 3)? {
            match field {
                0 => name = Some(common(from)?),
                1 => elem = from.int()?,
                _ => len = from.int()?,
            }
        }
        let len = u64::try_from(len)
            .map_err(|_| DecodeError::malformed(format!("an array of {len} elements")))?;
        let elem = self.place(elem)?;
        Ok((name.unwrap_or_default(), DefKind::Array { elem, len }))
    }

    fn slice(&mut self, from: &mut Cursor<'_>) -> Result<(Arc<str>, DefKind), DecodeError> {
        let (mut name, mut elem) = (None, 0);
        let mut last = -1;
        while let Some(field) = from.field(&mut last, 2)? {
            match field {
                0 => name = Some(common(from)?),
                _ => elem = from.int()?,
            }
        }
        let elem = self.place(elem)?;
        Ok((name.unwrap_or_default(), DefKind::Slice { elem }))
    }

    fn map(&mut self, from: &mut Cursor<'_>) -> Result<(Arc<str>, DefKind), DecodeError> {
        let (mut name, mut key, mut elem) = (None, 0, 0);
        let mut last = -1;
        while let Some(field) = from.field(&mut last, 3)? {
            match field {
                0 => name = Some(common(from)?),
                1 => key = from.int()?,
                _ => elem = from.int()?,
            }
        }
        let (key, elem) = (self.place(key)?, self.place(elem)?);
        Ok((name.unwrap_or_default(), DefKind::Map { key, elem }))
    }

    fn structure(&mut self, from: &mut Cursor<'_>) -> Result<(Arc<str>, DefKind), DecodeError> {
        let (mut name, mut fields) = (None, Vec::new());
        let mut last = -1;
        while let Some(field) = from.field(&mut last, 2)? {
            match field {
                0 => name = Some(common(from)?),
                _ => {
                    let declared = from.uint()?;
                    if declared > from.left() as u64 {
                        return Err(DecodeError::new(DecodeErrorKind::Length {
                            what: "a number of fields",
                            declared,
                            possible: from.left() as u64,
                        }));
                    }
                    for _ in 0..declared {
                        fields.push(self.field(from)?);
                    }
                }
            }
        }
        Ok((name.unwrap_or_default(), DefKind::Struct { fields }))
    }

    fn field(&mut self, from: &mut Cursor<'_>) -> Result<Field, DecodeError> {
        let (mut name, mut ty) = (None, 0);
        let mut last = -1;
        while let Some(field) = from.field(&mut last, 2)? {
            match field {
                0 => name = Some(from.name()?),
                _ => ty = from.int()?,
            }
        }
        let name = name
            .filter(|name| !name.is_empty())
            .ok_or_else(|| DecodeError::malformed("a field without a name"))?;
        let ty = self.place(ty)?;
        Ok(Field { name, ty })
    }
}

/// The name of a type. Its id is repeated here; Go's own encoder repeats
/// another one for some types that encode themselves, so it says nothing.
fn common(from: &mut Cursor<'_>) -> Result<Arc<str>, DecodeError> {
    let mut name = None;
    let mut last = -1;
    while let Some(field) = from.field(&mut last, 2)? {
        match field {
            0 => name = Some(from.name()?),
            _ => {
                from.int()?;
            }
        }
    }
    Ok(name.unwrap_or_default())
}

fn opaque(kind: OpaqueKind, from: &mut Cursor<'_>) -> Result<(Arc<str>, DefKind), DecodeError> {
    let mut name = None;
    let mut last = -1;
    while from.field(&mut last, 1)?.is_some() {
        name = Some(common(from)?);
    }
    Ok((name.unwrap_or_default(), DefKind::Opaque(kind)))
}
