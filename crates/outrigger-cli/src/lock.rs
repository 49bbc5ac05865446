//! `outrigger lock`: what the lock file makes of the plugins that are installed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use outrigger::{
    Approval, Error, ErrorKind, Grave, LockFile, LockMode, LockVerdict, Objection, Plugin, Plugins,
    Policy, RequestChanges, Settings,
};
use serde::Serialize;

use crate::args::{Configured, LockArgs};
use crate::failure::{Exit, Failure, printable};
use crate::files::failure;
use crate::{json, output};

/// Judges every plugin of the folder, and records what needs nobody's approval.
///
/// # Errors
/// `needs-approval` and `lock-differs` after the plugins were printed, `plugins-unusable` if one
/// cannot be used; what is wrong with the folder or the lock file.
pub(crate) fn run(args: &LockArgs) -> Result<(), Failure> {
    let Places { folder, lock: path } = Places::of(
        &args.configured,
        args.folder.as_deref(),
        args.lock_file.as_deref(),
    )?;
    let file = LockFile::new(&path);
    let unusable = |error: outrigger::LockError| failure(&Error::from(error));
    if !args.check && file.resolve_merge().map_err(unusable)? {
        output::note("the lock file was in the middle of a merge: what both sides have is kept");
    }
    let mode = match args.check {
        true => LockMode::Locked,
        false => LockMode::TrustFirst,
    };
    let plugins = settings(&path, mode).open(&folder);
    let plugins = plugins.map_err(|error| failure(&error))?;
    let rows: Result<Vec<Row>, Failure> = plugins
        .entries()
        .iter()
        .map(|entry| match entry.plugin() {
            Ok(plugin) => Row::of(plugin, args.check),
            Err(error) => Ok(Row::broken(entry.name(), error)),
        })
        .collect();
    let rows = rows?;
    let report = Report {
        lock: printable(&path.display().to_string()),
        mode: mode.as_str(),
        not_installed: not_installed(&file, &plugins).map_err(unusable)?,
        error: verdict(&rows),
        plugins: rows,
    };
    if args.json {
        let text = json::pretty(&report).unwrap_or_else(|_| "null".to_owned());
        output::plain(&(text + "\n"))?;
    } else {
        output::text(&report.text())?;
    }
    report.error.map_or(Ok(()), Err)
}

/// Where the plugins are, and where the lock file is.
pub(crate) struct Places {
    pub(crate) folder: PathBuf,
    pub(crate) lock: PathBuf,
}

impl Places {
    /// What is given on the command line, and else what the configuration says.
    ///
    /// # Errors
    /// `configuration-invalid` and `configuration-unreadable`.
    pub(crate) fn of(
        configured: &Configured,
        folder: Option<&Path>,
        lock: Option<&Path>,
    ) -> Result<Self, Failure> {
        let configuration = configured.configure().read();
        let configuration = configuration.map_err(|error| failure(&error))?;
        let lock = lock.or(configuration.lock().file.as_deref());
        let folder = folder.unwrap_or(&configuration.directories().plugins_dir);
        Ok(Self {
            lock: match lock {
                Some(path) => path.to_owned(),
                None => LockFile::in_folder(folder).path().to_owned(),
            },
            folder: folder.to_owned(),
        })
    }
}

/// What decides over plugins that nobody starts: only the lock file counts.
pub(crate) fn settings(lock: &Path, mode: LockMode) -> Settings {
    Settings::new()
        .policy(Policy::allow_requested())
        .lock_file(lock)
        .lock_mode(mode)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    lock: String,
    mode: &'static str,
    plugins: Vec<Row>,
    not_installed: Vec<Absent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

/// A plugin that is installed.
#[derive(Serialize)]
struct Row {
    name: String,
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// A word of [`LockVerdict`], or `broken`.
    verdict: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    objection: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

/// An objection, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) why: &'static str,
    pub(crate) changes: RequestChanges,
    pub(crate) grave: Vec<Grave>,
    #[serde(skip)]
    phrase: &'static str,
}

/// A version that is locked and not installed.
#[derive(Serialize)]
struct Absent {
    name: String,
    version: Option<String>,
}

impl Shown {
    pub(crate) fn new(objection: &Objection) -> Self {
        Self {
            why: objection.why.as_str(),
            changes: objection.changes.clone(),
            grave: objection.grave.clone(),
            phrase: objection.why.phrase(),
        }
    }

    /// What it is, after the plugin's name.
    pub(crate) fn phrase(&self) -> &'static str {
        self.phrase
    }

    /// What is to be looked at, a line for each thing, widenings in colour.
    pub(crate) fn lines(&self) -> Vec<String> {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        let (wide, narrow) = (colour(AnsiColor::Yellow), Style::new().dimmed());
        let mut lines = Vec::new();
        for change in &self.changes {
            match change.why() {
                Some(why) => {
                    lines.push(format!("{wide}{change}{wide:#}"));
                    lines.push(format!("  {why}"));
                }
                None => lines.push(format!("{narrow}{change}{narrow:#}")),
            }
        }
        for Grave { request, why, .. } in &self.grave {
            lines.push(format!("never trusted at first sight: {request}"));
            lines.push(format!("  {why}"));
        }
        lines
    }
}

impl Row {
    /// What the lock file makes of a plugin. Unless it is only a `check`, what is new is recorded.
    ///
    /// # Errors
    /// What is wrong with the lock file.
    fn of(plugin: &Plugin, check: bool) -> Result<Self, Failure> {
        let judged = match check {
            true => plugin.approval(),
            false => plugin.admit(),
        };
        let version = plugin.manifest().version().map(ToString::to_string);
        let row = |digest: String, verdict, objection: Option<&Objection>| Self {
            name: plugin.name().to_owned(),
            version: version.clone(),
            digest: Some(digest),
            verdict,
            objection: objection.map(Shown::new),
            error: None,
        };
        match judged {
            Ok(Some(Approval {
                digest, verdict, ..
            })) => Ok(row(
                digest.to_string(),
                verdict.as_str(),
                verdict.objection(),
            )),
            Ok(None) => Ok(row(String::new(), LockVerdict::Known.as_str(), None)),
            Err(error) => match error.kind() {
                ErrorKind::NotApproved {
                    code, objection, ..
                } => Ok(row(objection.digest.to_string(), code, Some(objection))),
                ErrorKind::Lock(_) => Err(failure(&error)),
                _ => Ok(Self::broken(plugin.name(), &error)),
            },
        }
    }

    fn broken(name: &str, error: &Error) -> Self {
        Self {
            name: printable(name),
            version: None,
            digest: None,
            verdict: "broken",
            objection: None,
            error: Some(failure(error)),
        }
    }
}

/// Versions in the lock file that no folder has.
fn not_installed(file: &LockFile, plugins: &Plugins) -> Result<Vec<Absent>, outrigger::LockError> {
    let installed = |locked: &outrigger::Locked| {
        plugins.entries().iter().any(|entry| {
            entry.plugin().is_ok_and(|plugin| {
                let manifest = plugin.manifest();
                manifest.name() == locked.name() && manifest.version() == locked.version()
            })
        })
    };
    let lock = file.read()?;
    let absent = lock.plugins().filter(|locked| !installed(locked));
    Ok(absent
        .map(|locked| Absent {
            name: locked.name().to_string(),
            version: locked.version().map(ToString::to_string),
        })
        .collect())
}

/// The failure of the whole, if any plugin is not just what is locked.
fn verdict(rows: &[Row]) -> Option<Failure> {
    let with = |word: &str| {
        let rows = rows.iter().filter(move |row| row.verdict == word);
        rows.map(|row| row.name.as_str()).collect::<Vec<_>>()
    };
    let one = |names: &[&str], one: &str, many: &str| match names {
        [name] => format!("plugin `{name}` {one}"),
        names => format!("{} plugins {many}", names.len()),
    };
    let (needs, differs, broken) = (with("needs-approval"), with("lock-differs"), with("broken"));
    if !needs.is_empty() {
        let message = one(&needs, "needs approval", "need approval");
        let failure = Failure::new(Exit::NeedsApproval, "needs-approval", message);
        return Some(failure.help(format!(
            "review what it asks for, then `outrigger approve {}`",
            needs[0]
        )));
    }
    if !differs.is_empty() {
        let message = one(
            &differs,
            "is not what the lock file says",
            "are not what the lock file says",
        );
        let failure = Failure::new(Exit::NeedsApproval, "lock-differs", message);
        return Some(failure.help(
            "`outrigger lock` records what asks for no more; review the change of the lock file",
        ));
    }
    let message = one(&broken, "cannot be used", "cannot be used");
    (!broken.is_empty()).then(|| {
        let failure = Failure::new(Exit::Failed, "plugins-unusable", message);
        failure.help("mend what is said of it above, or remove its folder")
    })
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        let bold = Style::new().bold();
        let _ = writeln!(text, "{bold}{}{bold:#}", self.lock);
        let width = self.plugins.iter().map(|row| row.title().chars().count());
        let width = width.max().unwrap_or_default().min(40);
        for row in &self.plugins {
            let _ = writeln!(text, "  {:width$}  {}", row.title(), row.outcome(self.mode));
            let lines = row.objection.as_ref().map(Shown::lines).unwrap_or_default();
            for line in lines {
                let _ = writeln!(text, "    {line}");
            }
        }
        for absent in &self.not_installed {
            let title = title(&absent.name, absent.version.as_deref());
            let _ = writeln!(text, "  {title:width$}  is locked and not installed");
        }
        if self.plugins.is_empty() && self.not_installed.is_empty() {
            text.push_str("  no plugins\n");
        }
        text
    }
}

fn title(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("{name} {version}"),
        None => name.to_owned(),
    }
}

impl Row {
    fn title(&self) -> String {
        title(&self.name, self.version.as_deref())
    }

    fn outcome(&self, mode: &str) -> String {
        let checked = mode == LockMode::Locked.as_str();
        match (self.verdict, &self.objection, &self.error) {
            (_, _, Some(error)) => format!("broken: {}", error.message),
            (_, Some(objection), _) => objection.phrase.to_owned(),
            ("first-use", ..) if !checked => "recorded: it is new".to_owned(),
            ("covered", ..) if !checked => "recorded: it changed and asks for no more".to_owned(),
            (word, ..) => word.to_owned(),
        }
    }
}
