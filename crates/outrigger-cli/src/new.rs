//! `outrigger new`: a plugin or a host that builds at once, with a test and a CI file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anstyle::Style;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
};
use serde_json::json;

use crate::args::{Language, NewArgs, NewKind};
use crate::failure::{Exit, Failure, printable};
use crate::{json, output};

/// Where the crates and the Python package are while they are not published.
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
/// The longest name: that of a plugin.
const LONGEST: usize = 64;

/// A file of a scaffold: where it goes, what it says, and whether it is a program.
struct Template {
    path: &'static str,
    text: &'static str,
    program: bool,
}

macro_rules! template {
    ($folder:literal, $from:literal => $to:literal) => {
        Template {
            path: $to,
            text: include_str!(concat!("../templates/", $folder, "/", $from, ".txt")),
            program: false,
        }
    };
}

const RUST_PLUGIN: &[Template] = &[
    template!("rust-plugin", "Cargo.toml" => "Cargo.toml"),
    template!("rust-plugin", "lib.rs" => "src/lib.rs"),
    template!("rust-plugin", "main.rs" => "src/main.rs"),
    template!("rust-plugin", "calls.rs" => "tests/calls.rs"),
    template!("rust-plugin", "manifest.yaml" => "manifest.yaml"),
    template!("rust-plugin", "README.md" => "README.md"),
    template!("rust-plugin", "ci.yml" => ".github/workflows/ci.yml"),
    template!("rust-plugin", "gitignore" => ".gitignore"),
];

const RUST_HOST: &[Template] = &[
    template!("rust-host", "Cargo.toml" => "Cargo.toml"),
    template!("rust-host", "lib.rs" => "src/lib.rs"),
    template!("rust-host", "main.rs" => "src/main.rs"),
    template!("rust-host", "greeter.rs" => "examples/greeter.rs"),
    template!("rust-host", "calls.rs" => "tests/calls.rs"),
    template!("rust-host", "README.md" => "README.md"),
    template!("rust-host", "ci.yml" => ".github/workflows/ci.yml"),
    template!("rust-host", "gitignore" => ".gitignore"),
    template!("rust-host", "gitkeep" => "plugins/.gitkeep"),
];

const GO_PLUGIN: &[Template] = &[
    template!("go-plugin", "go.mod" => "go.mod"),
    template!("go-plugin", "go.sum" => "go.sum"),
    template!("go-plugin", "main.go" => "main.go"),
    template!("go-plugin", "main_test.go" => "main_test.go"),
    template!("go-plugin", "manifest.yaml" => "manifest.yaml"),
    template!("go-plugin", "README.md" => "README.md"),
    template!("go-plugin", "ci.yml" => ".github/workflows/ci.yml"),
    template!("go-plugin", "gitignore" => ".gitignore"),
];

const PYTHON_PLUGIN: &[Template] = &[
    Template {
        program: true,
        ..template!("python-plugin", "main.py" => "main.py")
    },
    template!("python-plugin", "greeter.proto" => "greeter.proto"),
    template!("python-plugin", "greeter_pb2.py" => "greeter_pb2.py"),
    template!("python-plugin", "test_calls.py" => "test_calls.py"),
    template!("python-plugin", "manifest.yaml" => "manifest.yaml"),
    template!("python-plugin", "requirements.txt" => "requirements.txt"),
    template!("python-plugin", "README.md" => "README.md"),
    template!("python-plugin", "ci.yml" => ".github/workflows/ci.yml"),
    template!("python-plugin", "gitignore" => ".gitignore"),
];

/// Words that Cargo takes for no name of a package, or that would hide a crate of the standard
/// library.
const TAKEN_IN_RUST: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "outrigger",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "tokio",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Makes the folder, and says what to do in it.
///
/// # Errors
/// `name-invalid`, `new-unsupported`, `folder-not-empty`, `sources-not-found` and
/// `new-failed`.
pub(crate) fn run(args: &NewArgs) -> Result<(), Failure> {
    check_name(args)?;
    let templates = match (args.kind, args.language) {
        (NewKind::Plugin, Language::Rust) => RUST_PLUGIN,
        (NewKind::Plugin, Language::Go) => GO_PLUGIN,
        (NewKind::Plugin, Language::Python) => PYTHON_PLUGIN,
        (NewKind::Host, Language::Rust) => RUST_HOST,
        (NewKind::Host, Language::Go | Language::Python) => {
            let message = "only hosts in Rust are made so far";
            return Err(Failure::usage("new-unsupported", message)
                .help("take `--language rust`; a host in Go is written with go-plugin itself"));
        }
    };
    let sources = Sources::of(args)?;
    let folder = match &args.into {
        Some(folder) => folder.clone(),
        None => PathBuf::from(&args.name),
    };
    refuse_to_overwrite(&folder)?;
    let mut files = Vec::new();
    for template in templates {
        let text = sources.fill(template.text, &args.name);
        write(&folder, template.path, text.as_bytes(), template.program)?;
        files.push(template.path);
    }
    if args.language == Language::Python {
        let path = "greeter.binpb";
        write(&folder, path, &descriptors().encode_to_vec(), false)?;
        files.push(path);
    }
    let next = next_steps(args, &folder);
    if args.json {
        let object = json!({"folder": folder, "files": files, "next": next});
        let text = json::pretty(&object).unwrap_or_else(|_| "null".to_owned());
        return output::plain(&(text + "\n"));
    }
    let bold = Style::new().bold();
    let mut text = format!(
        "{bold}made{bold:#} {}\n",
        printable(&folder.display().to_string())
    );
    for file in files {
        text.push_str(&format!("  {file}\n"));
    }
    text.push_str(&format!("\n{bold}next{bold:#}\n"));
    for step in next {
        text.push_str(&format!("  {}\n", printable(&step)));
    }
    output::text(&text)
}

/// A name that is one of a plugin, of a crate, of a Go module and of a file alike.
fn check_name(args: &NewArgs) -> Result<(), Failure> {
    let name = &args.name;
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let shape = name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('-').all(word);
    let taken = args.language == Language::Rust && TAKEN_IN_RUST.contains(&name.as_str());
    if shape && !taken {
        return Ok(());
    }
    let message = format!("`{}` cannot be its name", printable(name));
    let failure = Failure::usage("name-invalid", message);
    Err(if shape {
        failure.help("Rust needs this word for itself; take another")
    } else {
        failure.help("names are words of `a-z` and `0-9` joined by `-`, and begin with a letter")
    })
}

fn refuse_to_overwrite(folder: &Path) -> Result<(), Failure> {
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(folder, &error)),
    };
    match entries.next() {
        None => Ok(()),
        Some(_) => {
            let shown = printable(&folder.display().to_string());
            let message = format!("the folder `{shown}` is not empty");
            Err(Failure::usage("folder-not-empty", message)
                .help("name another with `--into`, or empty it"))
        }
    }
}

fn write(folder: &Path, path: &str, bytes: &[u8], program: bool) -> Result<(), Failure> {
    let path = folder.join(path);
    let parent = path.parent().unwrap_or(folder);
    let mode = if program { 0o777 } else { 0o666 };
    fs::create_dir_all(parent)
        .and_then(|()| {
            let mut options = OpenOptions::new();
            // What came into being meanwhile is somebody else's.
            options.write(true).create_new(true).mode(mode);
            options.open(&path)?.write_all(bytes)
        })
        .map_err(|error| failed(&path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let shown = printable(&path.display().to_string());
    let message = format!("`{shown}` could not be written");
    Failure::new(Exit::Internal, "new-failed", message).note(error.to_string())
}

/// Where the crates and the package come from.
enum Sources {
    /// A checkout of the repository.
    Path(PathBuf),
    /// The repository, and which state of it.
    Git { url: String, rev: Option<String> },
}

impl Sources {
    fn of(args: &NewArgs) -> Result<Self, Failure> {
        let Some(path) = &args.path else {
            let url = args.git.clone().unwrap_or_else(|| REPOSITORY.to_owned());
            let rev = args.rev.clone();
            return Ok(Self::Git { url, rev });
        };
        let checkout = path.canonicalize().ok();
        match checkout.filter(|path| path.join("crates/outrigger-plugin/Cargo.toml").is_file()) {
            Some(checkout) => Ok(Self::Path(checkout)),
            None => {
                let shown = printable(&path.display().to_string());
                let message = format!("`{shown}` is no checkout of Outrigger");
                Err(Failure::usage("sources-not-found", message)
                    .help("name the folder that holds `crates/outrigger-plugin`, or use `--git`"))
            }
        }
    }

    fn fill(&self, text: &str, name: &str) -> String {
        let mut text = text
            .replace("{{name}}", name)
            .replace("{{crate}}", &name.replace('-', "_"))
            .replace("{{cookie}}", &cookie_key(name))
            .replace("{{outrigger-python}}", &self.python());
        for package in ["outrigger-plugin", "outrigger-host", "outrigger"] {
            text = text.replace(&format!("{{{{{package}}}}}"), &self.dependency(package));
        }
        text
    }

    /// The inside of a dependency's table in Cargo.toml.
    fn dependency(&self, package: &str) -> String {
        match self {
            Self::Path(checkout) => {
                let path = checkout.join("crates").join(package);
                format!("path = {}", quoted(&path.display().to_string()))
            }
            Self::Git { url, rev } => {
                let rev = rev.as_ref().map(|rev| format!(", rev = {}", quoted(rev)));
                format!("git = {}{}", quoted(url), rev.unwrap_or_default())
            }
        }
    }

    /// What pip installs.
    fn python(&self) -> String {
        match self {
            Self::Path(checkout) => format!("file://{}/bindings/python", checkout.display()),
            Self::Git { url, rev } => {
                let rev = rev.as_ref().map(|rev| format!("@{rev}"));
                format!(
                    "git+{url}{}#subdirectory=bindings/python",
                    rev.unwrap_or_default()
                )
            }
        }
    }
}

/// A text as TOML quotes it, which for these is as JSON does.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn cookie_key(name: &str) -> String {
    format!("{}_PLUGIN", name.to_ascii_uppercase().replace('-', "_"))
}

fn next_steps(args: &NewArgs, folder: &Path) -> Vec<String> {
    let enter = format!("cd {}", folder.display());
    let say_hello = "--method greeter.v1.Greeter/SayHello --data '{\"name\":\"Ada\"}'";
    let steps: &[String] = match (args.kind, args.language) {
        (NewKind::Host, _) => &["cargo test".to_owned(), "cargo run -- plugins Ada".to_owned()],
        (NewKind::Plugin, Language::Rust) => &[
            "cargo test && cargo build".to_owned(),
            format!("outrigger call --manifest . {say_hello}"),
        ],
        (NewKind::Plugin, Language::Go) => &[
            "go test ./... && go build".to_owned(),
            "outrigger call --manifest . --plugin greeter --method Plugin.SayHello --data '\"Ada\"'"
                .to_owned(),
        ],
        (NewKind::Plugin, Language::Python) => &[
            "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt".to_owned(),
            ".venv/bin/python -m unittest".to_owned(),
            format!("outrigger call --manifest . --descriptors greeter.binpb {say_hello}"),
        ],
    };
    std::iter::once(enter)
        .chain(steps.iter().cloned())
        .collect()
}

/// What `protoc` makes of the scaffold's `greeter.proto`.
fn descriptors() -> FileDescriptorSet {
    let message = |name: &str, field: &str| DescriptorProto {
        name: Some(name.to_owned()),
        field: vec![FieldDescriptorProto {
            name: Some(field.to_owned()),
            number: Some(1),
            label: Some(Label::Optional.into()),
            r#type: Some(Type::String.into()),
            json_name: Some(field.to_owned()),
            ..FieldDescriptorProto::default()
        }],
        ..DescriptorProto::default()
    };
    let method = MethodDescriptorProto {
        name: Some("SayHello".to_owned()),
        input_type: Some(".greeter.v1.SayHelloRequest".to_owned()),
        output_type: Some(".greeter.v1.SayHelloResponse".to_owned()),
        ..MethodDescriptorProto::default()
    };
    FileDescriptorSet {
        file: vec![FileDescriptorProto {
            name: Some("greeter.proto".to_owned()),
            package: Some("greeter.v1".to_owned()),
            message_type: vec![
                message("SayHelloRequest", "name"),
                message("SayHelloResponse", "value"),
            ],
            service: vec![ServiceDescriptorProto {
                name: Some("Greeter".to_owned()),
                method: vec![method],
                ..ServiceDescriptorProto::default()
            }],
            syntax: Some("proto3".to_owned()),
            ..FileDescriptorProto::default()
        }],
    }
}
