//! Go's types as the command line states them, with names of its own.
//!
//! A description of a type in gob cannot be made to contain itself here, and
//! need not: data ends somewhere. A type that contains itself is described as
//! deep as the data goes, which a Go program cannot tell from the real one.

use std::collections::HashMap;

use outrigger_gob::{Builtin, OpaqueKind, Type};

use crate::failure::{Failure, near, printable};

/// How deep a type may nest.
const DEPTH: usize = 64;

/// A type, in which names stand for definitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum GoType {
    /// One of [`GoTypes`], by its place.
    Named(usize),
    Builtin(Builtin),
    Time,
    Opaque(OpaqueKind),
    /// Sent as what it points to, but part of the names of lists and maps.
    Pointer(Box<GoType>),
    Slice(Box<GoType>),
    Array(u64, Box<GoType>),
    Map(Box<GoType>, Box<GoType>),
    Struct(Vec<(String, GoType)>),
}

/// The types that the command line gives names to.
#[derive(Clone, Default, Debug)]
pub(crate) struct GoTypes {
    defs: Vec<Def>,
}

#[derive(Clone, Debug)]
struct Def {
    /// As it was given: the name under which a Go program registered it.
    registered: String,
    ty: GoType,
}

impl Def {
    /// The name as it stands in types: without the `*` of a registered pointer.
    fn bare(&self) -> &str {
        self.registered.trim_start_matches('*')
    }
}

impl GoTypes {
    /// Reads definitions, which may use each other.
    ///
    /// # Errors
    /// `type-invalid`: a name or a type is none.
    pub(crate) fn new(defs: &[(String, String)]) -> Result<Self, Failure> {
        let invalid = |name: &str, reason: &str| {
            Failure::usage(
                "type-invalid",
                format!("`--type-def {}` {reason}", printable(name)),
            )
        };
        let mut types = Self::default();
        for (name, _) in defs {
            let bare = name.trim_start_matches('*');
            if bare.is_empty() {
                return Err(invalid(name, "does not name a type"));
            }
            if types.defs.iter().any(|def| def.bare() == bare) {
                return Err(invalid(name, "is defined twice"));
            }
            types.defs.push(Def {
                registered: name.clone(),
                ty: GoType::Named(types.defs.len()),
            });
        }
        for (place, (name, text)) in defs.iter().enumerate() {
            let ty = types
                .parse(text)
                .map_err(|reason| invalid(name, "is no type in Go's syntax").note(reason))?;
            types.defs[place].ty = ty.pointed().clone();
        }
        // No definition is only another's name, so each passes a struct, list or map.
        let resolved: Vec<Option<GoType>> = (0..types.defs.len())
            .map(|place| types.resolved(place).cloned())
            .collect();
        for (place, ty) in resolved.into_iter().enumerate() {
            let def = &mut types.defs[place];
            def.ty = ty.ok_or_else(|| invalid(&def.registered, "is defined only by itself"))?;
        }
        Ok(types)
    }

    fn resolved(&self, mut place: usize) -> Option<&GoType> {
        for _ in 0..=self.defs.len() {
            match &self.defs.get(place)?.ty {
                GoType::Named(next) => place = *next,
                ty => return Some(ty),
            }
        }
        None
    }

    /// Reads a type in Go's syntax.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(crate) fn parse(&self, text: &str) -> Result<GoType, String> {
        let mut parser = Parser {
            types: self,
            text,
            at: 0,
            depth: 0,
        };
        let ty = parser.ty()?;
        parser.blank();
        match parser.rest() {
            "" => Ok(ty),
            _ => Err(parser.expected("its end")),
        }
    }

    /// The type that a name in an interface stands for, and the name to send.
    ///
    /// Go registers lists and maps by the text of their type, in which pointers
    /// and names of element types stand as they were declared.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub(crate) fn in_interface(&self, name: &str) -> Result<(String, GoType), String> {
        let own = self.defs.iter().position(|def| def.registered == name);
        if let Some(place) = own {
            return Ok((name.to_owned(), GoType::Named(place)));
        }
        let ty = self.parse(name)?;
        match (ty.pointed(), self.describe(&ty, 1)) {
            (GoType::Named(place), _) => Ok((self.defs[*place].registered.clone(), ty)),
            (GoType::Struct(_), _) => {
                Err("a struct needs a name: define it with `--type-def`".into())
            }
            (GoType::Builtin(Builtin::Interface), _) => {
                Err("an interface holds values of other types only".into())
            }
            (_, Some(_)) => Ok((self.spelled(&ty), ty)),
            (_, None) => Err("it contains itself".into()),
        }
    }

    /// The type as Go prints it.
    fn spelled(&self, ty: &GoType) -> String {
        match ty {
            GoType::Named(place) => self.defs[*place].bare().to_owned(),
            GoType::Builtin(builtin) => builtin.go_name().to_owned(),
            GoType::Time => "time.Time".to_owned(),
            GoType::Opaque(kind) => kind.to_string(),
            GoType::Pointer(to) => format!("*{}", self.spelled(to)),
            GoType::Slice(elem) => format!("[]{}", self.spelled(elem)),
            GoType::Array(len, elem) => format!("[{len}]{}", self.spelled(elem)),
            GoType::Map(key, elem) => format!("map[{}]{}", self.spelled(key), self.spelled(elem)),
            GoType::Struct(fields) if fields.is_empty() => "struct {}".to_owned(),
            GoType::Struct(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, ty)| format!("{name} {}", self.spelled(ty)))
                    .collect();
                format!("struct {{ {} }}", fields.join("; "))
            }
        }
    }

    /// The type as gob describes it, with names within names up to `levels`
    /// deep. Fields whose types go deeper are left out; there is nothing when
    /// the type itself does.
    pub(crate) fn describe(&self, ty: &GoType, levels: usize) -> Option<Type> {
        self.built(ty, levels, &mut HashMap::new())
    }

    fn built(
        &self,
        ty: &GoType,
        levels: usize,
        made: &mut HashMap<(usize, usize), Option<Type>>,
    ) -> Option<Type> {
        Some(match ty {
            GoType::Named(place) => {
                let below = levels.checked_sub(1)?;
                if let Some(known) = made.get(&(*place, levels)) {
                    return known.clone();
                }
                let def = self.defs.get(*place)?;
                let described = match &def.ty {
                    GoType::Struct(fields) => Some(self.structure(def.bare(), fields, below, made)),
                    GoType::Opaque(kind) => Some(Type::opaque(def.bare(), *kind)),
                    ty => self.built(ty, below, made),
                };
                made.insert((*place, levels), described.clone());
                described?
            }
            GoType::Builtin(builtin) => Type::builtin(*builtin),
            GoType::Time => Type::time(),
            GoType::Opaque(kind) => Type::opaque("", *kind),
            GoType::Pointer(to) => self.built(to, levels, made)?,
            GoType::Slice(elem) => Type::slice(&self.built(elem, levels, made)?),
            GoType::Array(len, elem) => Type::array(*len, &self.built(elem, levels, made)?),
            GoType::Map(key, elem) => Type::map(
                &self.built(key, levels, made)?,
                &self.built(elem, levels, made)?,
            ),
            GoType::Struct(fields) => self.structure("", fields, levels, made),
        })
    }

    fn structure(
        &self,
        name: &str,
        fields: &[(String, GoType)],
        levels: usize,
        made: &mut HashMap<(usize, usize), Option<Type>>,
    ) -> Type {
        let fields: Vec<(&str, Type)> = fields
            .iter()
            .filter_map(|(name, ty)| Some((name.as_str(), self.built(ty, levels, made)?)))
            .collect();
        Type::structure(name, fields.iter().map(|(name, ty)| (*name, ty)))
    }
}

impl GoType {
    /// What it points to, however often.
    fn pointed(&self) -> &Self {
        match self {
            Self::Pointer(to) => to.pointed(),
            ty => ty,
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "_./-".contains(c)
}

struct Parser<'a> {
    types: &'a GoTypes,
    text: &'a str,
    /// In bytes.
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

    fn error(&self, what: &str) -> String {
        let before = self.text.get(..self.at).unwrap_or_default();
        format!(
            "{what} at character {} of `{}`",
            before.chars().count() + 1,
            printable(self.text)
        )
    }

    fn expected(&self, what: &str) -> String {
        let found = match self.rest() {
            "" => "nothing more".to_owned(),
            rest => format!(
                "`{}`",
                printable(&rest.chars().take(24).collect::<String>())
            ),
        };
        self.error(&format!("expected {what}, found {found}"))
    }

    fn take(&mut self, text: &str) -> bool {
        self.blank();
        let there = self.rest().starts_with(text);
        if there {
            self.at += text.len();
        }
        there
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        match self.take(text) {
            true => Ok(()),
            false => Err(self.expected(&format!("`{text}`"))),
        }
    }

    fn word(&mut self) -> &'a str {
        self.blank();
        let rest = self.rest();
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn ty(&mut self) -> Result<GoType, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error("types nest too deep"));
        }
        let ty = self.any();
        self.depth -= 1;
        ty
    }

    fn any(&mut self) -> Result<GoType, String> {
        if self.take("*") {
            return Ok(GoType::Pointer(Box::new(self.ty()?)));
        }
        if self.take("(") {
            let ty = self.ty()?;
            self.expect(")")?;
            return Ok(ty);
        }
        if self.take("[") {
            if self.take("]") {
                return Ok(GoType::Slice(Box::new(self.ty()?)));
            }
            self.blank();
            let start = self.at;
            let Ok(len) = self.word().parse::<u32>() else {
                self.at = start;
                return Err(self.expected("a number of elements or `]`"));
            };
            self.expect("]")?;
            return Ok(GoType::Array(len.into(), Box::new(self.ty()?)));
        }
        self.blank();
        let start = self.at;
        if let Some(ty) = self.uncommon() {
            return Ok(ty);
        }
        match self.word() {
            "" => Err(self.expected("a type")),
            "map" => {
                self.expect("[")?;
                let key = self.ty()?;
                self.expect("]")?;
                Ok(GoType::Map(Box::new(key), Box::new(self.ty()?)))
            }
            "struct" => self.structure(),
            "interface" => {
                // As people write it; no interface with methods can be sent.
                if self.take("{") {
                    self.expect("}")?;
                }
                Ok(GoType::Builtin(Builtin::Interface))
            }
            word => self.name(word).inspect_err(|_| self.at = start),
        }
    }

    /// A definition whose name is not one word, such as `main.Box[int]`.
    fn uncommon(&mut self) -> Option<GoType> {
        let rest = self.rest();
        let fits = |name: &str| {
            let after = rest.strip_prefix(name);
            !name.chars().all(is_word) && after.is_some_and(|after| !after.starts_with(is_word))
        };
        let defs = self.types.defs.iter().enumerate();
        let (place, def) = defs
            .filter(|(_, def)| fits(def.bare()))
            .max_by_key(|(_, def)| def.bare().len())?;
        self.at += def.bare().len();
        Some(GoType::Named(place))
    }

    fn name(&self, word: &str) -> Result<GoType, String> {
        let own = self.types.defs.iter().position(|def| def.bare() == word);
        if let Some(place) = own {
            return Ok(GoType::Named(place));
        }
        if let Some((_, ty)) = names().into_iter().find(|(name, _)| *name == word) {
            return Ok(ty);
        }
        let unknown = format!("unknown type `{}`", printable(word));
        if matches!(word, "chan" | "func" | "error") {
            return Err(format!("`{word}` cannot be sent: only data can"));
        }
        let own = self.types.defs.iter().map(Def::bare);
        let known: Vec<&str> = names()
            .into_iter()
            .map(|(name, _)| name)
            .chain(own)
            .collect();
        Err(match near(word, known).first() {
            Some(name) => format!("{unknown}; did you mean `{name}`?"),
            None => format!("{unknown}; types of a program are defined with `--type-def`"),
        })
    }

    fn structure(&mut self) -> Result<GoType, String> {
        self.expect("{")?;
        let mut fields: Vec<(String, GoType)> = Vec::new();
        loop {
            while self.take(";") {}
            if self.take("}") {
                return Ok(GoType::Struct(fields));
            }
            let mut names = vec![self.field()?];
            while self.take(",") {
                names.push(self.field()?);
            }
            let ty = self.ty()?;
            for name in names {
                if fields.iter().any(|(own, _)| own == name) {
                    return Err(self.error(&format!("the field `{name}` occurs twice")));
                }
                fields.push((name.to_owned(), ty.clone()));
            }
            self.tag();
            if self.take("}") {
                return Ok(GoType::Struct(fields));
            }
            self.expect(";")?;
        }
    }

    fn field(&mut self) -> Result<&'a str, String> {
        self.blank();
        let start = self.at;
        let name = self.word();
        let problem = match name.chars().next() {
            Some(first) if first.is_uppercase() && !name.contains(['.', '/', '-']) => {
                return Ok(name);
            }
            Some(first) if first.is_lowercase() => {
                format!("`{name}` is never sent, because it does not begin with a capital letter")
            }
            _ => {
                self.at = start;
                return Err(self.expected("the name of a field or `}`"));
            }
        };
        self.at = start;
        Err(self.error(&problem))
    }

    /// Passes over the tag of a field.
    fn tag(&mut self) {
        for quote in ["`", "\""] {
            if self.take(quote) {
                let rest = self.rest();
                self.at += rest.find(quote).map_or(rest.len(), |end| end + 1);
            }
        }
    }
}

/// The types that have names by themselves.
fn names() -> Vec<(&'static str, GoType)> {
    let builtins = Builtin::NAMED.map(|(name, builtin)| (name, GoType::Builtin(builtin)));
    let others = [
        ("time.Time", GoType::Time),
        ("gob.GobEncoder", GoType::Opaque(OpaqueKind::GobEncoder)),
        (
            "encoding.BinaryMarshaler",
            GoType::Opaque(OpaqueKind::BinaryMarshaler),
        ),
    ];
    builtins.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(defs: &[(&str, &str)]) -> Result<GoTypes, Failure> {
        let defs: Vec<_> = defs
            .iter()
            .map(|(name, ty)| ((*name).to_owned(), (*ty).to_owned()))
            .collect();
        GoTypes::new(&defs)
    }

    #[test]
    fn types_are_read_as_go_writes_them() {
        let none = GoTypes::default();
        for (text, shown) in [
            ("string", "string"),
            ("map[string]any", "map[string]interface {}"),
            (" map [ string ] interface {} ", "map[string]interface {}"),
            ("map[string]interface", "map[string]interface {}"),
            (
                "struct{A interface; B []interface}",
                "struct { A interface {}; B []interface {} }",
            ),
            ("[]byte", "[]uint8"),
            ("[][]*int8", "[][]int8"),
            ("[4](uint16)", "[4]uint16"),
            ("time.Time", "time.Time"),
            ("struct{}", "struct {}"),
            (
                "struct { A, B int; C []string `gob:\"x\"`; }",
                "struct { A int; B int; C []string }",
            ),
        ] {
            let ty = none.parse(text).expect(text);
            assert_eq!(none.describe(&ty, 1).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_type_is_pointed_at() {
        let none = GoTypes::default();
        for (text, says) in [
            ("", "expected a type, found nothing more at character 1"),
            ("map[string]interface{", "expected `}`, found nothing more"),
            ("strnig", "did you mean `string`?"),
            ("main.Shape", "`--type-def`"),
            ("struct{a int}", "capital letter at character 8"),
            ("struct{A int; A string}", "occurs twice"),
            ("[x]int", "a number of elements"),
            ("chan int", "cannot be sent"),
            ("int int", "expected its end, found `int`"),
        ] {
            let error = none.parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        let deep = "[]".repeat(100) + "int";
        assert!(none.parse(&deep).expect_err("deep").contains("too deep"));
    }

    #[test]
    fn a_type_that_contains_itself_is_described_as_deep_as_asked() {
        let types = types(&[
            (
                "*main.Shape",
                "struct{Name string; Inner *main.Shape; Color main.Color}",
            ),
            ("main.Color", "main.Paint"),
            ("main.Paint", "string"),
        ])
        .expect("good definitions");
        let (name, ty) = types.in_interface("main.Shape").expect("a type");
        assert_eq!(name, "*main.Shape");
        let shown = |levels| Some(types.describe(&ty, levels)?.expanded().to_string());
        assert_eq!(shown(0), None);
        assert_eq!(shown(1).expect("one"), "struct { Name string }");
        assert_eq!(
            shown(2).expect("two"),
            "struct { Name string; Inner struct { Name string }; Color string }"
        );
    }

    #[test]
    fn definitions_that_lead_nowhere_are_refused() {
        for defs in [
            &[("A", "B"), ("B", "*A")][..],
            &[("A", "int"), ("*A", "string")],
            &[("*", "int")],
            &[("A", "struct{")],
        ] {
            assert_eq!(types(defs).expect_err("wrong").code, "type-invalid");
        }
        let tree = types(&[("Tree", "[]Tree")]).expect("good");
        assert_eq!(tree.describe(&GoType::Named(0), 5), None);
    }

    #[test]
    fn every_name_that_go_registers_can_be_stated() {
        let node = "struct{Value int; Next *main.Node[int]}";
        let types = types(&[
            ("main.Node[int]", node),
            ("*main.Pair[string,example.com/x.T]", "struct{A string}"),
            ("shape:circle", "float64"),
            ("a b", "int"),
            ("[]main.Node[int]", "[]main.Node[int]"),
        ])
        .expect("good definitions");
        for name in [
            "main.Node[int]",
            "*main.Pair[string,example.com/x.T]",
            "shape:circle",
            "a b",
            "[]main.Node[int]",
            "map[string]*main.Node[int]",
        ] {
            assert_eq!(types.in_interface(name).expect(name).0, name);
        }
        let (_, ty) = types.in_interface("main.Node[int]").expect("a type");
        let described = types.describe(&ty, 2).expect("described");
        assert_eq!(
            described.expanded().to_string(),
            "struct { Value int; Next struct { Value int } }"
        );
        assert!(types.parse("main.Node[int]s").is_err());
    }

    #[test]
    fn names_in_interfaces_are_those_that_go_registers() {
        let none = GoTypes::default();
        for (name, sent) in [
            ("[]byte", "[]uint8"),
            ("int64", "int64"),
            ("map[string]any", "map[string]interface {}"),
            ("time.Time", "time.Time"),
            ("*int", "*int"),
            ("[] * (rune)", "[]*int32"),
            (
                "map[string][4]*[]interface",
                "map[string][4]*[]interface {}",
            ),
            (
                "[]struct{A, B *byte; C any}",
                "[]struct { A *uint8; B *uint8; C interface {} }",
            ),
        ] {
            assert_eq!(none.in_interface(name).expect(name).0, sent);
        }
        let own = types(&[
            ("main.Shape", "struct{}"),
            ("*main.Color", "string"),
            ("main.Shapes", "*[]main.Shape"),
        ])
        .expect("good definitions");
        for (name, sent) in [
            ("[]*main.Shape", "[]*main.Shape"),
            ("[]main.Shape", "[]main.Shape"),
            ("map[string]*main.Shape", "map[string]*main.Shape"),
            ("map[main.Color]any", "map[main.Color]interface {}"),
            ("*main.Shape", "main.Shape"),
            ("main.Color", "*main.Color"),
            ("main.Shapes", "main.Shapes"),
        ] {
            assert_eq!(own.in_interface(name).expect(name).0, sent);
        }
        assert!(none.in_interface("any").is_err());
        assert!(none.in_interface("*any").is_err());
        assert!(none.in_interface("struct{A int}").is_err());
    }
}
