//! `outrigger approve`: a person lets a plugin run as it is installed now.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use outrigger::{Approval, AuditLog, AuditRecord, ExpectedDigest, LockMode, LockVerdict, Plugin};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::args::ApproveArgs;
use crate::audit::LARGEST_FILE;
use crate::failure::{Exit, Failure, printable};
use crate::files::failure;
use crate::lock::{Places, Shown, settings};
use crate::{input, json, output};

/// How long the record may take to reach the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shows what is to be approved, asks where a person is there to answer, and approves it.
///
/// # Errors
/// `needs-approval` when nobody said yes, `digest-unexpected` with `--expect`; what is wrong with
/// the plugin or the lock file.
pub(crate) async fn run(args: &ApproveArgs) -> Result<(), Failure> {
    let Places { folder, lock } = Places::of(
        &args.configured,
        args.folder.as_deref(),
        args.lock_file.as_deref(),
    )?;
    // In this mode whatever is not just as it was approved is shown.
    let plugins = settings(&lock, LockMode::Strict).open(&folder);
    let plugins = plugins.map_err(|error| failure(&error))?;
    let plugin = plugins.get(&args.name).map_err(|error| failure(&error))?;
    // What cannot be kept is known before anything is approved.
    let audit = match &args.audit {
        Some(path) => Some(AuditLog::open(path, LARGEST_FILE).map_err(|error| {
            Failure::usage(error.code(), printable(&error.to_string())).caused_by(&error)
        })?),
        None => None,
    };
    let mut report = Report::new(plugin, &lock);
    let result = approve(args, plugin, audit.as_ref(), &mut report).await;
    if args.json {
        report.error = result.as_ref().err().cloned();
        let text = json::pretty(&report).unwrap_or_else(|_| "null".to_owned());
        output::plain(&(text + "\n"))?;
    } else if result.is_ok() {
        output::text(&report.text())?;
    }
    result
}

async fn approve(
    args: &ApproveArgs,
    plugin: &Plugin,
    audit: Option<&AuditLog>,
    report: &mut Report,
) -> Result<(), Failure> {
    let now = judged(plugin, report)?;
    let expected = match &args.expect {
        Some(expected) => expected.clone(),
        None if now.verdict == LockVerdict::Known => return Ok(()),
        None => {
            asked(args, report).await?;
            // What was shown is what is approved.
            now.digest.clone()
        }
    };
    let approved = plugin.approve(Some(&expected));
    approved.map_err(|error| failure(&error))?;
    if now.verdict == LockVerdict::Known {
        return Ok(());
    }
    report.approved = true;
    if let Some(audit) = audit {
        audit.add(record(plugin, &expected, report));
        if !audit.flush(PATIENCE) || audit.dropped() > 0 {
            output::note("the record of the approval could not be written");
        }
    }
    Ok(())
}

/// What the lock file makes of the plugin now.
fn judged(plugin: &Plugin, report: &mut Report) -> Result<Approval, Failure> {
    let approval = plugin.approval().map_err(|error| failure(&error))?;
    let without = || Failure::new(Exit::Internal, "runtime-failed", "there is no lock file");
    let approval = approval.ok_or_else(without)?;
    report.digest = Some(approval.digest.to_string());
    report.was = approval.verdict.as_str();
    report.objection = approval.verdict.objection().map(Shown::new);
    Ok(approval)
}

/// Asks the person at the terminal.
///
/// # Errors
/// `needs-approval` when nobody is there, or says anything but yes.
async fn asked(args: &ApproveArgs, report: &Report) -> Result<(), Failure> {
    let digest = report.digest.as_deref().unwrap_or_default();
    let refused = |message: String| {
        Failure::new(Exit::NeedsApproval, "needs-approval", message).help(format!(
            "`outrigger approve {} --expect {digest}` approves just this",
            args.name
        ))
    };
    let name = &args.name;
    let somebody = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !args.json {
        output::finding(report.question().trim_end());
    }
    if args.json || !somebody {
        return Err(refused(format!(
            "plugin `{name}` was not approved: nobody was asked"
        )));
    }
    output::ask("approve this? [y/N] ");
    let (answer, answered) = oneshot::channel();
    input::beside(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        // The command may have ended.
        let _ = answer.send(read.map(|_| line));
    })?;
    let answer = answered.await.ok().and_then(Result::ok).unwrap_or_default();
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused(format!("plugin `{name}` was not approved"))),
    }
}

/// Who approved what.
fn record(plugin: &Plugin, digest: &ExpectedDigest, report: &Report) -> AuditRecord {
    let who = format!("uid {}", rustix::process::getuid().as_raw());
    let changes = report.objection.iter().flat_map(|shown| &shown.changes);
    let mut what: Vec<String> = report
        .version
        .iter()
        .map(|v| format!("version {v}"))
        .collect();
    what.extend(changes.map(ToString::to_string));
    AuditRecord::by_person(&who, plugin.name(), "approval", "approve", &what.join("; "))
        .with_digest(&digest.to_string())
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    plugin: String,
    version: Option<String>,
    lock: String,
    digest: Option<String>,
    /// What the lock file made of it before.
    was: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    objection: Option<Shown>,
    /// Whether it was approved now.
    approved: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

impl Report {
    fn new(plugin: &Plugin, lock: &Path) -> Self {
        Self {
            plugin: plugin.name().to_owned(),
            version: plugin.manifest().version().map(ToString::to_string),
            lock: printable(&lock.display().to_string()),
            digest: None,
            was: "unknown",
            objection: None,
            approved: false,
            error: None,
        }
    }

    fn title(&self) -> String {
        match &self.version {
            Some(version) => format!("{} {version}", self.plugin),
            None => self.plugin.clone(),
        }
    }

    /// What is to be approved.
    fn question(&self) -> String {
        let bold = anstyle::Style::new().bold();
        let mut text = String::new();
        let phrase = self.objection.as_ref().map_or("", Shown::phrase);
        let _ = writeln!(text, "{bold}{}{bold:#} {phrase}", self.title());
        for line in self.objection.iter().flat_map(Shown::lines) {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(
            text,
            "  program {}",
            self.digest.as_deref().unwrap_or_default()
        );
        text
    }

    fn text(&self) -> String {
        let (title, lock) = (self.title(), &self.lock);
        match self.approved {
            true => format!("approved {title} in {lock}\n"),
            false => format!("{title} is approved in {lock} already\n"),
        }
    }
}
