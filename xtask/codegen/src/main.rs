//! What `cargo xtask codegen` calls: Rust from `proto/`, without protoc. A program of
//! its own, because what reads protos is more than everything else that tasks need.

#![allow(clippy::print_stderr)] // It talks to the person who runs the task.
#![allow(clippy::disallowed_methods)] // rustfmt is no plugin.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// One generated module: the protos it comes from and what of them it holds.
struct Output {
    /// Folder beneath the workspace root.
    dir: &'static str,
    protos: &'static [&'static [&'static str]],
    parts: Parts,
    /// Packages whose messages live in another crate: `(".package", "::path")`.
    external: &'static [(&'static str, &'static str)],
    /// Where the descriptors that reflection serves are written.
    descriptors: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Parts {
    Messages,
    Services { client: bool, server: bool },
    Everything,
}

/// What go-plugin itself speaks, and health as it uses it.
const GO_PLUGIN: &[&str] = &[
    "grpc_broker.proto",
    "grpc_controller.proto",
    "grpc_stdio.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
];
/// What a host does for its plugins.
const HOST_SERVICES: &[&str] = &[
    "hostserve.proto",
    "outrigger/host/v1/clock.proto",
    "outrigger/host/v1/descriptors.proto",
    "outrigger/host/v1/environment.proto",
    "outrigger/host/v1/failure.proto",
    "outrigger/host/v1/filesystem.proto",
    "outrigger/host/v1/log.proto",
    "outrigger/host/v1/network.proto",
    "outrigger/host/v1/process.proto",
    "outrigger/host/v1/session.proto",
];
/// Where the messages of the host's services are.
const HOST_MESSAGES: &[(&str, &str)] = &[
    (".hostserve.v1", "::outrigger_wire::proto::hostserve"),
    (".outrigger.host.v1", "::outrigger_wire::proto::host"),
];

const OUTPUTS: &[Output] = &[
    Output {
        dir: "crates/outrigger-wire/src/generated",
        protos: &[GO_PLUGIN, HOST_SERVICES],
        parts: Parts::Messages,
        external: &[],
        descriptors: None,
    },
    Output {
        dir: "crates/outrigger-transport/src/generated",
        protos: &[GO_PLUGIN, &["grpc/reflection/v1alpha/reflection.proto"]],
        parts: Parts::Services {
            client: true,
            server: true,
        },
        external: &[
            (".plugin", "::outrigger_wire::proto::plugin"),
            (".grpc.health.v1", "::outrigger_wire::proto::health"),
            (".grpc.reflection.v1", "::outrigger_wire::proto::reflection"),
            (
                ".grpc.reflection.v1alpha",
                "::outrigger_wire::proto::reflection",
            ),
        ],
        descriptors: Some("go_plugin.bin"),
    },
    Output {
        dir: "crates/outrigger-plugin/src/generated",
        protos: &[HOST_SERVICES],
        parts: Parts::Services {
            client: true,
            server: false,
        },
        external: HOST_MESSAGES,
        descriptors: None,
    },
    Output {
        dir: "crates/outrigger-services/src/generated",
        protos: &[HOST_SERVICES],
        parts: Parts::Services {
            client: false,
            server: true,
        },
        external: HOST_MESSAGES,
        descriptors: Some("host_services.bin"),
    },
    Output {
        dir: "crates/outrigger-cli/src/control/generated",
        protos: &[&["outrigger/control/v1/control.proto"]],
        parts: Parts::Everything,
        external: &[],
        descriptors: Some("control.bin"),
    },
    example("examples/rust/src/generated/kv", &[&["kv.proto"]]),
    example("examples/rust/src/generated/counter", &[&["counter.proto"]]),
    example(
        "examples/rust/src/generated/streaming",
        &[&["streaming.proto"]],
    ),
    example("examples/rust/src/generated/animal", &[&["animal.proto"]]),
    example(
        "examples/rust/src/generated/services",
        &[&["filelister.proto", "hostdemo.proto"]],
    ),
    example(
        "interop/rust/src/generated",
        &[&["grpctest.proto", "bench.proto"]],
    ),
];

/// An interface that a program of ours serves or calls.
const fn example(dir: &'static str, protos: &'static [&'static [&'static str]]) -> Output {
    Output {
        dir,
        protos,
        parts: Parts::Everything,
        external: &[],
        descriptors: Some("descriptors.bin"),
    }
}

/// What the Python package makes its messages from, and a copy of what.
const PYTHON_COPY: [&str; 2] = [
    "bindings/python/outrigger/_generated/host_services.bin",
    "crates/outrigger-services/src/generated/host_services.bin",
];

/// Writes all generated code, or with `--check` fails when what is committed differs.
fn main() -> ExitCode {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [only] if only == "--check" => true,
        _ => {
            eprintln!("usage: cargo xtask codegen [--check]");
            return ExitCode::FAILURE;
        }
    };
    match run(&root(), check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_owned()
}

fn run(root: &Path, check: bool) -> Result<()> {
    let scratch = root.join("target/codegen");
    for output in OUTPUTS {
        let fresh = scratch.join(output.dir);
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh)?;
        }
        std::fs::create_dir_all(&fresh)?;
        generate(root, output, &fresh).with_context(|| format!("generating {}", output.dir))?;
        let committed = root.join(output.dir);
        if check {
            compare(&fresh, &committed)?;
        } else {
            replace(&fresh, &committed)?;
        }
    }
    python(root, check)
}

fn python(root: &Path, check: bool) -> Result<()> {
    let [copy, original] = PYTHON_COPY.map(|path| root.join(path));
    let fresh = std::fs::read(original)?;
    if check && std::fs::read(&copy)? != fresh {
        bail!(
            "{} is out of date; run `cargo xtask codegen`",
            copy.display()
        );
    }
    if !check {
        std::fs::write(copy, fresh)?;
    }
    Ok(())
}

fn generate(root: &Path, output: &Output, into: &Path) -> Result<()> {
    let (client, server) = match output.parts {
        Parts::Messages => (false, false),
        Parts::Services { client, server } => (client, server),
        Parts::Everything => (true, true),
    };
    let mut compile = outrigger_build::Compile::new()
        .root(root.join("proto"))
        .client(client)
        .server(server)
        .descriptors(output.descriptors)
        .into_dir(into);
    for (package, path) in output.external {
        compile = compile.external(*package, *path);
    }
    compile.run(&output.protos.concat())?;
    for file in files(into)? {
        if file.extension().is_some_and(|e| e == "rs") {
            if std::fs::read(&file)?.is_empty() {
                std::fs::remove_file(&file)?;
            } else {
                format(&file)?;
            }
        }
    }
    Ok(())
}

fn format(file: &Path) -> Result<()> {
    let status = std::process::Command::new("rustfmt")
        .args(["--edition", "2024"])
        .arg(file)
        .status()
        .context("running rustfmt")?;
    if !status.success() {
        bail!("rustfmt failed on {}", file.display());
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

fn compare(fresh: &Path, committed: &Path) -> Result<()> {
    let names = |dir: &Path| -> Result<Vec<_>> {
        Ok(files(dir)?
            .iter()
            .map(|f| f.file_name().unwrap_or_default().to_owned())
            .collect())
    };
    let expected: Vec<_> = names(fresh)?;
    let found: Vec<_> = names(committed)?
        .into_iter()
        .filter(|n| n != "mod.rs")
        .collect();
    if expected != found {
        bail!(
            "{} holds {found:?}, `cargo xtask codegen` makes {expected:?}",
            committed.display()
        );
    }
    for name in expected {
        if std::fs::read(fresh.join(&name))? != std::fs::read(committed.join(&name))? {
            bail!(
                "{} is out of date; run `cargo xtask codegen`",
                committed.join(&name).display()
            );
        }
    }
    Ok(())
}

fn replace(fresh: &Path, committed: &Path) -> Result<()> {
    std::fs::create_dir_all(committed)?;
    for old in files(committed)? {
        if old.file_name().is_some_and(|n| n != "mod.rs") {
            std::fs::remove_file(old)?;
        }
    }
    for new in files(fresh)? {
        std::fs::copy(&new, committed.join(new.file_name().unwrap_or_default()))?;
    }
    Ok(())
}
