//! Types in Go's words.

use outrigger_gob::Coded as _;
use outrigger_gob::{Builtin, Kind, Type, Width};

#[track_caller]
fn parsed(text: &str) -> Type {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn types_print_as_go_prints_them() {
    for (text, printed) in [
        ("bool", "bool"),
        ("int", "int"),
        ("uint16", "uint16"),
        ("uintptr", "uintptr"),
        ("float32", "float32"),
        ("complex128", "complex128"),
        ("byte", "uint8"),
        ("rune", "int32"),
        ("any", "interface {}"),
        ("interface{}", "interface {}"),
        ("[]byte", "[]uint8"),
        ("[ ] uint8", "[]uint8"),
        ("[4]uint8", "[4]uint8"),
        ("[]int", "[]int"),
        ("*[]*string", "[]string"),
        ("map[string]any", "map[string]interface {}"),
        ("map[string]interface {}", "map[string]interface {}"),
        ("map[string]interface", "map[string]interface {}"),
        (
            "struct { A interface; B []interface }",
            "struct { A interface {}; B []interface {} }",
        ),
        ("map[[2]int][]map[bool]uint", "map[[2]int][]map[bool]uint"),
        ("time.Time", "time.Time"),
        ("[]time.Time", "[]time.Time"),
        ("struct{}", "struct {}"),
        (
            "struct{Name string; Age int}",
            "struct { Name string; Age int }",
        ),
        (
            "struct {\n\tA, B *int8 `json:\"a;b\"`\n; C struct { D any };\n}",
            "struct { A int8; B int8; C struct { D interface {} } }",
        ),
        ("(int)", "int"),
        ("  int  ", "int"),
    ] {
        let ty = parsed(text);
        assert_eq!(ty.to_string(), printed, "{text}");
        assert_eq!(parsed(printed).to_string(), printed);
        assert_eq!(parsed(printed), ty);
    }
}

#[test]
fn what_is_no_type_is_refused_with_its_place() {
    let deep = "[]".repeat(65) + "int";
    for (text, code, message) in [
        (
            "",
            "go-type-syntax",
            "expected a type, found the end at character 1 of the type \"\"",
        ),
        (
            "[]strin",
            "go-type-unknown",
            "unknown type \"strin\" at character 3 of the type \"[]strin\"",
        ),
        (
            "map[string",
            "go-type-syntax",
            "expected ], found the end at character 11 of the type \"map[string\"",
        ),
        (
            "int x",
            "go-type-syntax",
            "expected the end, found \"x\" at character 5 of the type \"int x\"",
        ),
        (
            "[-1]int",
            "go-type-syntax",
            "expected a number of elements or `]`, found \"-1]int\" at character 2 of the type \"[-1]int\"",
        ),
        (
            "struct{name string}",
            "go-type-field-not-exported",
            "\"name\" is not sent, because it does not begin with a capital letter at character 8 of the type \"struct{name string}\"",
        ),
        (
            "struct{A int; A bool}",
            "go-type-field-twice",
            "the field \"A\" occurs twice at character 15 of the type \"struct{A int; A bool}\"",
        ),
        (
            "[]error",
            "go-type-without-gob",
            "the type error has no gob; only data can be sent at character 3 of the type \"[]error\"",
        ),
        (
            "func()",
            "go-type-without-gob",
            "a function has no gob; only data can be sent at character 1 of the type \"func()\"",
        ),
        (
            "struct{A int B int}",
            "go-type-syntax",
            "expected ;, found \"B int}\" at character 14 of the type \"struct{A int B int}\"",
        ),
    ] {
        let error = text.parse::<Type>().expect_err(text);
        assert_eq!((error.code(), &*error.to_string()), (code, message));
    }
    let error = deep.parse::<Type>().expect_err("too deep");
    assert_eq!(error.code(), "go-type-too-deep");
}

#[test]
fn a_type_can_be_taken_apart() {
    let ty = parsed("map[string]struct { ID uint16; Tags []string; At *time.Time }");
    let Kind::Map { key, elem } = ty.kind() else {
        panic!("a map");
    };
    assert!(matches!(key.kind(), Kind::Builtin(Builtin::String)));
    let Kind::Struct { fields } = elem.kind() else {
        panic!("a struct");
    };
    let names: Vec<_> = fields.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["ID", "Tags", "At"]);
    assert!(matches!(
        fields[0].1.kind(),
        Kind::Builtin(Builtin::Uint(Width::W16))
    ));
    assert!(matches!(fields[1].1.kind(), Kind::Slice { .. }));
    assert!(fields[2].1.is_time());
    assert!(!fields[1].1.is_time());
}

#[test]
fn types_are_equal_if_they_are_the_same_on_the_wire() {
    assert_eq!(parsed("[]int8"), parsed("[]int"));
    assert_eq!(
        parsed("*struct { A any }"),
        parsed("struct { A interface{} }")
    );
    for (one, other) in [
        ("[]int", "[]uint"),
        ("[2]int", "[3]int"),
        ("[]int", "[2]int"),
        ("struct { A int }", "struct { B int }"),
        ("struct { A int }", "struct { A int; B int }"),
        ("map[string]int", "map[int]string"),
        ("time.Time", "[]byte"),
    ] {
        assert_ne!(parsed(one), parsed(other));
    }
}
