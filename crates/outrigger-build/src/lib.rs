//! Rust code from `.proto` files, in a build script and without protoc.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), outrigger_build::Error> {
//!     outrigger_build::compile(&["proto/greeter.proto"])
//! }
//! ```
//!
//! The crate needs `prost`, `tonic` (its feature `codegen` is enough) and
//! `tonic-prost`, which the code names, and takes the code in by its package:
//!
//! ```ignore
//! pub mod greeter {
//!     tonic::include_proto!("greeter.v1");
//!     /// For `ServiceSet::describe`, so that hosts can call the plugin by reflection.
//!     pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");
//! }
//! ```
//!
//! Messages and both ends of each service are made, and with them the descriptors
//! for reflection. Fields of type `bytes` are `bytes::Bytes`. The script runs
//! again when one of the files, or one that they import, has changed. [`Compile`]
//! has what else there is to choose.
//!
//! This crate knows nothing of plugins: the code is tonic's, and works with any channel.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use prost::Message;

/// Compiles `protos`, whose paths are relative to the crate's folder. Imports are
/// looked for in the folders that `protos` are in.
///
/// # Errors
/// See [`Error`]; returned from `main`, it says in which file and line the mistake is.
pub fn compile(protos: &[impl AsRef<Path>]) -> Result<(), Error> {
    Compile::new().run(protos)
}

/// [`compile`] with choices.
///
/// # Examples
/// ```no_run
/// # fn main() -> Result<(), outrigger_build::Error> {
/// outrigger_build::Compile::new()
///     .root("proto")
///     .external(".common.v1", "::common::proto")
///     .run(&["proto/greeter/v1/greeter.proto"])
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is compiled before `run`"]
pub struct Compile {
    roots: Vec<PathBuf>,
    external: Vec<(String, String)>,
    client: bool,
    server: bool,
    descriptors: Option<String>,
    dir: Option<PathBuf>,
}

impl Default for Compile {
    fn default() -> Self {
        Self::new()
    }
}

impl Compile {
    /// Both ends of each service, into the folder that Cargo gives to build scripts.
    pub fn new() -> Self {
        Self {
            roots: Vec::new(),
            external: Vec::new(),
            client: true,
            server: true,
            descriptors: Some("descriptors.bin".to_owned()),
            dir: None,
        }
    }

    /// Adds a folder that the names of files and imports are relative to. With one
    /// or more, the folders of the files themselves are not looked in.
    pub fn root(mut self, dir: impl Into<PathBuf>) -> Self {
        self.roots.push(dir.into());
        self
    }

    /// Uses the code at `path` for a package that another crate has compiled:
    /// `.external(".common.v1", "::common::proto")`.
    pub fn external(mut self, package: impl Into<String>, path: impl Into<String>) -> Self {
        self.external.push((package.into(), path.into()));
        self
    }

    /// Whether clients of the services are made.
    pub fn client(mut self, made: bool) -> Self {
        self.client = made;
        self
    }

    /// Whether servers of the services are made.
    pub fn server(mut self, made: bool) -> Self {
        self.server = made;
        self
    }

    /// The name of the file with the descriptors instead of `descriptors.bin`, or
    /// none if there is to be no such file.
    pub fn descriptors(mut self, file: Option<&str>) -> Self {
        self.descriptors = file.map(str::to_owned);
        self
    }

    /// Writes into `dir`, which exists, and tells Cargo nothing: for code that is committed.
    pub fn into_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Compiles `protos`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(self, protos: &[impl AsRef<Path>]) -> Result<(), Error> {
        let dir = match (&self.dir, std::env::var_os("OUT_DIR")) {
            (Some(dir), _) => dir.clone(),
            (None, Some(dir)) => dir.into(),
            (None, None) => return Err(Error(Kind::NoBuildScript)),
        };
        let roots = self.roots_of(protos);
        let in_script = self.dir.is_none();
        if in_script {
            protos
                .iter()
                .for_each(|proto| rerun_if_changed(proto.as_ref()));
        }
        let wrong = |error| Error::of_proto(&roots, &error);
        let mut compiler = protox::Compiler::new(&roots).map_err(wrong)?;
        compiler.include_imports(true).include_source_info(true);
        compiler.open_files(protos).map_err(wrong)?;
        if in_script {
            compiler
                .files()
                .filter_map(|file| file.path())
                .for_each(rerun_if_changed);
        }
        let descriptors = compiler.file_descriptor_set();
        if let Some(name) = &self.descriptors {
            let mut bare = descriptors.clone();
            for file in &mut bare.file {
                // Comments and places, which nobody asks for at run time.
                file.source_code_info = None;
            }
            let path = dir.join(name);
            std::fs::write(&path, bare.encode_to_vec()).map_err(|e| Error::of_file(path, e))?;
        }
        let mut builder = tonic_prost_build::configure()
            .build_client(self.client)
            .build_server(self.server)
            // The client of tonic's own connections, which ours are not.
            .build_transport(false)
            .bytes(".")
            .emit_rerun_if_changed(false)
            .out_dir(&dir);
        for (package, path) in &self.external {
            builder = builder.extern_path(package, path);
        }
        builder
            .compile_fds(descriptors)
            .map_err(|e| Error::of_file(dir, e))
    }

    fn roots_of(&self, protos: &[impl AsRef<Path>]) -> Vec<PathBuf> {
        if !self.roots.is_empty() {
            return self.roots.clone();
        }
        let mut roots: Vec<PathBuf> = Vec::new();
        for proto in protos {
            let dir = match proto.as_ref().parent() {
                Some(dir) if dir != Path::new("") => dir,
                _ => Path::new("."),
            };
            if !roots.iter().any(|known| known == dir) {
                roots.push(dir.to_owned());
            }
        }
        roots
    }
}

#[allow(clippy::print_stdout)] // Cargo reads it.
fn rerun_if_changed(path: &Path) {
    println!("cargo:rerun-if-changed={}", path.display());
}

/// Code could not be made. As `{:?}` it prints what `{}` prints, because that is how
/// an error that `main` returns is shown.
pub struct Error(Kind);

enum Kind {
    NoBuildScript,
    Proto { problem: String, not_found: bool },
    File { path: PathBuf, source: io::Error },
}

impl Error {
    /// A mistake in a file; its name is made one that an editor finds.
    fn of_proto(roots: &[PathBuf], error: &protox::Error) -> Self {
        let mut problem = format!("{error:?}");
        if let Some(name) = error.file()
            && let Some(rest) = problem.strip_prefix(name)
            && let Some(path) = roots.iter().map(|r| r.join(name)).find(|p| p.exists())
        {
            problem = format!("{}{rest}", path.display());
        }
        Self(Kind::Proto {
            problem,
            not_found: error.is_file_not_found(),
        })
    }

    fn of_file(path: PathBuf, source: io::Error) -> Self {
        Self(Kind::File { path, source })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::NoBuildScript => f.write_str(
                "there is no OUT_DIR: call this from build.rs, or choose a folder with `into_dir`",
            ),
            Kind::Proto { problem, not_found } => {
                f.write_str(problem)?;
                match not_found {
                    true => f.write_str(
                        "\nhelp: paths are relative to the crate's folder; name the folder that \
                         imports are relative to with `Compile::root`",
                    ),
                    false => Ok(()),
                }
            }
            Kind::File { path, source } => {
                write!(
                    f,
                    "code could not be written to {}: {source}",
                    path.display()
                )
            }
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
