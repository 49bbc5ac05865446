//! What README.md shows is what a reader can copy: its host and its plugin are
//! built as crates of their own, with the dependencies that stand there, and run.
#![allow(clippy::disallowed_methods)] // Cargo and a host are no plugins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the crates of README.md are called here: the examples of those names are
/// built into the same directory.
const PLUGIN: &str = "readme-hello";
const HOST: &str = "readme-hello-host";

/// The text of README.md beneath one of its headings.
struct Section<'r>(&'r str);

impl<'r> Section<'r> {
    fn of(readme: &'r str, heading: &str) -> Self {
        let begins = readme.find(&format!("\n## {heading}\n"));
        let section = &readme[begins.unwrap_or_else(|| panic!("no section {heading:?}")) + 1..];
        Self(section.split("\n## ").next().unwrap_or_default())
    }

    /// The only block in a language.
    fn block(&self, language: &str) -> &'r str {
        let fence = format!("\n```{language}\n");
        let mut blocks = self.0.split(&fence).skip(1);
        let (block, more) = (blocks.next(), blocks.next());
        assert!(more.is_none(), "two blocks in {language}");
        let block = block.unwrap_or_else(|| panic!("no block in {language}: {}", self.0));
        block.split("```").next().unwrap_or_default()
    }
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace")
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("README.md")
}

/// A folder as a reader would have it, in which each crate of README.md is a
/// member of a workspace with our versions and profiles.
struct Copied {
    folder: PathBuf,
}

impl Copied {
    fn new() -> Self {
        // The same each time, so that what was compiled for it is found again.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("an empty folder");
        let ours = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
        let profiles = ours.find("[profile.dev]").expect("profiles");
        let members = format!("members = [{PLUGIN:?}, {HOST:?}]");
        let workspace = format!("[workspace]\nresolver = \"3\"\n{members}\n");
        let copied = Self { folder };
        copied.write("Cargo.toml", &format!("{workspace}\n{}", &ours[profiles..]));
        fs::copy(root().join("Cargo.lock"), copied.path("Cargo.lock")).expect("Cargo.lock");
        copied
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// Adds a crate as `cargo new` makes it, with what a section of README.md shows.
    fn add(&self, name: &str, section: &Section<'_>) {
        let package = format!("[package]\nname = {name:?}\nedition = \"2024\"\n\n");
        // In README.md our repository lies beside the crates.
        let ours = format!("path = \"{}/", root().display());
        let dependencies = section
            .block("toml")
            .replace("path = \"../outrigger/", &ours);
        self.write(&format!("{name}/Cargo.toml"), &(package + &dependencies));
        self.write(&format!("{name}/src/main.rs"), section.block("rust"));
    }

    /// Builds both crates into the target directory of the running test.
    fn build(&self) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .expect("a target directory");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--quiet", "--workspace"])
            .arg("--target-dir")
            .arg(target)
            .current_dir(&self.folder)
            .output()
            .expect("cargo runs");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{said}");
        assert!(!said.contains("warning"), "{said}");
        target.join("debug")
    }
}

#[test]
fn the_plugin_and_the_host_of_the_readme_can_be_copied_and_run() {
    let readme = readme();
    let (plugin, host) = (
        Section::of(&readme, "A plugin"),
        Section::of(&readme, "A host"),
    );
    let copied = Copied::new();
    copied.add(PLUGIN, &plugin);
    copied.add(HOST, &host);
    copied.write("plugins/hello/manifest.yaml", plugin.block("yaml"));
    let built = copied.build();
    fs::copy(built.join(PLUGIN), copied.path("plugins/hello/hello")).expect("a program");

    let ran = Command::new(built.join(HOST))
        .current_dir(&copied.folder)
        .output();
    let ran = ran.expect("the host runs");
    let (_, shown) = host
        .block("console")
        .split_once("$ cargo run --manifest-path hello-host/Cargo.toml\n")
        .expect("how it is run");
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), shown, "{ran:?}");
}

#[test]
fn the_readme_shows_the_examples_hello_and_hello_host() {
    let readme = readme();
    for (section, language, file) in [
        ("A plugin", "rust", "rust/src/bin/hello.rs"),
        ("A plugin", "yaml", "hello/manifest.yaml"),
        ("A host", "rust", "rust/src/bin/hello-host.rs"),
    ] {
        let example = fs::read_to_string(root().join("examples").join(file)).expect(file);
        let shown = Section::of(&readme, section).block(language);
        // An example begins with what it is.
        assert!(example.ends_with(shown), "README.md does not show {file}");
    }
}
