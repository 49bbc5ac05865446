//! From Rust types to their descriptions, once per process.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{EncodeError, EncodeErrorKind};
use crate::hash::Quick;
use crate::types::{Builtin, Def, DefKind, Field, Name, OpaqueKind, Ref, Table, Type, fresh_key};

/// A description being put together.
///
/// Only implementations of [`Encode`](crate::Encode) need it, and those come from
/// `#[derive(Gob)]`.
#[derive(Default)]
pub struct Describe {
    table: Table,
    places: HashMap<TypeId, u32, Quick>,
    unsupported: Option<&'static str>,
}

/// How the type of a field describes itself.
pub type DescribeFn = fn(&mut Describe) -> Ref;

impl Describe {
    /// A struct. `printed` is its name in Go, with or without package.
    pub fn structure(
        &mut self,
        identity: TypeId,
        printed: &str,
        fields: &[(&'static str, DescribeFn)],
    ) -> Ref {
        self.define(identity, Name::declared(printed), |types| DefKind::Struct {
            fields: fields
                .iter()
                .map(|&(name, describe)| Field {
                    name: name.into(),
                    ty: describe(types),
                })
                .collect(),
        })
    }

    /// A type that encodes itself.
    pub fn opaque(&mut self, identity: TypeId, printed: &str, kind: OpaqueKind) -> Ref {
        self.define(identity, Name::declared(printed), |_| DefKind::Opaque(kind))
    }

    /// A type that is only known with a value.
    pub fn unsupported(&mut self, name: &'static str) -> Ref {
        self.unsupported.get_or_insert(name);
        Ref::Builtin(Builtin::Interface)
    }

    pub(crate) fn define(
        &mut self,
        identity: TypeId,
        name: Name,
        kind: impl FnOnce(&mut Describe) -> DefKind,
    ) -> Ref {
        if let Some(&place) = self.places.get(&identity) {
            return Ref::Defined(place);
        }
        let place = self.table.reserve();
        self.places.insert(identity, place);
        let kind = kind(self);
        let key = key_of(identity);
        self.table.fill(place, Def { key, name, kind });
        Ref::Defined(place)
    }
}

/// Everything ever described: one entry per Rust type that is sent.
#[derive(Default)]
struct Known {
    keys: HashMap<TypeId, u64, Quick>,
    types: HashMap<TypeId, Type, Quick>,
}

static KNOWN: RwLock<Option<Known>> = RwLock::new(None);

/// One key for one Rust type, in whatever description it occurs.
fn key_of(identity: TypeId) -> u64 {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    let keys = &mut known.get_or_insert_default().keys;
    *keys.entry(identity).or_insert_with(fresh_key)
}

/// The description of a Rust type, which is made once.
pub(crate) fn type_of(identity: TypeId, description: DescribeFn) -> Result<Type, EncodeError> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(ty) = known.as_ref().and_then(|known| known.types.get(&identity)) {
        return Ok(ty.clone());
    }
    drop(known);
    let mut describe = Describe::default();
    let at = description(&mut describe);
    if let Some(name) = describe.unsupported {
        return Err(EncodeError::new(EncodeErrorKind::NoStaticType(name)));
    }
    let ty = Type::new(&Arc::new(describe.table), at);
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    let types = &mut known.get_or_insert_default().types;
    Ok(types.entry(identity).or_insert(ty).clone())
}
