//! Under which grants the plugin of `inspect` and `call` runs, and what its
//! manifest says about how to start it.

use std::path::{Path, PathBuf};

use outrigger_host::MagicCookie;
use outrigger_manifest::{Decision, Format, Manifest, Places, Policy, SandboxMode};
use outrigger_services::GrantedServices;
use outrigger_wire::Transport;
use serde::Serialize;

use crate::args::PluginArgs;
use crate::audit::Audit;
use crate::failure::{Exit, Failure, near, printable};
use crate::files::{self, Kind, Source};
use crate::output;

/// Which plugin to start, and under which grants: the command line completed by the manifest.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) args: PluginArgs,
    /// What of the arguments the manifest said.
    pub(crate) by_manifest: ByManifest,
    pub(crate) granting: Granting,
}

/// What of the command line the manifest said.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct ByManifest {
    pub(crate) protocol: bool,
    pub(crate) auto_mtls: bool,
}

impl Target {
    /// What messages call the plugin: its name in the manifest, or the file name of the program.
    pub(crate) fn name(&self) -> String {
        if let Some(known) = &self.granting.manifest {
            return known.manifest.name().to_string();
        }
        if let Some(joined) = &self.args.reattach {
            return printable(&joined.0.address.text);
        }
        let program = self.args.program();
        let name = program.file_name().unwrap_or(program.as_os_str());
        printable(&name.to_string_lossy())
    }
}

/// What stands for a manifest when none is given: it asks for nothing.
const NOTHING: &str = "plugin: {name: unnamed, format: grpc, entrypoint: unnamed}\n\
    handshake: {protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}\n\
    services: []\n";

/// What the host does for the plugin, and who says so.
#[derive(Clone, Debug)]
pub(crate) struct Granting {
    /// Nothing without `--manifest`.
    pub(crate) manifest: Option<Manifested>,
    pub(crate) services: GrantedServices,
    pub(crate) audit: Audit,
}

/// A manifest and what was decided about it.
#[derive(Clone, Debug)]
pub(crate) struct Manifested {
    /// The file, as it was given.
    pub(crate) file: String,
    pub(crate) manifest: Manifest,
    pub(crate) policy: PolicyUsed,
    pub(crate) places: Places,
    pub(crate) decision: Decision,
}

/// Which policy decides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PolicyUsed {
    /// The one that grants whatever is asked: none was given.
    AllowRequested,
    /// That of a file.
    File(String),
}

impl std::fmt::Display for PolicyUsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AllowRequested => {
                f.write_str("allow_requested: whatever the manifest asks for (no `--policy`)")
            }
            Self::File(name) => f.write_str(name),
        }
    }
}

/// For the object that `inspect --json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) file: String,
    pub(crate) policy: PolicyUsed,
    pub(crate) granted: usize,
    pub(crate) refused: usize,
    pub(crate) sandbox: SandboxMode,
}

impl Granting {
    /// Decides over the manifest that the command line names; grants nothing without one.
    ///
    /// # Errors
    /// What is wrong with the manifest, the policy, a place, or the audit file.
    fn of(args: &PluginArgs) -> Result<Self, Failure> {
        let audit = Audit::new(&args.grants.audit)?;
        let manifested = match &args.grants.manifest {
            Some(path) => Some(Manifested::load(path, args)?),
            None => None,
        };
        let services = match &manifested {
            Some(manifested) => {
                manifested.make_data_dir();
                GrantedServices::new(manifested.decision.grants())
            }
            None => GrantedServices::new(nothing()?.grants()),
        };
        for unusable in services.unusable() {
            output::note(&format!(
                "{}: requests for it will be refused",
                printable(&unusable.to_string())
            ));
        }
        Ok(Self {
            manifest: manifested,
            services: services.audit(audit.log()),
            audit,
        })
    }

    /// For the object that `inspect --json` prints.
    pub(crate) fn summary(&self) -> Option<Summary> {
        self.manifest.as_ref().map(|known| Summary {
            file: known.file.clone(),
            policy: known.policy.clone(),
            granted: known.decision.granted().len(),
            refused: known.decision.refused().len(),
            sandbox: known.decision.grants().sandbox(),
        })
    }
}

fn nothing() -> Result<Decision, Failure> {
    let broken = |error: String| {
        Failure::new(Exit::Internal, "runtime-failed", "no grants could be made").note(error)
    };
    let manifest = Manifest::parse(NOTHING).map_err(|error| broken(error.to_string()))?;
    let places = Places::new("/nonexistent/plugin", "/nonexistent/data")
        .map_err(|error| broken(error.to_string()))?;
    Ok(Policy::allow_nothing().decide(&manifest, &places))
}

impl Manifested {
    fn load(path: &Path, args: &PluginArgs) -> Result<Self, Failure> {
        let source = Source::read(path, Kind::Manifest)?;
        let manifest = source
            .manifest()
            .map_err(|problems| files::refused(Kind::Manifest, &problems))?;
        let (policy, used) = policy(args.grants.policy.as_deref())?;
        let places = files::places(&source.path, &manifest, args.grants.data_dir.as_deref())?;
        let decision = policy.decide(&manifest, &places);
        Ok(Self {
            file: source.name(),
            policy: used,
            decision,
            manifest,
            places,
        })
    }

    /// Makes the directory for the plugin's data, if something in it is granted.
    /// Where that fails, the grant cannot be served, which is said then.
    fn make_data_dir(&self) {
        use std::os::unix::fs::DirBuilderExt as _;
        let grants = self.decision.grants();
        let dir = self.places.data_dir();
        if grants
            .filesystem()
            .iter()
            .any(|grant| grant.path().starts_with(dir))
        {
            let mut builder = std::fs::DirBuilder::new();
            let _ = builder.recursive(true).mode(0o700).create(dir);
        }
    }

    /// The program that the manifest names: the first candidate that exists.
    ///
    /// # Errors
    /// `entrypoint-not-found`.
    pub(crate) fn program(&self) -> Result<PathBuf, Failure> {
        let folder = self.places.plugin_dir();
        let name = folder.file_name().and_then(|name| name.to_str());
        let entrypoint = self.manifest.entrypoint();
        let candidates = entrypoint.candidates(name.unwrap_or_default());
        let found = candidates.iter().map(|candidate| folder.join(candidate));
        if let Some(program) = found.into_iter().find(|path| path.is_file()) {
            return Ok(program);
        }
        let plugin = self.manifest.name();
        let message = format!("plugin `{plugin}` has no program at its entrypoint");
        let mut failure =
            Failure::new(Exit::NotStarted, "entrypoint-not-found", message).note(format!(
                "{} names `{}`",
                self.file,
                printable(&entrypoint.to_string())
            ));
        for candidate in &candidates {
            let tried = folder.join(candidate).display().to_string();
            failure = failure.note(format!("`{}` does not exist", printable(&tried)));
        }
        let wanted = Path::new(entrypoint.as_str()).file_name();
        let wanted = wanted.unwrap_or_default().to_string_lossy();
        let present = beside(&folder.join(candidates.first().unwrap_or(&"")));
        let alike: Vec<String> = near(&wanted, present.iter().map(String::as_str))
            .iter()
            .map(|name| format!("`{}`", printable(name)))
            .collect();
        if !alike.is_empty() {
            failure = failure.note(format!("its folder contains {}", alike.join(", ")));
        }
        Err(failure.help("build it, correct `plugin.entrypoint`, or name a program after `--`"))
    }
}

/// The names in the folder in which `program` should be.
fn beside(program: &Path) -> Vec<String> {
    let entries = program.parent().and_then(|folder| folder.read_dir().ok());
    let names = entries.into_iter().flatten().take(1000);
    names
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// The policy of a file, or the one that grants what is asked.
///
/// # Errors
/// `policy-unreadable` and `policy-invalid`.
fn policy(path: Option<&Path>) -> Result<(Policy, PolicyUsed), Failure> {
    let Some(path) = path else {
        return Ok((Policy::allow_requested(), PolicyUsed::AllowRequested));
    };
    let source = Source::read(path, Kind::Policy)?;
    let policy = source
        .policy()
        .map_err(|problems| files::refused(Kind::Policy, &problems))?;
    Ok((policy, PolicyUsed::File(source.name())))
}

/// The command line completed by the manifest: what it leaves out of the
/// handshake and the program come from there.
///
/// # Errors
/// What is wrong with the manifest, the policy, a place, or the audit file;
/// `entrypoint-not-found`.
pub(crate) fn complete(args: &PluginArgs) -> Result<Target, Failure> {
    let granting = Granting::of(args)?;
    let mut args = args.clone();
    let mut by_manifest = ByManifest::default();
    if let Some(known) = &granting.manifest {
        let manifest = &known.manifest;
        let handshake = manifest.handshake();
        args.cookie.get_or_insert_with(|| {
            MagicCookie::new(handshake.magic_cookie_key(), handshake.magic_cookie_value())
        });
        if args.app_versions.is_empty() {
            args.app_versions = vec![handshake.protocol_version()];
        }
        by_manifest = ByManifest {
            protocol: args.protocol.is_none(),
            auto_mtls: !args.auto_mtls,
        };
        // What runs already was started by another host, without this one's certificate.
        args.auto_mtls |= manifest.auto_mtls() == Some(true) && args.reattach.is_none();
        args.protocol.get_or_insert(match manifest.format() {
            Format::Rpc => Transport::NetRpc,
            Format::Grpc => Transport::Grpc,
        });
        if args.program.is_empty() && args.reattach.is_none() {
            args.program = vec![known.program()?.into()];
        }
        let sandbox = known.decision.grants().sandbox();
        if sandbox != SandboxMode::Off {
            output::note(&format!(
                "the plugin is not confined here (`sandbox: {sandbox}`): \
                 its grants hold for what it asks of the host"
            ));
        }
    }
    Ok(Target {
        args,
        by_manifest,
        granting,
    })
}
