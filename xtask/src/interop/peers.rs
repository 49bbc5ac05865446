//! The programs that are paired, built when they are needed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::tools;

/// Where the programs are, or why a language has none.
pub(super) struct Peers {
    rust: PathBuf,
    go: Result<PathBuf, String>,
    python: Result<PathBuf, String>,
    /// Files for static TLS, which a Go peer writes.
    pub(super) tls: PathBuf,
    pub(super) root: PathBuf,
    versions: String,
}

impl Peers {
    /// Stands in where only the names of cases are wanted.
    pub(super) fn nowhere() -> Self {
        let nowhere = PathBuf::new;
        Self {
            rust: nowhere(),
            go: Ok(nowhere()),
            python: Ok(nowhere()),
            tls: nowhere(),
            root: nowhere(),
            versions: String::new(),
        }
    }

    /// Builds what this machine can build. Under `CI=true` that must be everything.
    pub(super) fn build(root: &Path) -> Result<Self> {
        tools::cargo(root, &["build", "--workspace", "--quiet"])?;
        let rust = std::path::absolute(tools::target(root))?.join("debug");
        let tls = std::path::absolute(tools::target(root))?.join("interop/tls");
        let go = match tools::go_version() {
            Some(_) => Ok(go_peers(root, &tls)?),
            None => Err("Go 1.25 or newer is missing".to_owned()),
        };
        let python = match tools::python_version() {
            Some(_) => Ok(tools::python_environment(root)?),
            None => Err("Python 3.10 or newer is missing".to_owned()),
        };
        let versions = versions(root, &go, &python);
        let peers = Self {
            rust,
            go,
            python,
            tls,
            root: root.to_owned(),
            versions,
        };
        let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
        match peers.missing() {
            Some(missing) if strict => bail!("{missing}, and CI=true asks for every peer"),
            _ => Ok(peers),
        }
    }

    /// The first language that this machine lacks.
    pub(super) fn missing(&self) -> Option<&str> {
        let lacking = self.go.as_ref().err().or(self.python.as_ref().err());
        lacking.map(String::as_str)
    }

    pub(super) fn rust(&self, name: impl AsRef<Path>) -> PathBuf {
        self.rust.join(name)
    }

    pub(super) fn go(&self, name: impl AsRef<Path>) -> Result<PathBuf, String> {
        self.go.clone().map(|dir| dir.join(name))
    }

    /// The interpreter that has grpcio.
    pub(super) fn python(&self) -> Result<PathBuf, String> {
        self.python.clone()
    }

    /// What the results were made with.
    pub(super) fn versions(&self) -> &str {
        &self.versions
    }
}

fn go_peers(root: &Path, tls: &Path) -> Result<PathBuf> {
    let peers = std::path::absolute(tools::build_go_peers(root)?)?;
    // They are valid for a day.
    fs::create_dir_all(tls)?;
    tools::run(
        tools::command(peers.join("helper"))
            .arg("make-tls")
            .arg(tls),
    )?;
    Ok(peers)
}

fn versions(root: &Path, go: &Result<PathBuf, String>, python: &Result<PathBuf, String>) -> String {
    let mut versions = Vec::new();
    if go.is_ok() {
        let module = fs::read_to_string(root.join("interop/go/go.mod")).unwrap_or_default();
        for name in ["github.com/hashicorp/go-plugin", "google.golang.org/grpc"] {
            let line = module
                .lines()
                .find_map(|line| line.trim().strip_prefix(name));
            let short = name.rsplit('/').next().unwrap_or(name);
            versions.push(format!("{short}{}", line.unwrap_or(" ?")));
        }
        versions.extend(tools::go_version());
    }
    if let Ok(python) = python {
        let ask = "import grpc, platform; print('grpcio', grpc.__version__ + ', Python', platform.python_version())";
        versions.extend(tools::output(&python.display().to_string(), &["-c", ask]));
    }
    if versions.is_empty() {
        versions.push("Rust only".to_owned());
    }
    versions.join(", ")
}
