//! Types as Go writes them.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use outrigger_wire::Coded;

use crate::error::excerpt;
use crate::types::{Builtin, Def, DefKind, Name, OpaqueKind, Ref, Type};

/// How many types a printed type shows before it breaks off. A few
/// definitions that use each other twice would print for ever.
const SHOWN: usize = 256;

/// How deep a parsed type may nest.
const DEPTH: usize = 64;

/// Prints the type as Go does; structs with a name by it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer = Printer {
            ty: self,
            left: SHOWN,
            open: Vec::new(),
            expand: false,
        };
        printer.print(self.at, f)
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What [`Type::expanded`] returns.
pub struct Expanded<'a>(&'a Type);

impl fmt::Display for Expanded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer = Printer {
            ty: self.0,
            left: SHOWN,
            open: Vec::new(),
            expand: true,
        };
        printer.print(self.0.at, f)
    }
}

impl Type {
    /// Prints structs with their fields even if they have a name. Where a
    /// type contains itself, its name or `…` stands for it.
    pub fn expanded(&self) -> Expanded<'_> {
        Expanded(self)
    }
}

struct Printer<'a> {
    ty: &'a Type,
    left: usize,
    /// What is being printed.
    open: Vec<u32>,
    expand: bool,
}

impl<'a> Printer<'a> {
    fn print(&mut self, at: Ref, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match at {
            Ref::Builtin(builtin) => return f.write_str(builtin.go_name()),
            Ref::Defined(place) => place,
        };
        let def: Option<&'a Def> = self
            .ty
            .table
            .as_ref()
            .and_then(|table| table.get(place))
            .map(|def| &**def);
        let (Some(def), Some(left)) = (def, self.left.checked_sub(1)) else {
            return f.write_str("…");
        };
        self.left = left;
        let inside = self.open.contains(&place) || self.open.len() >= DEPTH;
        let by_name = match (&def.name, &def.kind) {
            (Name::Declared { printed, .. }, _) => Some(&**printed),
            // Lists and maps have a name on the wire only because fields do.
            (Name::Wire(name), DefKind::Struct { .. } | DefKind::Opaque(_)) => Some(&**name),
            _ => None,
        };
        let by_name = by_name.filter(|name| is_name(name));
        match by_name {
            Some(name) if inside || !self.expand => return f.write_str(name),
            None if inside => return f.write_str("…"),
            _ => {}
        }
        self.open.push(place);
        self.print_def(def, by_name, f)?;
        self.open.pop();
        Ok(())
    }

    fn print_def(
        &mut self,
        def: &'a Def,
        name: Option<&str>,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        match &def.kind {
            DefKind::Array { elem, len } => {
                write!(f, "[{len}]")?;
                self.print(*elem, f)
            }
            DefKind::Slice { elem } => {
                f.write_str("[]")?;
                self.print(*elem, f)
            }
            DefKind::Map { key, elem } => {
                f.write_str("map[")?;
                self.print(*key, f)?;
                f.write_str("]")?;
                self.print(*elem, f)
            }
            DefKind::Struct { fields } if fields.is_empty() => f.write_str("struct {}"),
            DefKind::Struct { fields } => {
                f.write_str("struct {")?;
                for (index, field) in fields.iter().enumerate() {
                    f.write_str(if index == 0 { " " } else { "; " })?;
                    match is_name(&field.name) {
                        true => f.write_str(&field.name)?,
                        false => f.write_str(&excerpt(field.name.as_bytes()))?,
                    }
                    f.write_str(" ")?;
                    self.print(field.ty, f)?;
                    if self.left == 0 {
                        return f.write_str("; … }");
                    }
                }
                f.write_str(" }")
            }
            DefKind::Opaque(kind) => f.write_str(name.unwrap_or(kind.go_name())),
        }
    }
}

/// Whether a text from a peer can be printed as a name.
fn is_name(text: &str) -> bool {
    let harmless = |c: char| c.is_alphanumeric() || "_.*/[]{}, ".contains(c);
    !text.is_empty() && text.len() <= 120 && text.chars().all(harmless)
}

/// Whether values of both types are the same on the wire: widths of numbers
/// and names of types do not count, names of fields do.
impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        let mut assumed = HashSet::new();
        let mut queue = vec![(self.at, other.at)];
        while let Some((own, theirs)) = queue.pop() {
            let (a, b) = match (own, theirs) {
                (Ref::Builtin(a), Ref::Builtin(b)) if a.wire_id() == b.wire_id() => continue,
                (Ref::Defined(a), Ref::Defined(b)) => (a, b),
                _ => return false,
            };
            if !assumed.insert((a, b)) {
                continue;
            }
            let def = |ty: &Type, at: Ref| Some(ty.table.as_ref()?.def(at)?.kind.clone());
            let (Some(a), Some(b)) = (def(self, own), def(other, theirs)) else {
                return false;
            };
            match (a, b) {
                (DefKind::Array { elem: a, len: n }, DefKind::Array { elem: b, len: m })
                    if n == m =>
                {
                    queue.push((a, b));
                }
                (DefKind::Slice { elem: a }, DefKind::Slice { elem: b }) => queue.push((a, b)),
                (DefKind::Map { key: j, elem: a }, DefKind::Map { key: k, elem: b }) => {
                    queue.extend([(j, k), (a, b)]);
                }
                (DefKind::Struct { fields: a }, DefKind::Struct { fields: b })
                    if a.len() == b.len() =>
                {
                    for (a, b) in a.iter().zip(&b) {
                        if a.name != b.name {
                            return false;
                        }
                        queue.push((a.ty, b.ty));
                    }
                }
                (DefKind::Opaque(a), DefKind::Opaque(b)) if a == b => {}
                _ => return false,
            }
        }
        true
    }
}

impl Eq for Type {}

/// Why a text is not a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at character {at} of the type {text}")]
pub struct TypeError {
    problem: Problem,
    /// From 1.
    at: usize,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("expected {0}, found {1}")]
    Unexpected(&'static str, String),
    #[error("unknown type {0}")]
    Unknown(String),
    #[error("{0} is not sent, because it does not begin with a capital letter")]
    NotExported(String),
    #[error("the field {0} occurs twice")]
    Twice(String),
    #[error("{0} has no gob; only data can be sent")]
    NoGob(&'static str),
    #[error("types nested deeper than {DEPTH}")]
    Depth,
}

impl Coded for TypeError {
    fn code(&self) -> &'static str {
        match self.problem {
            Problem::Unexpected(..) => "go-type-syntax",
            Problem::Unknown(_) => "go-type-unknown",
            Problem::NotExported(_) => "go-type-field-not-exported",
            Problem::Twice(_) => "go-type-field-twice",
            Problem::NoGob(_) => "go-type-without-gob",
            Problem::Depth => "go-type-too-deep",
        }
    }
}

/// Reads what Go calls a type: `map[string]interface {}`, `[]int`,
/// `struct { Name string; Age int }`, `time.Time`, …
impl FromStr for Type {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Type, TypeError> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let ty = parser.ty()?;
        parser.blank();
        match parser.rest() {
            "" => Ok(ty),
            _ => Err(parser.unexpected("the end")),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blank(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error(&self, problem: Problem) -> TypeError {
        let before = self.text.get(..self.at).unwrap_or_default();
        TypeError {
            problem,
            at: before.chars().count() + 1,
            text: excerpt(self.text.as_bytes()),
        }
    }

    fn unexpected(&self, expected: &'static str) -> TypeError {
        let found = match self.rest() {
            "" => "the end".into(),
            rest => excerpt(rest.as_bytes()),
        };
        self.error(Problem::Unexpected(expected, found))
    }

    fn take(&mut self, text: &str) -> bool {
        self.blank();
        let there = self.rest().starts_with(text);
        if there {
            self.at += text.len();
        }
        there
    }

    fn expect(&mut self, text: &'static str) -> Result<(), TypeError> {
        if self.take(text) {
            Ok(())
        } else {
            Err(self.unexpected(text))
        }
    }

    /// A word, which may contain dots.
    fn word(&mut self) -> &'a str {
        self.blank();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
            .unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn ty(&mut self) -> Result<Type, TypeError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error(Problem::Depth));
        }
        let ty = self.any();
        self.depth -= 1;
        ty
    }

    fn any(&mut self) -> Result<Type, TypeError> {
        if self.take("*") {
            return self.ty();
        }
        if self.take("(") {
            let ty = self.ty()?;
            self.expect(")")?;
            return Ok(ty);
        }
        if self.take("[") {
            return self.list();
        }
        self.blank();
        let start = self.at;
        let word = self.word();
        match word {
            "map" => {
                self.expect("[")?;
                let key = self.ty()?;
                self.expect("]")?;
                let elem = self.ty()?;
                Ok(Type::map(&key, &elem))
            }
            "struct" => self.structure(),
            "interface" => {
                // As people write it; no interface with methods can be sent.
                if self.take("{") {
                    self.expect("}")?;
                }
                Ok(Type::builtin(Builtin::Interface))
            }
            "chan" | "func" | "error" => {
                self.at = start;
                let what = match word {
                    "chan" => "a channel",
                    "func" => "a function",
                    _ => "the type error",
                };
                Err(self.error(Problem::NoGob(what)))
            }
            "time.Time" => Ok(Type::time()),
            "" => Err(self.unexpected("a type")),
            word => builtin(word).map(Type::builtin).ok_or_else(|| {
                self.at = start;
                self.error(Problem::Unknown(excerpt(word.as_bytes())))
            }),
        }
    }

    /// What follows the opening bracket of an array or slice.
    fn list(&mut self) -> Result<Type, TypeError> {
        if self.take("]") {
            return Ok(Type::slice(&self.ty()?));
        }
        self.blank();
        let start = self.at;
        let Ok(len) = self.word().parse::<u32>() else {
            self.at = start;
            return Err(self.unexpected("a number of elements or `]`"));
        };
        self.expect("]")?;
        Ok(Type::array(len.into(), &self.ty()?))
    }

    fn structure(&mut self) -> Result<Type, TypeError> {
        self.expect("{")?;
        let mut fields: Vec<(&str, Type)> = Vec::new();
        loop {
            while self.take(";") {}
            if self.take("}") {
                break;
            }
            let mut names = vec![self.field_name(&fields)?];
            while self.take(",") {
                names.push(self.field_name(&fields)?);
            }
            let ty = self.ty()?;
            for name in names {
                if fields.iter().any(|(own, _)| *own == name) {
                    return Err(self.error(Problem::Twice(excerpt(name.as_bytes()))));
                }
                fields.push((name, ty.clone()));
            }
            self.tag();
            if self.take("}") {
                break;
            }
            self.expect(";")?;
        }
        let fields = fields.iter().map(|(name, ty)| (*name, ty));
        Ok(Type::structure("", fields))
    }

    fn field_name(&mut self, fields: &[(&str, Type)]) -> Result<&'a str, TypeError> {
        self.blank();
        let start = self.at;
        let name = self.word();
        let problem = match name.chars().next() {
            None => return Err(self.unexpected("the name of a field or `}`")),
            Some(_) if name.contains('.') => {
                self.at = start;
                return Err(self.unexpected("the name of a field"));
            }
            Some(first) if !first.is_uppercase() => Problem::NotExported(excerpt(name.as_bytes())),
            Some(_) if fields.iter().any(|(own, _)| *own == name) => {
                Problem::Twice(excerpt(name.as_bytes()))
            }
            Some(_) => return Ok(name),
        };
        self.at = start;
        Err(self.error(problem))
    }

    /// Passes over the tag of a field.
    fn tag(&mut self) {
        for quote in ["`", "\""] {
            if self.take(quote) {
                let rest = self.rest();
                let end = rest.find(quote).map_or(rest.len(), |end| end + 1);
                self.at += end;
            }
        }
    }
}

fn builtin(name: &str) -> Option<Builtin> {
    let named = Builtin::NAMED.iter().find(|(known, _)| *known == name);
    named.map(|(_, builtin)| *builtin)
}

impl fmt::Display for OpaqueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.go_name())
    }
}
