//! Finding the end of a value that may define types in its middle.
//!
//! When a value holds an interface whose type the stream does not know yet,
//! the message ends right after the definition of that type, and the value
//! goes on in the next one; inside another interface, it goes on after a
//! second length. The scan follows this without recursion and stops where a
//! message ends, to go on when the next one is there. What it produces is the
//! value as it would be had all its types been known.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::define::{Cursor, Definer};
use crate::error::{DecodeError, DecodeErrorKind, array_length, excerpt, no_such_field};
use crate::limits::{Limits, MAX_INTERFACE_NAME};
use crate::number::{MAX_UINT, put_uint, uint_len};
use crate::types::{Builtin, DefKind, Reach, Ref, Table};

/// A value being scanned.
pub(crate) struct Scan {
    /// Its type.
    pub(crate) ty: Ref,
    /// The bytes of all its messages so far.
    raw: Raw,
    at: usize,
    frames: Vec<Frame>,
    /// Which frames are interfaces: looking for one among many others would
    /// take as long as they are deep, for each byte.
    interfaces: Vec<usize>,
    step: Step,
    edits: Vec<Edit>,
    /// How many bytes of definitions were met.
    pub(crate) defined: usize,
}

enum Raw {
    One(Bytes),
    Several(BytesMut),
}

/// What comes next.
#[derive(Clone, Copy)]
enum Step {
    /// A value of this type.
    Value(Ref),
    /// What the innermost frame says.
    Next,
    /// The type of an interface value; definitions may precede it.
    Type { defined: bool },
    /// Nothing.
    Done,
}

enum Frame {
    Struct {
        place: u32,
        next: usize,
    },
    Elements {
        elem: Ref,
        left: u64,
    },
    Entries {
        key: Ref,
        elem: Ref,
        /// Keys and values.
        left: u64,
    },
    Interface {
        /// Where the value, or the part of it that is there, ends.
        end: usize,
        /// Where the first length begins and ends.
        length: (usize, usize),
        change: i64,
    },
}

/// A part of what was received that becomes something else.
struct Edit {
    from: usize,
    to: usize,
    /// The new length to be put there; nothing if `None`.
    length: Option<u64>,
}

/// How a scan ended.
pub(crate) enum Scanned {
    /// The value is complete.
    Complete {
        ty: Ref,
        bytes: Bytes,
        /// How many bytes of definitions were met since the last message.
        defined: usize,
    },
    /// The next message continues it.
    Continues(Scan),
}

impl Scan {
    /// For a value that begins at the start of `message`.
    pub(crate) fn new(ty: Ref, message: Bytes) -> Scan {
        Scan {
            ty,
            raw: Raw::One(message),
            at: 0,
            frames: Vec::new(),
            interfaces: Vec::new(),
            step: Step::Value(ty),
            edits: Vec::new(),
            defined: 0,
        }
    }

    /// How many bytes of the value were received so far.
    pub(crate) fn received(&self) -> usize {
        self.raw.bytes().len()
    }

    /// Adds the next message.
    pub(crate) fn add(&mut self, message: &[u8]) {
        let mut all = match std::mem::replace(&mut self.raw, Raw::One(Bytes::new())) {
            Raw::One(first) => BytesMut::from(&first[..]),
            Raw::Several(all) => all,
        };
        all.extend_from_slice(message);
        self.raw = Raw::Several(all);
    }

    /// Goes on to the end of the value or of the message, which is `end` bytes
    /// into the stream.
    pub(crate) fn run(
        mut self,
        end: u64,
        table: &mut Arc<Table>,
        limits: &Limits,
    ) -> Result<Scanned, DecodeError> {
        let raw = std::mem::replace(&mut self.raw, Raw::One(Bytes::new()));
        let mut walk = Walk {
            scan: &mut self,
            bytes: raw.bytes(),
            table,
            limits,
        };
        let complete = walk.run().map_err(|error| {
            let left = walk.bytes.len() - walk.scan.at;
            error.at(end.saturating_sub(left as u64))
        })?;
        self.raw = raw;
        if complete {
            Ok(Scanned::Complete {
                ty: self.ty,
                defined: self.defined,
                bytes: self.finish(),
            })
        } else {
            Ok(Scanned::Continues(self))
        }
    }

    /// The value without the definitions.
    fn finish(self) -> Bytes {
        let Scan { raw, mut edits, .. } = self;
        if edits.is_empty() {
            return raw.into_bytes();
        }
        edits.sort_by_key(|edit| edit.from);
        let bytes = raw.bytes();
        let mut out = BytesMut::with_capacity(bytes.len() + edits.len() * MAX_UINT);
        let mut at = 0;
        for edit in edits {
            out.extend_from_slice(bytes.get(at..edit.from).unwrap_or_default());
            if let Some(length) = edit.length {
                put_uint(length, &mut out);
            }
            at = edit.to;
        }
        out.extend_from_slice(bytes.get(at..).unwrap_or_default());
        out.freeze()
    }
}

impl Raw {
    fn bytes(&self) -> &[u8] {
        match self {
            Raw::One(bytes) => bytes,
            Raw::Several(bytes) => bytes,
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Raw::One(bytes) => bytes,
            Raw::Several(bytes) => bytes.freeze(),
        }
    }
}

struct Walk<'a> {
    scan: &'a mut Scan,
    bytes: &'a [u8],
    table: &'a mut Arc<Table>,
    limits: &'a Limits,
}

impl Walk<'_> {
    /// Returns whether the value is complete.
    fn run(&mut self) -> Result<bool, DecodeError> {
        loop {
            match self.scan.step {
                Step::Value(ty) => self.value(ty)?,
                Step::Next => self.next()?,
                Step::Type { defined } => {
                    if !self.type_of_interface(defined)? {
                        return Ok(false);
                    }
                }
                Step::Done => break,
            }
        }
        match self.bytes.len() - self.scan.at {
            0 => Ok(true),
            more => Err(DecodeError::new(DecodeErrorKind::Trailing(
                more as u64,
                "its message",
            ))),
        }
    }

    /// Where the innermost interface value, or else the message, ends.
    fn end(&self) -> usize {
        self.end_at(self.scan.interfaces.last())
    }

    /// Where the interface value in this frame, or without one the message, ends.
    fn end_at(&self, frame: Option<&usize>) -> usize {
        match frame.and_then(|&at| self.scan.frames.get(at)) {
            Some(Frame::Interface { end, .. }) => *end,
            _ => self.bytes.len(),
        }
    }

    fn cursor(&self) -> Cursor<'_> {
        Cursor {
            bytes: self.bytes,
            at: self.scan.at,
            end: self.end(),
        }
    }

    fn uint(&mut self) -> Result<u64, DecodeError> {
        let mut cursor = self.cursor();
        let value = cursor.uint()?;
        self.scan.at = cursor.at;
        Ok(value)
    }

    /// Passes over a length and that many bytes.
    fn pass(&mut self, what: &'static str) -> Result<(), DecodeError> {
        let mut cursor = self.cursor();
        cursor.take(what)?;
        self.scan.at = cursor.at;
        Ok(())
    }

    fn push(&mut self, frame: Frame) -> Result<(), DecodeError> {
        if self.scan.frames.len() >= self.limits.depth {
            return Err(DecodeError::new(DecodeErrorKind::Limit {
                what: "a nesting",
                found: self.scan.frames.len() as u64 + 1,
                limit: self.limits.depth as u64,
                setting: "depth",
            }));
        }
        if let Frame::Interface { .. } = frame {
            self.scan.interfaces.push(self.scan.frames.len());
        }
        self.scan.frames.push(frame);
        self.scan.step = Step::Next;
        Ok(())
    }

    /// A count of what takes `least` bytes each. More may follow in other
    /// messages, so that only the limit of a message bounds it.
    fn count(&mut self, least: usize) -> Result<u64, DecodeError> {
        let declared = self.uint()?;
        let possible = (self.limits.message / least) as u64;
        if declared > possible {
            return Err(DecodeError::new(DecodeErrorKind::Length {
                what: "a count",
                declared,
                possible,
            }));
        }
        Ok(declared)
    }

    fn value(&mut self, ty: Ref) -> Result<(), DecodeError> {
        self.scan.step = Step::Next;
        let place = match ty {
            Ref::Builtin(builtin) => return self.builtin(builtin),
            Ref::Defined(place) => place,
        };
        let Some(def) = self.table.get(place) else {
            return Err(undefined(self.table, place));
        };
        match def.kind {
            DefKind::Array { elem, len } => {
                let left = self.count(1)?;
                if left != len {
                    return Err(array_length(left, len));
                }
                self.push(Frame::Elements { elem, left })
            }
            DefKind::Slice { elem } => {
                let left = self.count(1)?;
                self.push(Frame::Elements { elem, left })
            }
            DefKind::Map { key, elem } => {
                let left = 2 * self.count(2)?;
                self.push(Frame::Entries { key, elem, left })
            }
            DefKind::Struct { .. } => self.push(Frame::Struct { place, next: 0 }),
            DefKind::Opaque(_) => self.pass("an encoded value"),
        }
    }

    fn builtin(&mut self, builtin: Builtin) -> Result<(), DecodeError> {
        match builtin {
            Builtin::Bytes | Builtin::String => self.pass("a string"),
            Builtin::Complex64 | Builtin::Complex128 => {
                self.uint()?;
                self.uint().map(|_| ())
            }
            Builtin::Interface => self.interface(),
            Builtin::Bool
            | Builtin::Int(_)
            | Builtin::Uint(_)
            | Builtin::Uintptr
            | Builtin::Float32
            | Builtin::Float64 => self.uint().map(|_| ()),
        }
    }

    fn interface(&mut self) -> Result<(), DecodeError> {
        let mut cursor = self.cursor();
        let name = cursor.take("a type name")?;
        if name.len() > MAX_INTERFACE_NAME {
            return Err(DecodeError::malformed(format!(
                "a type name of {} bytes: {}",
                name.len(),
                excerpt(name)
            )));
        }
        if std::str::from_utf8(name).is_err() {
            return Err(DecodeError::new(DecodeErrorKind::NotUtf8(excerpt(name))));
        }
        let nil = name.is_empty();
        self.scan.at = cursor.at;
        if !nil {
            self.scan.step = Step::Type { defined: false };
        }
        Ok(())
    }

    /// Returns whether there is more in this message.
    fn type_of_interface(&mut self, defined: bool) -> Result<bool, DecodeError> {
        let start = self.scan.at;
        let nested = self.scan.interfaces.last().copied();
        if defined && nested.is_none() && start == self.bytes.len() {
            return Ok(false);
        }
        let mut cursor = self.cursor();
        let id = cursor.int()?;
        if id >= 0 {
            self.scan.at = cursor.at;
            self.open(id)?;
            return Ok(true);
        }
        let mut cursor = Cursor {
            bytes: self.bytes,
            at: cursor.at,
            end: cursor.end,
        };
        let mut definer = Definer {
            table: Arc::make_mut(self.table),
            limit: self.limits.types,
        };
        definer.define(id.saturating_neg(), &mut cursor)?;
        let mut to = cursor.at;
        self.scan.defined += to - start;
        if cursor.left() > 0 {
            return Err(DecodeError::new(DecodeErrorKind::Trailing(
                cursor.left() as u64,
                "the message of a type definition",
            )));
        }
        if let Some(nested) = nested {
            to = self.next_part(nested, to)?;
        }
        self.scan.at = to;
        self.edit(Edit {
            from: start,
            to,
            length: None,
        });
        self.scan.step = Step::Type { defined: true };
        Ok(true)
    }

    /// Reads the length of the next part of the interface value in the frame
    /// at `nested`; the part before ended at `at`.
    fn next_part(&mut self, nested: usize, at: usize) -> Result<usize, DecodeError> {
        let outer = self.scan.interfaces.iter().rev().nth(1);
        let mut cursor = Cursor {
            bytes: self.bytes,
            at,
            end: self.end_at(outer),
        };
        let declared = cursor.uint()?;
        let new_end = part_end(&cursor, declared)?;
        if let Some(Frame::Interface { end, .. }) = self.scan.frames.get_mut(nested) {
            *end = new_end;
        }
        Ok(cursor.at)
    }

    /// Begins the value of an interface, whose type was just read.
    fn open(&mut self, id: i64) -> Result<(), DecodeError> {
        let undefined_id = || DecodeError::new(DecodeErrorKind::Undefined(id));
        let ty = self.table.by_id(id).ok_or_else(undefined_id)?;
        if ty.is_wire(Builtin::Interface) {
            let problem = "an interface directly within an interface";
            return Err(DecodeError::malformed(problem));
        }
        settle(self.table, ty)?;
        let start = self.scan.at;
        let mut cursor = self.cursor();
        let declared = cursor.uint()?;
        let end = part_end(&cursor, declared)?;
        let length = (start, cursor.at);
        self.scan.at = cursor.at;
        self.push(Frame::Interface {
            end,
            length,
            change: 0,
        })?;
        let is_struct = matches!(
            self.table.def(ty).map(|def| &def.kind),
            Some(DefKind::Struct { .. })
        );
        if !is_struct {
            marker(self.uint()?)?;
        }
        self.scan.step = Step::Value(ty);
        Ok(())
    }

    fn next(&mut self) -> Result<(), DecodeError> {
        let Some(frame) = self.scan.frames.last_mut() else {
            self.scan.step = Step::Done;
            return Ok(());
        };
        match frame {
            Frame::Elements { elem, left } if *left > 0 => {
                *left -= 1;
                self.scan.step = Step::Value(*elem);
                Ok(())
            }
            Frame::Entries { key, elem, left } if *left > 0 => {
                let ty = if *left % 2 == 0 { *key } else { *elem };
                *left -= 1;
                self.scan.step = Step::Value(ty);
                Ok(())
            }
            Frame::Elements { .. } | Frame::Entries { .. } => {
                self.scan.frames.pop();
                Ok(())
            }
            &mut Frame::Struct { place, next } => self.field(place, next),
            &mut Frame::Interface {
                end,
                length,
                change,
            } => {
                self.scan.frames.pop();
                self.scan.interfaces.pop();
                self.close(end, length, change)
            }
        }
    }

    fn field(&mut self, place: u32, after: usize) -> Result<(), DecodeError> {
        let delta = self.uint()?;
        if delta == 0 {
            self.scan.frames.pop();
            return Ok(());
        }
        let Some(DefKind::Struct { fields }) = self.table.get(place).map(|def| &def.kind) else {
            return Err(undefined(self.table, place));
        };
        let at = usize::try_from(delta - 1)
            .ok()
            .and_then(|d| after.checked_add(d));
        let Some((at, field)) = at.and_then(|at| Some((at, fields.get(at)?))) else {
            return Err(no_such_field(delta, after, fields.len()));
        };
        self.scan.step = Step::Value(field.ty);
        if let Some(Frame::Struct { next, .. }) = self.scan.frames.last_mut() {
            *next = at + 1;
        }
        Ok(())
    }

    /// Ends the value of an interface.
    fn close(
        &mut self,
        end: usize,
        length: (usize, usize),
        change: i64,
    ) -> Result<(), DecodeError> {
        let at = self.scan.at;
        if at != end {
            return Err(DecodeError::new(DecodeErrorKind::Trailing(
                end.saturating_sub(at) as u64,
                "the value of an interface",
            )));
        }
        if change == 0 {
            return Ok(());
        }
        let (from, to) = length;
        let new = ((at - to) as i64 + change).cast_unsigned();
        self.edit(Edit {
            from,
            to,
            length: Some(new),
        });
        // An interface's value that holds this one is now longer by as much.
        self.changed(change);
        Ok(())
    }

    fn edit(&mut self, edit: Edit) {
        let new = edit.length.map_or(0, uint_len);
        self.changed(new as i64 - (edit.to - edit.from) as i64);
        self.scan.edits.push(edit);
    }

    fn changed(&mut self, by: i64) {
        let innermost = self.scan.interfaces.last();
        if let Some(Frame::Interface { change, .. }) =
            innermost.and_then(|&at| self.scan.frames.get_mut(at))
        {
            *change += by;
        }
    }
}

fn part_end(cursor: &Cursor<'_>, declared: u64) -> Result<usize, DecodeError> {
    let left = cursor.left();
    match usize::try_from(declared) {
        Ok(length) if length <= left => Ok(cursor.at + length),
        _ => Err(DecodeError::new(DecodeErrorKind::Length {
            what: "an interface value",
            declared,
            possible: left as u64,
        })),
    }
}

/// The zero before a value that is no struct.
pub(crate) fn marker(value: u64) -> Result<(), DecodeError> {
    match value {
        0 => Ok(()),
        _ => Err(DecodeError::malformed(
            "a value that is no struct is not preceded by 0",
        )),
    }
}

/// Makes sure that everything a type is made of is defined.
pub(crate) fn settle(table: &mut Arc<Table>, ty: Ref) -> Result<Reach, DecodeError> {
    match table.known_reach(ty) {
        Reach::Unknown => {}
        known => return Ok(known),
    }
    let reach = Arc::make_mut(table).reach(ty);
    reach.map_err(|place| undefined(table, place))
}

fn undefined(table: &Table, place: u32) -> DecodeError {
    let id = table.id_of(place).map_or(-1, i64::from);
    DecodeError::new(DecodeErrorKind::Undefined(id))
}
