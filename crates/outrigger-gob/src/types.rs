//! Descriptions of types, as they are kept: a table of definitions that refer
//! to each other by place, so that cycles cost and leak nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hash::Quick;

/// The types every stream knows without a definition. Go has several widths
/// of each number; on the wire they are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// `bool`.
    Bool,
    /// A signed integer of this width.
    Int(Width),
    /// An unsigned integer of this width.
    Uint(Width),
    /// `uintptr`.
    Uintptr,
    /// `float32`.
    Float32,
    /// `float64`.
    Float64,
    /// `complex64`.
    Complex64,
    /// `complex128`.
    Complex128,
    /// `[]byte`.
    Bytes,
    /// `string`.
    String,
    /// `interface {}`.
    Interface,
}

/// The width of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// That of the machine: `int`, `uint`.
    Machine,
    /// 8 bits.
    W8,
    /// 16 bits.
    W16,
    /// 32 bits.
    W32,
    /// 64 bits.
    W64,
}

impl Width {
    /// The number of bits; machine words have 64.
    pub fn bits(self) -> u32 {
        match self {
            Width::W8 => 8,
            Width::W16 => 16,
            Width::W32 => 32,
            Width::W64 | Width::Machine => 64,
        }
    }
}

impl Builtin {
    /// The types that Go names with a word, in Go's order, aliases last.
    pub const NAMED: [(&'static str, Builtin); 20] = [
        ("bool", Builtin::Bool),
        ("int", Builtin::Int(Width::Machine)),
        ("int8", Builtin::Int(Width::W8)),
        ("int16", Builtin::Int(Width::W16)),
        ("int32", Builtin::Int(Width::W32)),
        ("int64", Builtin::Int(Width::W64)),
        ("uint", Builtin::Uint(Width::Machine)),
        ("uint8", Builtin::Uint(Width::W8)),
        ("uint16", Builtin::Uint(Width::W16)),
        ("uint32", Builtin::Uint(Width::W32)),
        ("uint64", Builtin::Uint(Width::W64)),
        ("uintptr", Builtin::Uintptr),
        ("float32", Builtin::Float32),
        ("float64", Builtin::Float64),
        ("complex64", Builtin::Complex64),
        ("complex128", Builtin::Complex128),
        ("string", Builtin::String),
        ("any", Builtin::Interface),
        ("byte", Builtin::Uint(Width::W8)),
        ("rune", Builtin::Int(Width::W32)),
    ];

    /// The id that stands for this type on every stream.
    pub(crate) fn wire_id(self) -> i32 {
        match self {
            Builtin::Bool => 1,
            Builtin::Int(_) => 2,
            Builtin::Uint(_) | Builtin::Uintptr => 3,
            Builtin::Float32 | Builtin::Float64 => 4,
            Builtin::Bytes => 5,
            Builtin::String => 6,
            Builtin::Complex64 | Builtin::Complex128 => 7,
            Builtin::Interface => 8,
        }
    }

    pub(crate) fn from_wire_id(id: i64) -> Option<Builtin> {
        Some(match id {
            1 => Builtin::Bool,
            2 => Builtin::Int(Width::Machine),
            3 => Builtin::Uint(Width::Machine),
            4 => Builtin::Float64,
            5 => Builtin::Bytes,
            6 => Builtin::String,
            7 => Builtin::Complex128,
            8 => Builtin::Interface,
            _ => return None,
        })
    }

    /// Its name in Go.
    pub fn go_name(self) -> &'static str {
        match self {
            Builtin::Bool => "bool",
            Builtin::Int(Width::Machine) => "int",
            Builtin::Int(Width::W8) => "int8",
            Builtin::Int(Width::W16) => "int16",
            Builtin::Int(Width::W32) => "int32",
            Builtin::Int(Width::W64) => "int64",
            Builtin::Uint(Width::Machine) => "uint",
            Builtin::Uint(Width::W8) => "uint8",
            Builtin::Uint(Width::W16) => "uint16",
            Builtin::Uint(Width::W32) => "uint32",
            Builtin::Uint(Width::W64) => "uint64",
            Builtin::Uintptr => "uintptr",
            Builtin::Float32 => "float32",
            Builtin::Float64 => "float64",
            Builtin::Complex64 => "complex64",
            Builtin::Complex128 => "complex128",
            Builtin::Bytes => "[]uint8",
            Builtin::String => "string",
            Builtin::Interface => "interface {}",
        }
    }
}

/// The first id that a stream may define.
pub(crate) const FIRST_USER_ID: i64 = 64;

/// A type within one table: known to every stream, or the definition at a
/// place of that table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ref {
    /// Known without a definition.
    Builtin(Builtin),
    /// The definition at this place of the table.
    Defined(u32),
}

impl Ref {
    /// Whether a value of this type is the same thing on the wire.
    pub(crate) fn is_wire(self, builtin: Builtin) -> bool {
        matches!(self, Ref::Builtin(own) if own.wire_id() == builtin.wire_id())
    }
}

/// What a type is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// It has none, such as `[]string`; what a definition calls it depends on
    /// where it is met first.
    None,
    /// A named type: its own name, and how Go prints it with its package.
    Declared { own: Arc<str>, printed: Arc<str> },
    /// What a definition on a stream said, repeated as it is.
    Wire(Arc<str>),
}

/// How a type that encodes itself does so in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpaqueKind {
    /// `gob.GobEncoder`.
    GobEncoder,
    /// `encoding.BinaryMarshaler`.
    BinaryMarshaler,
    /// `encoding.TextMarshaler`; Go knows the kind but does not send it.
    TextMarshaler,
}

#[derive(Clone, Debug)]
pub(crate) enum DefKind {
    Array { elem: Ref, len: u64 },
    Slice { elem: Ref },
    Map { key: Ref, elem: Ref },
    Struct { fields: Vec<Field> },
    Opaque(OpaqueKind),
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: Arc<str>,
    pub(crate) ty: Ref,
}

/// One definition.
#[derive(Clone, Debug)]
pub(crate) struct Def {
    /// Two definitions with one key describe one type, whatever table they
    /// are in.
    pub(crate) key: u64,
    pub(crate) name: Name,
    pub(crate) kind: DefKind,
}

impl Def {
    /// Calls `visit` with each type this one is made of, in Go's order.
    pub(crate) fn parts(&self, mut visit: impl FnMut(Ref)) {
        match &self.kind {
            DefKind::Array { elem, .. } | DefKind::Slice { elem } => visit(*elem),
            DefKind::Map { key, elem } => {
                visit(*key);
                visit(*elem);
            }
            DefKind::Struct { fields } => fields.iter().for_each(|field| visit(field.ty)),
            DefKind::Opaque(_) => {}
        }
    }
}

/// A key no other type has.
pub(crate) fn fresh_key() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Whether values of a type can hold interfaces, once all it is made of is
/// known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Not looked at yet.
    Unknown,
    /// No interface in it.
    Plain,
    /// Interfaces somewhere in it.
    Interfaces,
}

/// Definitions by place, and, for those of a stream, the places by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    defs: Vec<Option<Arc<Def>>>,
    reach: Vec<Reach>,
    /// Ordered, because the peer chooses the ids and could make them collide.
    places: BTreeMap<i32, u32>,
}

impl Table {
    /// The definition at `place`; `None` if only its place was taken so far.
    pub(crate) fn get(&self, place: u32) -> Option<&Arc<Def>> {
        self.defs.get(place as usize)?.as_ref()
    }

    pub(crate) fn def(&self, ty: Ref) -> Option<&Arc<Def>> {
        match ty {
            Ref::Builtin(_) => None,
            Ref::Defined(place) => self.get(place),
        }
    }

    /// How many places are taken.
    pub(crate) fn len(&self) -> usize {
        self.defs.len()
    }

    /// Takes a place for a definition that follows.
    pub(crate) fn reserve(&mut self) -> u32 {
        self.defs.push(None);
        self.reach.push(Reach::Unknown);
        (self.defs.len() - 1) as u32
    }

    pub(crate) fn fill(&mut self, place: u32, def: Def) {
        if let Some(slot) = self.defs.get_mut(place as usize) {
            *slot = Some(Arc::new(def));
        }
    }

    pub(crate) fn push(&mut self, def: Def) -> Ref {
        let place = self.reserve();
        self.fill(place, def);
        Ref::Defined(place)
    }

    /// The type with this id on the stream, known or to be defined; `None` if
    /// no stream may define it.
    pub(crate) fn place_of(&mut self, id: i64) -> Option<Ref> {
        if let Some(builtin) = Builtin::from_wire_id(id) {
            return Some(Ref::Builtin(builtin));
        }
        if id < FIRST_USER_ID {
            return None;
        }
        let id = i32::try_from(id).ok()?;
        if let Some(&place) = self.places.get(&id) {
            return Some(Ref::Defined(place));
        }
        let place = self.reserve();
        self.places.insert(id, place);
        Some(Ref::Defined(place))
    }

    /// The type with this id on the stream, if it is known.
    pub(crate) fn by_id(&self, id: i64) -> Option<Ref> {
        if let Some(builtin) = Builtin::from_wire_id(id) {
            return Some(Ref::Builtin(builtin));
        }
        let place = *self.places.get(&i32::try_from(id).ok()?)?;
        self.get(place).map(|_| Ref::Defined(place))
    }

    /// Says which type the one with this id is.
    pub(crate) fn identify(&mut self, id: i32, key: u64, name: &Name) {
        let place = self.places.get(&id).map(|&place| place as usize);
        let slot = place.and_then(|place| self.defs.get_mut(place));
        if let Some(def) = slot.and_then(Option::as_mut) {
            let def = Arc::make_mut(def);
            def.key = key;
            def.name = name.clone();
        }
    }

    /// Keys and ids.
    #[cfg(test)]
    pub(crate) fn ids(&self) -> impl Iterator<Item = (u64, i32)> {
        let places = self.places.iter();
        places.filter_map(|(&id, &place)| Some((self.get(place)?.key, id)))
    }

    /// The id of a place, for messages.
    pub(crate) fn id_of(&self, place: u32) -> Option<i32> {
        let mut all = self.places.iter();
        all.find(|&(_, own)| *own == place).map(|(&id, _)| id)
    }

    /// Whether values of `ty` can hold interfaces. Looks at each definition
    /// once in the life of a table.
    ///
    /// # Errors
    ///
    /// The place of a type that is used and not defined.
    pub(crate) fn reach(&mut self, ty: Ref) -> Result<Reach, u32> {
        let root = match ty {
            Ref::Builtin(Builtin::Interface) => return Ok(Reach::Interfaces),
            Ref::Builtin(_) => return Ok(Reach::Plain),
            Ref::Defined(place) => place,
        };
        match self.reach.get(root as usize) {
            None | Some(Reach::Unknown) => self.explore(root)?,
            Some(_) => {}
        }
        Ok(self.known_reach(ty))
    }

    /// What an earlier [`Table::reach`] found.
    pub(crate) fn known_reach(&self, ty: Ref) -> Reach {
        match ty {
            Ref::Builtin(Builtin::Interface) => Reach::Interfaces,
            Ref::Builtin(_) => Reach::Plain,
            Ref::Defined(place) => self
                .reach
                .get(place as usize)
                .copied()
                .unwrap_or(Reach::Unknown),
        }
    }

    fn explore(&mut self, root: u32) -> Result<(), u32> {
        // Everything below `root` that is not settled, with who uses it.
        let mut users: HashMap<u32, Vec<u32>, Quick> = HashMap::default();
        users.insert(root, Vec::new());
        let mut queue = vec![root];
        let mut holding = Vec::new();
        while let Some(place) = queue.pop() {
            let def = Arc::clone(self.get(place).ok_or(place)?);
            let mut holds = false;
            def.parts(|part| match self.known_reach(part) {
                Reach::Interfaces => holds = true,
                Reach::Plain => {}
                Reach::Unknown => {
                    let Ref::Defined(part) = part else { return };
                    users.entry(part).or_insert_with(|| {
                        queue.push(part);
                        Vec::new()
                    });
                    if let Some(list) = users.get_mut(&part) {
                        list.push(place);
                    }
                }
            });
            if holds {
                holding.push(place);
            }
        }
        for &place in users.keys() {
            self.reach[place as usize] = Reach::Plain;
        }
        while let Some(place) = holding.pop() {
            let slot = &mut self.reach[place as usize];
            if *slot != Reach::Interfaces {
                *slot = Reach::Interfaces;
                if let Some(list) = users.get(&place) {
                    holding.extend(list);
                }
            }
        }
        Ok(())
    }
}

/// The description of a type.
///
/// It prints as Go writes the type, and such a text can be parsed:
///
/// ```
/// use outrigger_gob::{Kind, Type};
///
/// let ty: Type = "map[string]any".parse()?;
/// assert_eq!(ty.to_string(), "map[string]interface {}");
/// assert!(matches!(ty.kind(), Kind::Map { .. }));
/// # Ok::<(), outrigger_gob::TypeError>(())
/// ```
///
/// Pointers do not exist in gob: `*T` is `T`. Cloning is cheap.
#[derive(Clone)]
pub struct Type {
    pub(crate) table: Option<Arc<Table>>,
    pub(crate) at: Ref,
}

/// What a [`Type`] is, with the types it is made of.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A type that needs no definition.
    Builtin(Builtin),
    /// `[len]elem`.
    Array {
        /// How many elements there are, always.
        len: u64,
        /// The type of each.
        elem: Type,
    },
    /// `[]elem`, except `[]byte`.
    Slice {
        /// The type of each element.
        elem: Type,
    },
    /// `map[key]elem`.
    Map {
        /// The type of the keys.
        key: Type,
        /// The type of the values.
        elem: Type,
    },
    /// A struct, with its fields in order.
    Struct {
        /// Go's names of the fields, and their types.
        fields: Vec<(Arc<str>, Type)>,
    },
    /// A type that encodes itself.
    Opaque(OpaqueKind),
}

impl Type {
    /// A type that needs no definition.
    pub fn builtin(builtin: Builtin) -> Type {
        Type {
            table: None,
            at: Ref::Builtin(builtin),
        }
    }

    /// `[]elem`; bytes if `elem` is `uint8`.
    pub fn slice(elem: &Type) -> Type {
        if elem.at == Ref::Builtin(Builtin::Uint(Width::W8)) {
            return Type::builtin(Builtin::Bytes);
        }
        Type::compose(Name::None, |table| DefKind::Slice {
            elem: table.import(elem),
        })
    }

    /// `[len]elem`.
    pub fn array(len: u64, elem: &Type) -> Type {
        Type::compose(Name::None, |table| DefKind::Array {
            elem: table.import(elem),
            len,
        })
    }

    /// `map[key]elem`.
    pub fn map(key: &Type, elem: &Type) -> Type {
        Type::compose(Name::None, |table| DefKind::Map {
            key: table.import(key),
            elem: table.import(elem),
        })
    }

    /// A struct with these fields. `name` is what Go calls it, with or
    /// without its package; empty if nothing.
    pub fn structure<'a>(
        name: &str,
        fields: impl IntoIterator<Item = (&'a str, &'a Type)>,
    ) -> Type {
        Type::compose(Name::declared(name), |table| DefKind::Struct {
            fields: fields
                .into_iter()
                .map(|(name, ty)| Field {
                    name: name.into(),
                    ty: table.import(ty),
                })
                .collect(),
        })
    }

    /// A type that encodes itself, such as [`Type::time`].
    pub fn opaque(name: &str, kind: OpaqueKind) -> Type {
        Type::compose(Name::declared(name), |_| DefKind::Opaque(kind))
    }

    /// Whether this is Go's `time.Time`, or at least called so.
    pub fn is_time(&self) -> bool {
        self.def().is_some_and(|def| {
            matches!(def.kind, DefKind::Opaque(OpaqueKind::GobEncoder)) && def.name.own() == "Time"
        })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        let def = match self.at {
            Ref::Builtin(builtin) => return Kind::Builtin(builtin),
            Ref::Defined(_) => self.def(),
        };
        let Some(def) = def else {
            // Types are made with all they refer to.
            return Kind::Builtin(Builtin::Interface);
        };
        match &def.kind {
            DefKind::Array { elem, len } => Kind::Array {
                len: *len,
                elem: self.part(*elem),
            },
            DefKind::Slice { elem } => Kind::Slice {
                elem: self.part(*elem),
            },
            DefKind::Map { key, elem } => Kind::Map {
                key: self.part(*key),
                elem: self.part(*elem),
            },
            DefKind::Struct { fields } => Kind::Struct {
                fields: fields
                    .iter()
                    .map(|field| (Arc::clone(&field.name), self.part(field.ty)))
                    .collect(),
            },
            DefKind::Opaque(kind) => Kind::Opaque(*kind),
        }
    }

    /// What Go calls it: `Point`, without the package; empty for a type
    /// without a name.
    pub fn name(&self) -> &str {
        match self.at {
            Ref::Builtin(builtin) => builtin.go_name(),
            Ref::Defined(_) => self.def().map_or("", |def| def.name.own()),
        }
    }

    /// Whether both are one type, not only of one shape.
    pub fn same(&self, other: &Type) -> bool {
        match (self.def(), other.def()) {
            (Some(own), Some(other)) => own.key == other.key,
            (None, None) => self.at == other.at,
            _ => false,
        }
    }

    pub(crate) fn new(table: &Arc<Table>, at: Ref) -> Type {
        Type {
            table: match at {
                Ref::Builtin(_) => None,
                Ref::Defined(_) => Some(Arc::clone(table)),
            },
            at,
        }
    }

    pub(crate) fn part(&self, at: Ref) -> Type {
        match &self.table {
            Some(table) => Type::new(table, at),
            None => Type { table: None, at },
        }
    }

    pub(crate) fn def(&self) -> Option<&Arc<Def>> {
        self.table.as_ref()?.def(self.at)
    }

    fn compose(name: Name, kind: impl FnOnce(&mut Table) -> DefKind) -> Type {
        let mut table = Table::default();
        let kind = kind(&mut table);
        let at = table.push(Def {
            key: fresh_key(),
            name,
            kind,
        });
        Type {
            table: Some(Arc::new(table)),
            at,
        }
    }
}

impl Name {
    /// The name of a declared type, from how Go prints it.
    pub(crate) fn declared(printed: &str) -> Name {
        if printed.is_empty() {
            return Name::None;
        }
        let own = printed.rsplit('.').next().unwrap_or(printed);
        Name::Declared {
            own: own.into(),
            printed: printed.into(),
        }
    }

    /// The name itself, without a package.
    pub(crate) fn own(&self) -> &str {
        match self {
            Name::None => "",
            Name::Declared { own, .. } | Name::Wire(own) => own,
        }
    }
}

impl Table {
    /// Brings a type of another table into this one, with all it refers to.
    pub(crate) fn import(&mut self, ty: &Type) -> Ref {
        let (Some(from), Ref::Defined(root)) = (&ty.table, ty.at) else {
            return ty.at;
        };
        let mut known: HashMap<u64, u32, Quick> = self
            .defs
            .iter()
            .enumerate()
            .filter_map(|(place, def)| Some((def.as_ref()?.key, place as u32)))
            .collect();
        let mut moved: HashMap<u32, u32, Quick> = HashMap::default();
        let mut queue = vec![root];
        let mut new = Vec::new();
        while let Some(place) = queue.pop() {
            let Some(def) = from.get(place) else { continue };
            if moved.contains_key(&place) {
                continue;
            }
            if let Some(&own) = known.get(&def.key) {
                moved.insert(place, own);
                continue;
            }
            let own = self.reserve();
            known.insert(def.key, own);
            moved.insert(place, own);
            new.push((own, Arc::clone(def)));
            def.parts(|part| {
                if let Ref::Defined(part) = part {
                    queue.push(part);
                }
            });
        }
        let place = |at: Ref| match at {
            Ref::Builtin(_) => at,
            Ref::Defined(old) => Ref::Defined(moved.get(&old).copied().unwrap_or(u32::MAX)),
        };
        for (own, def) in new {
            let kind = match &def.kind {
                DefKind::Array { elem, len } => DefKind::Array {
                    elem: place(*elem),
                    len: *len,
                },
                DefKind::Slice { elem } => DefKind::Slice { elem: place(*elem) },
                DefKind::Map { key, elem } => DefKind::Map {
                    key: place(*key),
                    elem: place(*elem),
                },
                DefKind::Struct { fields } => DefKind::Struct {
                    fields: fields
                        .iter()
                        .map(|field| Field {
                            name: Arc::clone(&field.name),
                            ty: place(field.ty),
                        })
                        .collect(),
                },
                DefKind::Opaque(kind) => DefKind::Opaque(*kind),
            };
            self.fill(
                own,
                Def {
                    key: def.key,
                    name: def.name.clone(),
                    kind,
                },
            );
        }
        place(ty.at)
    }
}
