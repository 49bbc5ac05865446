//! `outrigger check`: what is wrong with a manifest or a policy, or what is
//! decided about it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use outrigger::{
    FileKind, GrantedServices, Grants, Plugin, Policy, Problems, Refusal, Settings, SourceFile,
};
use outrigger_manifest::Resources;
use serde_json::{Value, json};

use crate::args::CheckArgs;
use crate::failure::{Exit, Failure, printable};
use crate::files;
use crate::granting::PolicyUsed;
use crate::snippet::Listing;
use crate::{json, output};

/// Reads the file, and prints its problems or the decision.
///
/// # Errors
/// `manifest-invalid` and `policy-invalid` after the problems were printed,
/// `not-granted` with `--strict`, and what kept a file from being read.
pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let mut report = Report::default();
    let result = check(args, &mut report);
    if args.json {
        report.object.insert("valid".into(), report.valid.into());
        report
            .object
            .insert("problems".into(), report.problems.into());
        if let Err(failure) = &result {
            report.object.insert("error".into(), json!(failure));
        }
        let text = json::pretty(&report.object).unwrap_or_else(|_| "null".to_owned());
        output::plain(&(text + "\n"))?;
    }
    result
}

/// What is printed with `--json`.
#[derive(Default)]
struct Report {
    object: serde_json::Map<String, Value>,
    problems: Vec<Value>,
    valid: bool,
}

impl Report {
    fn set(&mut self, key: &str, value: Value) {
        self.object.insert(key.to_owned(), value);
    }

    /// Shows the problems of a file, and keeps them for the object.
    fn refuse(&mut self, kind: FileKind, source: &SourceFile, problems: &Problems) -> Failure {
        let listing = files::listing(source);
        for problem in problems {
            output::finding(&files::problem_text(problem, &listing));
            let mut value = json!(problem);
            if let Value::Object(members) = &mut value {
                members.insert("file".to_owned(), source.name().into());
            }
            self.problems.push(value);
        }
        Failure::new(Exit::Failed, kind.invalid(), problems.headline())
    }
}

fn check(args: &CheckArgs, report: &mut Report) -> Result<(), Failure> {
    let source = SourceFile::read(&args.file, FileKind::Manifest)
        .map_err(|error| files::failure(&error.into()))?;
    let kind = files::kind(&source);
    report.set("file", source.name().into());
    report.set("kind", kind.as_str().into());
    match kind {
        FileKind::Manifest => check_manifest(args, &source, report),
        FileKind::Policy if args.policy.is_some() => {
            let message = format!("`{}` is a policy itself", source.name());
            Err(Failure::usage("policy-not-wanted", message)
                .help("name a manifest, or leave `--policy` out"))
        }
        FileKind::Policy => {
            let policy = source
                .policy()
                .map_err(|problems| report.refuse(FileKind::Policy, &source, &problems))?;
            report.valid = true;
            report.set("policy", json!(policy));
            match args.json {
                true => Ok(()),
                false => output::text(&policy_text(&source, &policy)),
            }
        }
    }
}

fn check_manifest(
    args: &CheckArgs,
    source: &SourceFile,
    report: &mut Report,
) -> Result<(), Failure> {
    let policy_source = match &args.policy {
        Some(path) => Some(
            SourceFile::read(path, FileKind::Policy)
                .map_err(|error| files::failure(&error.into()))?,
        ),
        None => None,
    };
    // The problems of both files are shown together.
    let manifest = source
        .manifest()
        .map_err(|problems| report.refuse(FileKind::Manifest, source, &problems));
    let (policy, used) = match &policy_source {
        None => (Ok(Policy::allow_requested()), PolicyUsed::AllowRequested),
        Some(source) => (
            source
                .policy()
                .map_err(|problems| report.refuse(FileKind::Policy, source, &problems)),
            PolicyUsed::File(source.name()),
        ),
    };
    let policy = match (manifest, policy) {
        (Ok(_), Ok(policy)) => policy,
        (Err(manifest), Err(policy)) => {
            return Err(Failure {
                message: format!("{}, and {}", manifest.message, policy.message).into(),
                ..manifest
            });
        }
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => return Err(failure),
    };
    report.valid = true;
    let plugin = Settings::new()
        .policy(policy)
        .plugin_from(source)
        .and_then(|plugin| match &args.data_dir {
            Some(folder) => plugin.with_data_dir(folder),
            None => Ok(plugin),
        })
        .map_err(|error| files::failure(&error))?;
    let services = GrantedServices::new(plugin.decision().grants());
    let found = Found {
        source,
        plugin: &plugin,
        policy: &used,
        program: program(&plugin),
        unusable: services
            .unusable()
            .map(|unusable| printable(&unusable.to_string()))
            .collect(),
        limited: services
            .limited()
            .map(|limited| printable(&limited.to_string()))
            .collect(),
    };
    if args.json {
        found.describe(report);
    } else {
        output::text(&found.text())?;
    }
    match plugin.decision().refused().len() {
        refused if refused > 0 && args.strict => {
            let message = format!(
                "{} of what `{}` asks for {} not granted in full",
                refused,
                plugin.name(),
                if refused == 1 { "is" } else { "are" }
            );
            Err(Failure::new(Exit::Failed, "not-granted", message))
        }
        _ => Ok(()),
    }
}

/// The entrypoint that exists, relative to the folder.
fn program(plugin: &Plugin) -> Option<String> {
    let program = plugin.program().ok()?;
    let within = program.strip_prefix(plugin.places().plugin_dir()).ok()?;
    Some(within.to_str()?.to_owned())
}

/// Everything that is told about a sound manifest.
struct Found<'f> {
    source: &'f SourceFile,
    plugin: &'f Plugin,
    policy: &'f PolicyUsed,
    /// The entrypoint that exists.
    program: Option<String>,
    /// Grants that could not be served here and now.
    unusable: Vec<String>,
    /// Grants that hold places of which not everything is served.
    limited: Vec<String>,
}

impl Found<'_> {
    fn describe(&self, report: &mut Report) {
        let grants = self.plugin.decision().grants();
        let places = self.plugin.places();
        report.set("policy", json!(self.policy));
        report.set("plugin", json!(self.plugin.manifest()));
        report.set("program", json!(self.program));
        report.set(
            "places",
            json!({
                "plugin_dir": places.plugin_dir(),
                "data_dir": places.data_dir(),
                "home": places.home(),
            }),
        );
        report.set(
            "decision",
            json!({
                "complete": self.plugin.decision().is_complete(),
                "granted": self.plugin.decision().granted(),
                "refused": self.plugin.decision().refused(),
                "resources": grants.resources(),
                "services": grants.services().collect::<Vec<_>>(),
                "sandbox": grants.sandbox(),
                "jit": grants.jit(),
            }),
        );
        report.set("unusable", json!(self.unusable));
        report.set("limited", json!(self.limited));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.facts(&mut text);
        self.granted(&mut text);
        self.refused(&mut text);
        self.rest(&mut text);
        text
    }

    fn facts(&self, text: &mut String) {
        let manifest = self.plugin.manifest();
        let version = manifest.version().map(|version| format!(" {version}"));
        let written = manifest
            .language()
            .map(|language| format!(", written in {language}"));
        let plugin = format!(
            "{}{} ({}{})",
            manifest.name(),
            version.unwrap_or_default(),
            match manifest.transport() {
                outrigger::Transport::Grpc => "gRPC",
                outrigger::Transport::NetRpc => "net/rpc",
            },
            written.unwrap_or_default()
        );
        fact(text, "plugin", &plugin);
        fact(text, "manifest", &self.source.name());
        fact(text, "policy", &self.policy.to_string());
        let entrypoint = manifest.entrypoint().as_str();
        let program = match &self.program {
            Some(found) if found == entrypoint => found.clone(),
            Some(found) => format!("{found} (the manifest writes `{entrypoint}`)"),
            None => format!("{entrypoint} (no such program in the folder)"),
        };
        fact(text, "entrypoint", &program);
        let places = self.plugin.places();
        fact(
            text,
            "plugin_dir",
            &places.plugin_dir().display().to_string(),
        );
        fact(text, "data_dir", &places.data_dir().display().to_string());
        let home = places.home().map(|home| home.display().to_string());
        fact(text, "HOME", home.as_deref().unwrap_or("not known here"));
    }

    fn granted(&self, text: &mut String) {
        // Services, limits and the like follow in one place.
        let granted: Vec<_> = self
            .plugin
            .decision()
            .granted()
            .iter()
            .filter(|granted| granted.request.starts_with("capabilities."))
            .collect();
        heading(text, "granted", AnsiColor::Green, granted.len());
        for granted in granted {
            let (request, what) = (printable(&granted.request), printable(&granted.text));
            let dim = Style::new().dimmed();
            let _ = writeln!(text, "  {request}: {what}");
            // Without rules there is one answer for all.
            if *self.policy != PolicyUsed::AllowRequested {
                let _ = writeln!(text, "      {dim}by {}{dim:#}", printable(&granted.rule));
            }
        }
    }

    fn refused(&self, text: &mut String) {
        let refused = self.plugin.decision().refused();
        heading(text, "refused", AnsiColor::Yellow, refused.len());
        let listing = files::listing(self.source);
        for refusal in refused {
            text.push('\n');
            text.push_str(&refusal_text(refusal, &listing));
        }
    }

    fn rest(&self, text: &mut String) {
        let grants = self.plugin.decision().grants();
        text.push('\n');
        fact(text, "limits", &limits(grants.resources()));
        fact(text, "services", &services(&grants));
        let sandbox = match grants.sandbox() {
            outrigger_manifest::SandboxMode::Require => "require: started only fully confined",
            outrigger_manifest::SandboxMode::BestEffort => {
                "best-effort: confined as far as the machine can, saying what is missing"
            }
            outrigger_manifest::SandboxMode::Off => "off: not confined",
        };
        fact(text, "sandbox", sandbox);
        let jit = if grants.jit() { "allowed" } else { "no" };
        fact(text, "jit", jit);
        let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
        for unusable in &self.unusable {
            let _ = writeln!(text, "{yellow}{:<12}{yellow:#} {unusable}", "not served");
        }
        for limited in &self.limited {
            let _ = writeln!(text, "{yellow}{:<12}{yellow:#} {limited}", "in part");
        }
    }
}

fn fact(text: &mut String, label: &str, value: &str) {
    let bold = Style::new().bold();
    let value = printable(value);
    let _ = writeln!(text, "{bold}{label:<12}{bold:#} {value}");
}

fn heading(text: &mut String, label: &str, colour: AnsiColor, count: usize) {
    let style = Style::new().bold().fg_color(Some(colour.into()));
    let _ = match count {
        0 => writeln!(text, "\n{style}{label}{style:#}: nothing"),
        _ => writeln!(text, "\n{style}{label}{style:#} ({count})"),
    };
}

/// One refusal, with the line that asks for it.
fn refusal_text(refusal: &Refusal, listing: &Listing) -> String {
    let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    let bold = Style::new().bold();
    let mut text = format!(
        "{yellow}refused[{}]{yellow:#}{bold}: {}: {}{bold:#}\n",
        refusal.code(),
        printable(&refusal.request),
        printable(&refusal.text)
    );
    let mut remarks = vec![("rule", printable(&refusal.rule))];
    if let Some(narrowed) = &refusal.narrowed_to {
        remarks.push(("granted instead", printable(narrowed)));
    }
    remarks.push(("help", refusal.help().to_owned()));
    text.push_str(&listing.show(refusal.position, "", yellow, &remarks));
    text
}

fn limits(resources: &Resources) -> String {
    let shown = [
        ("memory", resources.memory.map(|size| size.to_string())),
        ("cpu", resources.cpu.map(|cpu| cpu.to_string())),
        ("pids", resources.pids.map(|count| count.to_string())),
        (
            "open_files",
            resources.open_files.map(|count| count.to_string()),
        ),
        (
            "message_size",
            resources.message_size.map(|size| size.to_string()),
        ),
        ("streams", resources.streams.map(|count| count.to_string())),
    ];
    let (set, left): (Vec<_>, Vec<_>) = shown.iter().partition(|(_, limit)| limit.is_some());
    let mut parts: Vec<String> = set
        .iter()
        .filter_map(|(name, limit)| Some(format!("{name} {}", limit.as_ref()?)))
        .collect();
    if !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
        parts.push(match set.is_empty() {
            true => "the host's defaults".to_owned(),
            false => format!("the host's defaults for {}", names.join(", ")),
        });
    }
    parts.join(", ")
}

fn services(grants: &Grants) -> String {
    let names: Vec<&str> = grants.services().map(|service| service.as_str()).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// A sound policy, as it is understood.
fn policy_text(source: &SourceFile, policy: &Policy) -> String {
    let mut text = String::new();
    fact(&mut text, "policy", &source.name());
    fact(&mut text, "problems", "none");
    fact(
        &mut text,
        "understood",
        "as follows; what it does not allow is refused",
    );
    for line in policy.to_yaml().lines() {
        let _ = writeln!(text, "  {}", printable(line));
    }
    text
}
