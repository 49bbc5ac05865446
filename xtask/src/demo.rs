//! `cargo xtask demo`: our host with plugins in Rust, Go and Python, on a real directory.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{plugins, tools};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The directory that the plugins list; this repository otherwise
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A folder of other plugins: FOLDER/NAME/NAME is the program. Where DIR is
    /// named too, they may also change what is in it, if only through the host
    #[arg(long, value_name = "FOLDER")]
    plugins: Option<PathBuf>,
    /// Let no plugin change what is in DIR
    #[arg(long)]
    read_only: bool,
}

/// The plugins in Rust: the program, and the name it is staged under.
const RUST: [(&str, &str); 3] = [
    ("colorlister", "color-lister"),
    ("filelister", "file-lister"),
    ("hostdemo", "host-demo"),
];
const GO: &str = "go-lister";
const PYTHON: &str = "py-lister";
const HOST: &str = "demo-host";

/// Why a part of the demo is left out.
struct LeftOut(String);

/// Where everything of the demo is.
struct Places {
    root: PathBuf,
    /// `target/demo`.
    demo: PathBuf,
    /// `target/demo/plugins`.
    plugins: PathBuf,
}

/// Shows the demo; ends the process with status 1 when something in it failed.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let shown = match show(root, options) {
        Ok(shown) => shown,
        Err(error) => {
            eprintln!("error: {error:#}");
            Shown::Failed
        }
    };
    match shown {
        Shown::Well => Ok(()),
        // What went wrong has been said already.
        Shown::Failed => std::process::exit(1),
    }
}

/// How a demo went.
enum Shown {
    Well,
    Failed,
}

fn show(root: &Path, options: &Options) -> Result<Shown> {
    let dir = folder(options.dir.as_deref().unwrap_or(root))?;
    let plugins = options.plugins.as_deref().map(folder).transpose()?;
    let demo = std::path::absolute(tools::target(root))?.join("demo");
    let places = Places {
        root: root.to_owned(),
        plugins: demo.join("plugins"),
        demo,
    };

    let programs = match &plugins {
        None => places.stage_all()?,
        Some(_) => places.build([])?,
    };
    let mut host = tools::command(program(&programs, HOST)?);
    host.arg("--dir")
        .arg(&dir)
        .arg("--scratch")
        .arg(places.demo.join("scratch"));
    host.arg("--plugins")
        .arg(plugins.as_deref().unwrap_or(&places.plugins));
    // Nobody expects this repository to change because a plugin was tried.
    if plugins.is_some() && options.dir.is_some() && !options.read_only {
        host.arg("--write");
    }
    if plugins.is_none() {
        for (_, name) in RUST {
            host.arg("--label").arg(format!("{name}=Rust"));
        }
        host.args([
            "--label",
            &format!("{GO}=Go"),
            "--label",
            &format!("{PYTHON}=Python"),
        ]);
    }
    let status = host.status().with_context(|| format!("running {HOST}"))?;
    Ok(if status.success() {
        Shown::Well
    } else {
        Shown::Failed
    })
}

fn folder(path: &Path) -> Result<PathBuf> {
    let metadata = fs::metadata(path).with_context(|| format!("looking for {}", path.display()))?;
    if !metadata.is_dir() {
        bail!("{} is not a directory", path.display());
    }
    Ok(std::path::absolute(path)?)
}

/// A program that cargo built, by its name.
type Program = (String, PathBuf);

fn program<'a>(programs: &'a [Program], name: &str) -> Result<&'a Path> {
    let found = programs.iter().find(|(known, _)| known == name);
    found
        .map(|(_, path)| path.as_path())
        .with_context(|| format!("cargo built no {name}"))
}

impl Places {
    /// Builds and stages every part that can be had.
    fn stage_all(&self) -> Result<Vec<Program>> {
        fs::create_dir_all(&self.plugins)?;
        let animals = plugins::names(&self.root.join(plugins::MANIFESTS))?;
        let (programs, go, python) = thread::scope(|scope| {
            let go = scope.spawn(|| self.go_lister());
            let python = scope.spawn(|| self.python_lister());
            let rust = RUST.iter().map(|(program, _)| *program);
            let animals = animals.iter().map(String::as_str);
            (self.build(rust.chain(animals)), go.join(), python.join())
        });
        let programs = programs?;
        let mut staged: Vec<&str> = Vec::new();
        for (built, name) in RUST {
            let link = |staged: &Path| {
                let built = program(&programs, built)?;
                fs::hard_link(built, staged).or_else(|_| fs::copy(built, staged).map(drop))?;
                Ok(())
            };
            self.stage(name, link)?;
            staged.push(name);
        }
        for name in &animals {
            let built = program(&programs, name)?;
            let built = built.parent().context("a program is in a folder")?;
            plugins::lay_out(&self.root, built, name, &self.plugins.join(name))?;
            staged.push(name);
        }
        let mut left_out = Vec::new();
        for (name, outcome) in [(GO, go), (PYTHON, python)] {
            let Ok(outcome) = outcome else {
                bail!("staging {name} panicked")
            };
            match outcome? {
                Ok(()) => staged.push(name),
                Err(LeftOut(why)) => {
                    self.unstage(name)?;
                    left_out.push((name, why));
                }
            }
        }
        self.unstage_strangers(&staged)?;
        for (name, why) in left_out {
            println!("Left out   {name}: {why}");
        }
        Ok(programs)
    }

    /// Builds the host and `plugins`, and nothing that they do not need.
    fn build<'a>(&self, plugins: impl IntoIterator<Item = &'a str>) -> Result<Vec<Program>> {
        let mut command = tools::cargo_command(&self.root, &["build", "--bin", HOST]);
        for plugin in plugins {
            command.args(["--bin", plugin]);
        }
        command
            .args(["--package", "outrigger-examples"])
            .arg("--message-format=json-render-diagnostics")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        if self.demo.join("built").exists() {
            command.arg("--quiet");
        } else {
            println!("Building; the first time takes some minutes.");
        }
        let output = command.output().context("running cargo")?;
        if !output.status.success() {
            bail!("cargo could not build the demo");
        }
        fs::create_dir_all(&self.demo)?;
        fs::write(self.demo.join("built"), "")?;
        let messages = output.stdout.split(|byte| *byte == b'\n');
        Ok(messages.filter_map(built).collect())
    }

    /// Puts a program at `NAME/NAME`, whole or not at all.
    fn stage(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let folder = self.plugins.join(name);
        fs::create_dir_all(&folder)?;
        let fresh = folder.join(".fresh");
        if fresh.exists() {
            fs::remove_file(&fresh)?;
        }
        make(&fresh).with_context(|| format!("staging {name}"))?;
        // Renaming one link over another of the same file does nothing at all.
        let staged = folder.join(name);
        if staged.exists() {
            fs::remove_file(&staged)?;
        }
        fs::rename(&fresh, staged)?;
        Ok(())
    }

    fn unstage(&self, name: &str) -> Result<()> {
        let folder = self.plugins.join(name);
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        Ok(())
    }

    /// Removes what an earlier form of the demo staged.
    fn unstage_strangers(&self, staged: &[&str]) -> Result<()> {
        for entry in fs::read_dir(&self.plugins)? {
            let name = entry?.file_name();
            if !staged.iter().any(|known| name == OsStr::new(known)) {
                self.unstage(&name.to_string_lossy())?;
            }
        }
        Ok(())
    }

    fn go_lister(&self) -> Result<Result<(), LeftOut>> {
        if tools::go_version().is_none() {
            let why = match tools::output("go", &["env", "GOVERSION"]) {
                Some(version) => format!("it needs Go 1.25 or newer, and this is {version}"),
                None => "Go is not installed; https://go.dev/dl has it".to_owned(),
            };
            return Ok(Err(LeftOut(why)));
        }
        let source = self.root.join("examples/go/lister");
        let folder = self.plugins.join(GO);
        fs::create_dir_all(&folder)?;
        let mut build = tools::command("go");
        build
            .arg("build")
            .arg("-o")
            .arg(folder.join(GO))
            .arg(".")
            .current_dir(source);
        Ok(tools::run_quietly(&mut build).map_err(|error| LeftOut(format!("{error:#}"))))
    }

    fn python_lister(&self) -> Result<Result<(), LeftOut>> {
        if tools::python_version().is_none() {
            let why = match tools::output("python3", &["--version"]) {
                Some(version) => format!("it needs Python 3.10 or newer, and this is {version}"),
                None => "Python is not installed; https://www.python.org has it".to_owned(),
            };
            return Ok(Err(LeftOut(why)));
        }
        let python = match tools::python_environment(&self.root) {
            Ok(python) => python,
            Err(error) => return Ok(Err(LeftOut(format!("{error:#}")))),
        };
        // The shell becomes Python: nothing stands between host and plugin.
        let script = [
            &b"#!/bin/sh\nexec "[..],
            &quoted(&python),
            b" ",
            &quoted(&self.root.join("examples/python/lister.py")),
            b" \"$@\"\n",
        ]
        .concat();
        self.stage(PYTHON, |staged| {
            fs::write(staged, script)?;
            fs::set_permissions(staged, fs::Permissions::from_mode(0o755))?;
            Ok(())
        })?;
        Ok(Ok(()))
    }
}

/// The program that one of cargo's messages speaks of.
fn built(message: &[u8]) -> Option<Program> {
    let message: Value = serde_json::from_slice(message).ok()?;
    let path = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> Vec<u8> {
    let mut word = vec![b'\''];
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'\'' => word.extend_from_slice(b"'\\''"),
            byte => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_is_one_word_to_the_shell() {
        for path in ["/a b/$HOME`x`\"", "/it's/here", "/\u{e9}\n"] {
            let script = [b"printf %s ", &quoted(Path::new(path))[..]].concat();
            let output = tools::command("sh")
                .arg("-c")
                .arg(OsStr::from_bytes(&script))
                .output();
            assert_eq!(output.expect("a shell").stdout, path.as_bytes());
        }
    }

    #[test]
    fn cargos_messages_name_the_programs_that_were_built() {
        let message =
            br#"{"reason":"compiler-artifact","target":{"name":"kv"},"executable":"/t/kv"}"#;
        assert_eq!(built(message), Some(("kv".to_owned(), "/t/kv".into())));
        assert_eq!(
            built(br#"{"target":{"name":"kv"},"executable":null}"#),
            None
        );
        assert_eq!(built(b""), None);
    }
}
