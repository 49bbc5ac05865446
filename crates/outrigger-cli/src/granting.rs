//! Under which grants the plugin of `inspect` and `call` runs, and what its
//! manifest says about how to start it.

use std::path::Path;

use outrigger::{
    Coded as _, ExpectedDigest, FileKind, GrantedServices, LockFile, LockMode, Manifest, Plugin,
    Policy, SandboxMode, Settings, SourceFile, Transport,
};
use serde::Serialize;

use crate::args::PluginArgs;
use crate::audit::Audit;
use crate::failure::{Exit, Failure, printable};
use crate::files::failure;
use crate::lock::{self, Shown};
use crate::output;

/// Which plugin to start, and under which grants: the command line completed by the manifest.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) args: PluginArgs,
    /// What of the arguments the manifest said.
    pub(crate) by_manifest: ByManifest,
    /// What the manifest's program must hash to, where its folder says so.
    pub(crate) digest: Option<ExpectedDigest>,
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
        if let Some(plugin) = &self.granting.plugin {
            return plugin.name().to_owned();
        }
        if let Some(joined) = &self.args.reattach {
            return printable(&joined.0.address.text);
        }
        let program = self.args.program();
        let name = program.file_name().unwrap_or(program.as_os_str());
        printable(&name.to_string_lossy())
    }
}

/// What the host does for the plugin, and who says so.
#[derive(Clone, Debug)]
pub(crate) struct Granting {
    /// The plugin of `--manifest`.
    pub(crate) plugin: Option<Plugin>,
    policy: PolicyUsed,
    pub(crate) services: GrantedServices,
    pub(crate) audit: Audit,
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
    /// What the lock file beside the plugin's folder makes of it, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lock: Option<LockSummary>,
}

/// For the object that `inspect --json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LockSummary {
    pub(crate) file: String,
    /// `known`, `needs-approval`, or the code of what is wrong with the file.
    pub(crate) verdict: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) objection: Option<Shown>,
}

impl LockSummary {
    fn of(plugin: &Plugin) -> Option<Self> {
        let folder = plugin.places().plugin_dir();
        let path = LockFile::in_folder(folder.parent()?).path().to_owned();
        if plugin.file().is_none() || !path.exists() {
            return None;
        }
        // In this mode it is known only if it is just as it was approved.
        let settings = lock::settings(&path, LockMode::Strict);
        let judged = settings
            .open_plugin(folder)
            .and_then(|plugin| plugin.approval());
        let (verdict, objection) = match &judged {
            Ok(approval) => {
                let verdict = approval.as_ref().map(|approval| &approval.verdict)?;
                (verdict.as_str(), verdict.objection().map(Shown::new))
            }
            Err(error) => (error.code(), None),
        };
        Some(Self {
            file: printable(&path.display().to_string()),
            verdict,
            objection,
        })
    }
}

impl Granting {
    /// Decides over the manifest that the command line names; grants nothing without one.
    ///
    /// # Errors
    /// What is wrong with the manifest, the policy, a place, or the audit file.
    fn of(args: &PluginArgs) -> Result<Self, Failure> {
        let audit = Audit::new(&args.grants.audit)?;
        let grants = &args.grants;
        let (settings, policy) = settings(grants.policy.as_deref())?;
        let plugin = grants.manifest.as_deref().map(|path| {
            let plugin = settings.open_plugin(path)?;
            match &grants.data_dir {
                Some(folder) => plugin.with_data_dir(folder),
                None => Ok(plugin),
            }
        });
        let plugin = plugin.transpose().map_err(|error| failure(&error))?;
        let services = match &plugin {
            Some(plugin) => plugin.services(),
            None => nothing()?,
        };
        for unusable in services.unusable() {
            output::note(&format!(
                "{}: requests for it will be refused",
                printable(&unusable.to_string())
            ));
        }
        Ok(Self {
            plugin,
            policy,
            services: services.audit(audit.log()),
            audit,
        })
    }

    /// For the object that `inspect --json` prints.
    pub(crate) fn summary(&self) -> Option<Summary> {
        self.plugin.as_ref().map(|plugin| {
            let decision = plugin.decision();
            let file = plugin.file().unwrap_or(Path::new(""));
            Summary {
                file: printable(&file.display().to_string()),
                policy: self.policy.clone(),
                granted: decision.granted().len(),
                refused: decision.refused().len(),
                sandbox: decision.grants().sandbox(),
                lock: LockSummary::of(plugin),
            }
        })
    }
}

/// What is served to a plugin without a manifest.
fn nothing() -> Result<GrantedServices, Failure> {
    let broken = |error: String| {
        Failure::new(Exit::Internal, "runtime-failed", "no grants could be made").note(error)
    };
    let manifest = Manifest::builder("unnamed", Transport::Grpc, "unnamed")
        .handshake(1, "UNNAMED", "unnamed")
        .services([])
        .build()
        .map_err(|problems| broken(problems.to_string()))?;
    let plugin = Settings::new().plugin(manifest, "/nonexistent");
    let plugin = plugin.map_err(|error| broken(error.to_string()))?;
    Ok(plugin.services())
}

/// The policy of a file, or the one that grants what is asked.
///
/// # Errors
/// `policy-unreadable` and `policy-invalid`.
fn settings(policy: Option<&Path>) -> Result<(Settings, PolicyUsed), Failure> {
    let settings = Settings::new().start_with_less();
    let Some(path) = policy else {
        let settings = settings.policy(Policy::allow_requested());
        return Ok((settings, PolicyUsed::AllowRequested));
    };
    let source =
        SourceFile::read(path, FileKind::Policy).map_err(|error| failure(&error.into()))?;
    let settings = settings.policy_from(&source);
    let settings = settings.map_err(|error| failure(&error))?;
    Ok((settings, PolicyUsed::File(source.name())))
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
    let mut digest = None;
    if let Some(plugin) = &granting.plugin {
        let manifest = plugin.manifest();
        let handshake = manifest.handshake();
        args.cookie.get_or_insert_with(|| plugin.cookie());
        if args.app_versions.is_empty() {
            args.app_versions = vec![handshake.protocol_version()];
        }
        by_manifest = ByManifest {
            protocol: args.protocol.is_none(),
            auto_mtls: !args.auto_mtls,
        };
        // What runs already was started by another host, without this one's certificate.
        args.auto_mtls |= manifest.auto_mtls() == Some(true) && args.reattach.is_none();
        args.protocol.get_or_insert(manifest.transport());
        if args.program.is_empty() && args.reattach.is_none() {
            let program = plugin.program().map_err(|error| failure(&error))?;
            digest = plugin
                .expected_digest(&program)
                .map_err(|error| failure(&error))?;
            args.program = vec![program.into()];
        }
        let sandbox = plugin.decision().grants().sandbox();
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
        digest,
        granting,
    })
}
