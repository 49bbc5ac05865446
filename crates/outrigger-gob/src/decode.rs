//! Reading values: [`Gob`], and the [`Reader`] and [`Checker`] it uses.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::encode::Encode;
use crate::error::{
    DecodeError, DecodeErrorKind, array_length, bad_uint, excerpt, no_such_field, out_of_range,
    unchecked,
};
use crate::hash::Quick;
use crate::limits::Limits;
use crate::number::{float_from_bits, get_uint, unzigzag};
use crate::types::{Builtin, DefKind, OpaqueKind, Ref, Table, Type};

/// A value that can be sent and received as gob.
///
/// `#[derive(Gob)]` implements it, and [`Encode`], for structs; the methods
/// are plumbing between that macro and this crate.
pub trait Gob: Encode + Sized + 'static {
    /// Whether values of the received type can be read as this type.
    #[doc(hidden)]
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError>;

    /// Reads a value of the received type, which was checked.
    #[doc(hidden)]
    fn decode(from: &mut Reader<'_>, received: Ref) -> Result<Self, DecodeError>;

    /// What a field is that was left out.
    #[doc(hidden)]
    fn zero() -> Self;

    /// As [`Gob::check`], for slices of this type.
    #[doc(hidden)]
    fn check_slice(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.slice::<Self>(received)
    }

    /// As [`Gob::decode`], for slices of this type.
    #[doc(hidden)]
    fn decode_slice(from: &mut Reader<'_>, received: Ref) -> Result<Vec<Self>, DecodeError> {
        from.slice(received)
    }
}

/// How a received type fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It can be read.
    Fits,
    /// Both are structs with fields, but have none in common. That is an
    /// error, except for structs within others.
    NoCommonField,
}

/// Which field of a Rust struct each received field is for.
pub(crate) struct Plan {
    fields: Vec<PlanField>,
    fit: Fit,
}

#[derive(Clone, Copy)]
struct PlanField {
    ty: Ref,
    /// [`UNKNOWN`] for a field to skip.
    own: u32,
}

const UNKNOWN: u32 = u32::MAX;

/// What the values of one stream share: its limits, and how its types fit the
/// Rust types that were asked for.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    plans: Mutex<HashMap<(TypeId, u32), Arc<Plan>, Quick>>,
}

impl Shared {
    pub(crate) fn new(limits: Limits) -> Shared {
        Shared {
            limits,
            plans: Mutex::default(),
        }
    }

    fn plan(&self, key: (TypeId, u32)) -> Option<Arc<Plan>> {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.get(&key).cloned()
    }

    fn keep(&self, key: (TypeId, u32), plan: Plan) -> Arc<Plan> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(plans.entry(key).or_insert_with(|| Arc::new(plan)))
    }
}

/// How the type of a field checks a received type.
pub type CheckFn = fn(&mut Checker<'_>, Ref) -> Result<Fit, DecodeError>;

/// Compares received types with Rust types.
pub struct Checker<'a> {
    table: &'a Arc<Table>,
    shared: &'a Shared,
    /// Assumed to fit while they are being checked.
    running: HashSet<(TypeId, u32), Quick>,
    depth: usize,
    /// The plan found last.
    found: Option<Known>,
}

/// A plan with what it is for.
type Known = ((TypeId, u32), Arc<Plan>);

impl<'a> Checker<'a> {
    pub(crate) fn new(table: &'a Arc<Table>, shared: &'a Shared) -> Checker<'a> {
        Checker {
            table,
            shared,
            running: HashSet::default(),
            depth: 0,
            found: None,
        }
    }

    fn mismatch(&self, expected: impl Into<String>, received: Ref) -> DecodeError {
        let found = excerpt_type(&Type::new(self.table, received));
        DecodeError::mismatch(expected, found)
    }

    /// A type without a definition.
    pub fn builtin(&mut self, expected: Builtin, received: Ref) -> Result<Fit, DecodeError> {
        if received.is_wire(expected) {
            Ok(Fit::Fits)
        } else {
            Err(self.mismatch(expected.go_name(), received))
        }
    }

    /// `[]T`.
    pub fn slice<T: Gob>(&mut self, received: Ref) -> Result<Fit, DecodeError> {
        match self.kind(received) {
            Some(&DefKind::Slice { elem }) => self.deeper(|types| T::check(types, elem)),
            _ => Err(self.mismatch("a slice", received)),
        }
        .map(|_| Fit::Fits)
    }

    /// `[N]T`.
    pub fn array<T: Gob, const N: usize>(&mut self, received: Ref) -> Result<Fit, DecodeError> {
        match self.kind(received) {
            Some(&DefKind::Array { elem, len }) if len == N as u64 => {
                self.deeper(|types| T::check(types, elem))
            }
            _ => Err(self.mismatch(format!("an array of {N}"), received)),
        }
        .map(|_| Fit::Fits)
    }

    /// `map[K]V`.
    pub fn map<K: Gob, V: Gob>(&mut self, received: Ref) -> Result<Fit, DecodeError> {
        match self.kind(received) {
            Some(&DefKind::Map { key, elem }) => self.deeper(|types| {
                K::check(types, key)?;
                V::check(types, elem)
            }),
            _ => Err(self.mismatch("a map", received)),
        }
        .map(|_| Fit::Fits)
    }

    /// A type that decodes itself.
    pub fn opaque(
        &mut self,
        name: &'static str,
        kind: OpaqueKind,
        received: Ref,
    ) -> Result<Fit, DecodeError> {
        match self.kind(received) {
            Some(&DefKind::Opaque(own)) if own == kind => Ok(Fit::Fits),
            _ => Err(self.mismatch(name, received)),
        }
    }

    /// A struct with these fields.
    pub fn structure(
        &mut self,
        identity: TypeId,
        name: &'static str,
        fields: &[(&'static str, CheckFn)],
        received: Ref,
    ) -> Result<Fit, DecodeError> {
        let Ref::Defined(place) = received else {
            return Err(self.mismatch(struct_name(name), received));
        };
        let key = (identity, place);
        if self.running.contains(&key) {
            return Ok(Fit::Fits);
        }
        if let Some(plan) = self.shared.plan(key) {
            let fit = plan.fit;
            self.found = Some((key, plan));
            return Ok(fit);
        }
        let table = Arc::clone(self.table);
        let Some(DefKind::Struct { fields: sent }) = table.get(place).map(|def| &def.kind) else {
            return Err(self.mismatch(struct_name(name), received));
        };
        self.running.insert(key);
        let mut plan = Vec::with_capacity(sent.len());
        let mut common = false;
        for field in sent {
            let own = fields.iter().position(|(own, _)| **own == *field.name);
            if let Some((own_name, check)) = own.and_then(|at| fields.get(at)) {
                common = true;
                self.deeper(|types| check(types, field.ty))
                    .map_err(|error| error.within(name, *own_name))?;
            }
            plan.push(PlanField {
                ty: field.ty,
                own: own.map_or(UNKNOWN, |at| at as u32),
            });
        }
        self.running.remove(&key);
        let fit = if common || sent.is_empty() || fields.is_empty() {
            Fit::Fits
        } else {
            Fit::NoCommonField
        };
        let plan = self.shared.keep(key, Plan { fields: plan, fit });
        self.found = Some((key, plan));
        Ok(fit)
    }

    fn kind(&self, received: Ref) -> Option<&'a DefKind> {
        self.table.def(received).map(|def| &def.kind)
    }

    fn deeper<T>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        self.depth += 1;
        check_depth(self.depth, self.shared.limits.depth)?;
        let result = body(self);
        self.depth -= 1;
        result
    }
}

fn struct_name(name: &'static str) -> String {
    match name {
        "" => "a struct".into(),
        name => format!("struct {name}"),
    }
}

/// A received type in a message: named if it has a name.
pub(crate) fn excerpt_type(ty: &Type) -> String {
    match (ty.def().map(|def| &def.kind), ty.name()) {
        (Some(DefKind::Struct { .. }), name) if !name.is_empty() => {
            format!("struct {}", excerpt(name.as_bytes()))
        }
        (Some(DefKind::Opaque(_)), name) => {
            format!("{}, which encodes itself", excerpt(name.as_bytes()))
        }
        _ => {
            let mut text = ty.to_string();
            if text.len() > LONGEST_TYPE {
                let mut cut = LONGEST_TYPE;
                while !text.is_char_boundary(cut) {
                    cut -= 1;
                }
                text.truncate(cut);
                text.push('…');
            }
            text
        }
    }
}

/// How many bytes of a type a message shows.
const LONGEST_TYPE: usize = 240;

fn check_depth(depth: usize, limit: usize) -> Result<(), DecodeError> {
    if depth > limit {
        return Err(DecodeError::new(DecodeErrorKind::Limit {
            what: "a nesting",
            found: depth as u64,
            limit: limit as u64,
            setting: "depth",
        }));
    }
    Ok(())
}

/// Byte strings shorter than this are copied out of the message, so that a
/// few bytes that are kept do not keep a large buffer.
const SHARE_FROM: usize = 1024;

/// How many bytes are allocated at once for elements that were announced and
/// not yet seen.
const FIRST_ALLOCATION: usize = 64 * 1024;

/// Where [`Gob::decode`] reads from: the bytes of one value, without
/// definitions in between.
pub struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    table: &'a Arc<Table>,
    shared: &'a Arc<Shared>,
    /// How many bytes of memory the value may still take.
    memory: usize,
    depth: usize,
    /// The plans used last, and where the next one goes.
    recent: [Option<Known>; RECENT],
    oldest: usize,
}

/// How many plans a reader finds without a lock.
const RECENT: usize = 4;

impl<'a> Reader<'a> {
    pub(crate) fn new(
        bytes: &'a Bytes,
        table: &'a Arc<Table>,
        shared: &'a Arc<Shared>,
    ) -> Reader<'a> {
        Reader {
            bytes,
            at: 0,
            table,
            shared,
            memory: shared.limits.memory,
            depth: 0,
            recent: [const { None }; RECENT],
            oldest: 0,
        }
    }

    pub(crate) fn check<T: Gob>(&mut self, received: Ref) -> Result<Fit, DecodeError> {
        let mut checker = Checker::new(self.table, self.shared);
        let fit = T::check(&mut checker, received)?;
        if let Some(found) = checker.found {
            self.remember(found);
        }
        Ok(fit)
    }

    fn remember(&mut self, known: Known) {
        if let Some(slot) = self.recent.get_mut(self.oldest) {
            *slot = Some(known);
        }
        self.oldest = (self.oldest + 1) % RECENT;
    }

    pub(crate) fn table(&self) -> &'a Arc<Table> {
        self.table
    }

    pub(crate) fn shared(&self) -> &'a Arc<Shared> {
        self.shared
    }

    pub(crate) fn offset(&self) -> u64 {
        self.at as u64
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// How many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Reads an unsigned integer.
    #[inline]
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_uint(),
        }
    }

    fn long_uint(&mut self) -> Result<u64, DecodeError> {
        let (value, length) =
            get_uint(self.rest()).map_err(|bad| bad_uint(bad).at(self.offset()))?;
        self.at += length;
        Ok(value)
    }

    /// Reads a signed integer.
    #[inline]
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        self.uint().map(unzigzag)
    }

    /// Reads a float.
    pub fn float(&mut self) -> Result<f64, DecodeError> {
        self.uint().map(float_from_bits)
    }

    /// Reads an unsigned integer that must fit.
    pub fn narrow_uint<T: TryFrom<u64>>(&mut self, expected: Builtin) -> Result<T, DecodeError> {
        let offset = self.offset();
        let value = self.uint()?;
        T::try_from(value).map_err(|_| out_of_range(expected, value).at(offset))
    }

    /// Reads a signed integer that must fit.
    pub fn narrow_int<T: TryFrom<i64>>(&mut self, expected: Builtin) -> Result<T, DecodeError> {
        let offset = self.offset();
        let value = self.int()?;
        T::try_from(value).map_err(|_| out_of_range(expected, value).at(offset))
    }

    /// Reads a length, of which so many bytes must follow, and takes them.
    pub(crate) fn slice_of(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let offset = self.offset();
        let declared = self.uint()?;
        let rest = self.rest();
        let taken = usize::try_from(declared).ok().and_then(|n| rest.get(..n));
        let taken = taken.ok_or_else(|| {
            DecodeError::new(DecodeErrorKind::Length {
                what,
                declared,
                possible: rest.len() as u64,
            })
            .at(offset)
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    /// As [`Reader::slice_of`], sharing the memory of the message if it is
    /// worth it.
    pub(crate) fn bytes(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let taken = self.slice_of(what)?;
        if taken.len() < SHARE_FROM {
            self.charge(taken.len())?;
            return Ok(Bytes::copy_from_slice(taken));
        }
        Ok(self.share(taken.len()))
    }

    /// The `length` bytes that were just taken, in the memory of the message.
    fn share(&self, length: usize) -> Bytes {
        self.bytes.slice(self.at - length..self.at)
    }

    /// Reads a length and that many bytes.
    pub(crate) fn vec(&mut self, what: &'static str) -> Result<Vec<u8>, DecodeError> {
        let taken = self.slice_of(what)?;
        self.charge(taken.len())?;
        Ok(taken.to_vec())
    }

    /// Reads a string that must be UTF-8.
    pub(crate) fn string(&mut self) -> Result<String, DecodeError> {
        let offset = self.offset();
        let taken = self.slice_of("a string")?;
        let text = std::str::from_utf8(taken)
            .map_err(|_| DecodeError::new(DecodeErrorKind::NotUtf8(excerpt(taken))).at(offset))?;
        self.charge(text.len())?;
        Ok(text.to_owned())
    }

    /// Accounts for memory that the value takes.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        match self.memory.checked_sub(bytes) {
            Some(left) => {
                self.memory = left;
                Ok(())
            }
            None => Err(self.too_much_memory(bytes)),
        }
    }

    #[cold]
    fn too_much_memory(&self, bytes: usize) -> DecodeError {
        let limit = self.shared.limits.memory;
        DecodeError::new(DecodeErrorKind::Limit {
            what: "memory for a value",
            found: (limit - self.memory).saturating_add(bytes) as u64,
            limit: limit as u64,
            setting: "memory",
        })
        .at(self.offset())
    }

    /// Reads the number of elements, which takes `size` bytes of memory each;
    /// on the wire each takes one at least. Returns how many to make room for
    /// at first too.
    pub(crate) fn count(
        &mut self,
        size: usize,
        least: usize,
    ) -> Result<(usize, usize), DecodeError> {
        let offset = self.offset();
        let declared = self.uint()?;
        let possible = self.remaining() / least;
        let count = usize::try_from(declared).ok().filter(|&n| n <= possible);
        let count = count.ok_or_else(|| {
            DecodeError::new(DecodeErrorKind::Length {
                what: "a count",
                declared,
                possible: possible as u64,
            })
            .at(offset)
        })?;
        self.charge(count.saturating_mul(size))?;
        let at_once = FIRST_ALLOCATION.checked_div(size).unwrap_or(count);
        Ok((count, count.min(at_once)))
    }

    /// Reads the elements of a slice.
    pub fn slice<T: Gob>(&mut self, received: Ref) -> Result<Vec<T>, DecodeError> {
        let elem = match self.table.def(received).map(|def| &def.kind) {
            Some(&DefKind::Slice { elem }) => elem,
            _ => return Err(unchecked()),
        };
        let (count, room) = self.count(size_of::<T>(), 1)?;
        self.deeper(|from| {
            let mut items = Vec::with_capacity(room);
            for index in 0..count {
                items.push(T::decode(from, elem).map_err(|error| error.at_index(index))?);
            }
            Ok(items)
        })
    }

    /// Reads the elements of an array into `items`.
    pub(crate) fn array<T: Gob, const N: usize>(
        &mut self,
        received: Ref,
    ) -> Result<[T; N], DecodeError> {
        let elem = match self.table.def(received).map(|def| &def.kind) {
            Some(&DefKind::Array { elem, .. }) => elem,
            _ => return Err(unchecked()),
        };
        let offset = self.offset();
        let (count, room) = self.count(size_of::<T>(), 1)?;
        if count != N {
            return Err(array_length(count as u64, N as u64).at(offset));
        }
        let items = self.deeper(|from| {
            let mut items = Vec::with_capacity(room);
            for index in 0..count {
                items.push(T::decode(from, elem).map_err(|error| error.at_index(index))?);
            }
            Ok(items)
        })?;
        <[T; N]>::try_from(items).map_err(|_| unchecked())
    }

    /// Reads the entries of a map; `size` is the memory that each takes.
    pub(crate) fn entries<K: Gob, V: Gob>(
        &mut self,
        received: Ref,
        size: usize,
        mut insert: impl FnMut(K, V),
    ) -> Result<(), DecodeError> {
        let (key, elem) = match self.table.def(received).map(|def| &def.kind) {
            Some(&DefKind::Map { key, elem }) => (key, elem),
            _ => return Err(unchecked()),
        };
        let (count, _) = self.count(size, 2)?;
        self.deeper(|from| {
            for _ in 0..count {
                let k = K::decode(from, key).map_err(DecodeError::at_key)?;
                let v = V::decode(from, elem).map_err(DecodeError::at_element)?;
                insert(k, v);
            }
            Ok(())
        })
    }

    /// Reads a struct: calls `field` with the place of each of our fields that
    /// was received, and the type it was received as.
    pub fn structure<T: Gob>(
        &mut self,
        received: Ref,
        mut field: impl FnMut(&mut Reader<'_>, u32, Ref) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let plan = self.plan::<T>(received)?;
        self.deeper(|from| {
            let mut next = 0;
            while let Some(at) = from.next_field(next, plan.fields.len())? {
                next = at + 1;
                match plan.fields.get(at) {
                    Some(&PlanField { ty, own: UNKNOWN }) => from.skip(ty)?,
                    Some(&PlanField { ty, own }) => field(from, own, ty)?,
                    None => return Err(unchecked()),
                }
            }
            Ok(())
        })
    }

    /// The number of the field that follows, or `None` at the end of the
    /// struct; `next` is the one after the field before.
    #[inline]
    pub(crate) fn next_field(
        &mut self,
        next: usize,
        fields: usize,
    ) -> Result<Option<usize>, DecodeError> {
        let offset = self.offset();
        let delta = self.uint()?;
        if delta == 0 {
            return Ok(None);
        }
        let at = usize::try_from(delta - 1)
            .ok()
            .and_then(|d| next.checked_add(d));
        match at.filter(|&at| at < fields) {
            Some(at) => Ok(Some(at)),
            None => Err(no_such_field(delta, next, fields).at(offset)),
        }
    }

    fn plan<T: Gob>(&mut self, received: Ref) -> Result<Arc<Plan>, DecodeError> {
        let Ref::Defined(place) = received else {
            return Err(unchecked());
        };
        let key = (T::identity(), place);
        let mut recent = self.recent.iter().flatten();
        if let Some((_, plan)) = recent.find(|(own, _)| *own == key) {
            return Ok(Arc::clone(plan));
        }
        let plan = match self.shared.plan(key) {
            Some(plan) => plan,
            None => {
                self.check::<T>(received)?;
                self.shared.plan(key).ok_or_else(unchecked)?
            }
        };
        self.remember((key, Arc::clone(&plan)));
        Ok(plan)
    }

    /// Passes over a value that nobody wants.
    pub(crate) fn skip(&mut self, received: Ref) -> Result<(), DecodeError> {
        let place = match received {
            Ref::Builtin(builtin) => return self.skip_builtin(builtin),
            Ref::Defined(place) => place,
        };
        let table = self.table;
        let def = table.get(place).ok_or_else(unchecked)?;
        match &def.kind {
            DefKind::Array { elem, .. } | DefKind::Slice { elem } => {
                let (count, _) = self.count(0, 1)?;
                self.deeper(|from| (0..count).try_for_each(|_| from.skip(*elem)))
            }
            DefKind::Map { key, elem } => {
                let (count, _) = self.count(0, 2)?;
                self.deeper(|from| {
                    (0..count).try_for_each(|_| {
                        from.skip(*key)?;
                        from.skip(*elem)
                    })
                })
            }
            DefKind::Struct { fields } => self.deeper(|from| {
                let mut next = 0;
                while let Some(at) = from.next_field(next, fields.len())? {
                    next = at + 1;
                    from.skip(fields.get(at).ok_or_else(unchecked)?.ty)?;
                }
                Ok(())
            }),
            DefKind::Opaque(_) => self.slice_of("an encoded value").map(|_| ()),
        }
    }

    fn skip_builtin(&mut self, builtin: Builtin) -> Result<(), DecodeError> {
        match builtin {
            Builtin::Bytes | Builtin::String => self.slice_of("a string").map(|_| ()),
            Builtin::Complex64 | Builtin::Complex128 => {
                self.uint()?;
                self.uint().map(|_| ())
            }
            Builtin::Interface => {
                if !self.slice_of("a type name")?.is_empty() {
                    self.int()?;
                    self.slice_of("an interface value")?;
                }
                Ok(())
            }
            Builtin::Bool
            | Builtin::Int(_)
            | Builtin::Uint(_)
            | Builtin::Uintptr
            | Builtin::Float32
            | Builtin::Float64 => self.uint().map(|_| ()),
        }
    }

    /// Runs `body` one level down.
    #[inline]
    pub(crate) fn deeper<T>(
        &mut self,
        body: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        self.depth += 1;
        check_depth(self.depth, self.shared.limits.depth)?;
        let result = body(self);
        self.depth -= 1;
        result
    }

    /// Nothing may follow the value.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() as u64 {
            0 => Ok(()),
            more => Err(
                DecodeError::new(DecodeErrorKind::Trailing(more, "its message")).at(self.offset()),
            ),
        }
    }
}
