//! What the build helper writes, and what it says of mistakes. That a crate compiles
//! with what it writes is shown by `examples/proto`.

use std::path::Path;

use outrigger_build::Compile;
use prost::Message;

/// A folder with `files`, and an empty folder `out` in it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files.iter().chain(&[("out/.keep", "")]) {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    dir
}

fn compile(dir: &Path, proto: &str) -> Result<(), outrigger_build::Error> {
    Compile::new()
        .into_dir(dir.join("out"))
        .run(&[dir.join(proto)])
}

const GREETER: &str = "syntax = \"proto3\";
package greeter.v1;
import \"names.proto\";
service Greeter { rpc Greet(names.Name) returns (names.Name); }
";
const NAMES: &str = "syntax = \"proto3\"; package names; message Name { bytes raw = 1; }";

#[test]
fn code_for_both_ends_and_descriptors_with_imports_are_written() {
    let dir = folder(&[("greeter.proto", GREETER), ("names.proto", NAMES)]);
    compile(dir.path(), "greeter.proto").expect("compiles");
    let read = |name: &str| std::fs::read(dir.path().join("out").join(name)).expect(name);
    let code = String::from_utf8(read("greeter.v1.rs")).expect("text");
    assert!(code.contains("mod greeter_client") && code.contains("mod greeter_server"));
    let messages = String::from_utf8(read("names.rs")).expect("text");
    assert!(messages.contains("::bytes::Bytes"), "{messages}");
    let set = prost_types::FileDescriptorSet::decode(&*read("descriptors.bin")).expect("a set");
    let names: Vec<_> = set.file.iter().map(|file| file.name()).collect();
    assert_eq!(names, ["names.proto", "greeter.proto"]);
}

#[test]
fn an_external_package_and_an_end_that_is_not_wanted_are_not_made() {
    let dir = folder(&[("api/greeter.proto", GREETER), ("names.proto", NAMES)]);
    let api = dir.path().join("api");
    Compile::new()
        .root(&api)
        .root(dir.path())
        .external(".names", "::names")
        .server(false)
        .descriptors(None)
        .into_dir(dir.path().join("out"))
        .run(&[api.join("greeter.proto")])
        .expect("compiles");
    let out = dir.path().join("out");
    let code = std::fs::read_to_string(out.join("greeter.v1.rs")).expect("code");
    assert!(code.contains("::names::Name") && !code.contains("greeter_server"));
    assert!(!out.join("descriptors.bin").exists());
}

#[test]
fn a_mistake_is_shown_with_its_file_and_its_line() {
    let proto = "syntax = \"proto3\";\nmessage A {\n  strin name = 1;\n}\n";
    let dir = folder(&[("wrong.proto", proto)]);
    let error = compile(dir.path(), "wrong.proto").expect_err("a mistake");
    let place = format!("{}:3:3", dir.path().join("wrong.proto").display());
    let text = format!("{error:?}");
    assert!(text.starts_with(&place) && text.contains("strin"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named_with_what_to_do() {
    let dir = folder(&[("greeter.proto", GREETER)]);
    for (proto, missing) in [
        ("greeter.proto", "names.proto"),
        ("none.proto", "none.proto"),
    ] {
        let error = compile(dir.path(), proto).expect_err("nothing is there");
        let text = error.to_string();
        assert!(
            text.contains(missing) && text.contains("Compile::root"),
            "{text}"
        );
    }
}
