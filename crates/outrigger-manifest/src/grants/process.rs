//! Granted commands, and verdicts on single ones.

use std::path::{Path, PathBuf};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::real_paths::RealPaths;
use crate::arguments::ArgPattern;
use crate::choices::{Capability, ProcessControl};
use crate::denial::{Denial, DenialKind};
use crate::entries::{ExecEntry, exec_text};
use crate::flow::list_text;
use crate::path::{Places, clean_absolute};
use crate::rule::{NO_RULE, Rule, Rules};

/// A granted command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecGrant {
    pub(crate) command: PathBuf,
    pub(crate) args: ArgPattern,
    pub(crate) rule: Rule,
}

impl ExecGrant {
    /// The program, as an absolute, lexically clean path.
    #[must_use]
    pub fn command(&self) -> &Path {
        &self.command
    }

    /// The arguments it may be run with.
    #[must_use]
    pub fn args(&self) -> &ArgPattern {
        &self.args
    }

    /// Which request and rule it comes from.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    pub(crate) fn text(&self) -> String {
        exec_text(&self.command.to_string_lossy(), &self.args.to_string())
    }
}

impl Serialize for ExecGrant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("ExecGrant", 3)?;
        state.serialize_field("command", &self.command.to_string_lossy())?;
        state.serialize_field("args", &self.args)?;
        state.serialize_field("rule", &self.rule)?;
        state.end()
    }
}

/// Granted commands, and control over the processes the plugin started with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessGrants {
    pub(crate) exec: Vec<ExecGrant>,
    pub(crate) control: Vec<(ProcessControl, Rule)>,
    pub(crate) refused_exec: Vec<(PathBuf, ArgPattern, String)>,
    pub(crate) refused_control: Vec<(ProcessControl, String)>,
    /// The rules that also hold where the granted commands lead.
    pub(crate) rules: Rules<ExecRule>,
}

/// A rule of the policy about commands, its placeholder filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecRule {
    pub(crate) command: PathBuf,
    pub(crate) args: ArgPattern,
}

impl ExecRule {
    /// The rule of an entry; `None` where its placeholder stands for nothing.
    pub(crate) fn new(entry: &ExecEntry, places: &Places) -> Option<ExecRule> {
        Some(ExecRule {
            command: entry.command.expand(places)?,
            args: entry.args.clone(),
        })
    }
}

impl ProcessGrants {
    /// The commands that may be run.
    #[must_use]
    pub fn exec_grants(&self) -> &[ExecGrant] {
        &self.exec
    }

    /// Whether a command may be run with these arguments, the program's own name not counted.
    ///
    /// # Errors
    ///
    /// The denial, when no grant names the command with such arguments.
    pub fn exec<S: AsRef<str>>(
        &self,
        command: &str,
        arguments: &[S],
    ) -> Result<&ExecGrant, Denial> {
        let arguments_text = list_text(arguments.iter().map(AsRef::as_ref));
        let shown = format!("{command} {arguments_text}");
        let clean = clean_absolute(Path::new(command)).map_err(|why| {
            let kind = DenialKind::BadArgument;
            Denial::new(kind, Capability::Process, "exec", &shown, why)
        })?;
        let granted = self
            .exec
            .iter()
            .find(|grant| grant.command == clean && grant.args.matches(arguments));
        granted.ok_or_else(|| {
            let refused = self
                .refused_exec
                .iter()
                .find(|(path, args, _)| *path == clean && args.matches(arguments));
            let missing = exec_text(&clean.to_string_lossy(), &arguments_text);
            Denial::not_granted(
                Capability::Process,
                "exec",
                &shown,
                refused.map(|(_, _, rule)| rule.as_str()),
                format!("capabilities.process.exec: {missing}"),
            )
        })
    }

    /// See [`Grants::exec_place`](crate::Grants::exec_place).
    pub(crate) fn place(
        &self,
        grant: &ExecGrant,
        place: &Path,
        real: &dyn RealPaths,
    ) -> Result<(), Denial> {
        let denial = |kind, rule| {
            let shown = place.to_string_lossy();
            Denial::new(kind, Capability::Process, "exec", &shown, rule)
        };
        let place = clean_absolute(place).map_err(|why| denial(DenialKind::BadArgument, why))?;
        for rule in &self.rules.deny {
            let command = &rule.entry.command;
            let same = *command == place || real.denied(command) == place;
            if same && grant.args.touched_by(&rule.entry.args) {
                return Err(denial(DenialKind::RefusedByPolicy, rule.name.clone()));
            }
        }
        let allows = |rule: &ExecRule| {
            grant.args.intersection(&rule.args).as_ref() == Some(&grant.args)
                && real.allowed(&rule.command).as_deref() == Some(&place)
        };
        if self.rules.allow_anything() || self.rules.allowed().any(allows) {
            Ok(())
        } else {
            Err(denial(DenialKind::NotGranted, NO_RULE.to_owned()))
        }
    }

    /// Whether the plugin may do this to processes it started; never to any other.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn control(&self, control: ProcessControl) -> Result<&Rule, Denial> {
        if let Some((_, rule)) = self.control.iter().find(|(granted, _)| *granted == control) {
            return Ok(rule);
        }
        let refused = self
            .refused_control
            .iter()
            .find(|(refused, _)| *refused == control);
        Err(Denial::not_granted(
            Capability::Process,
            control.as_str(),
            "children",
            refused.map(|(_, rule)| rule.as_str()),
            format!("capabilities.process.{control}: [children]"),
        ))
    }

    /// Whether the plugin may end processes it started.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn kill(&self) -> Result<&Rule, Denial> {
        self.control(ProcessControl::Kill)
    }

    /// Whether the plugin may see the processes it started.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn list(&self) -> Result<&Rule, Denial> {
        self.control(ProcessControl::List)
    }

    /// Whether the plugin may send signals to processes it started.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn signal(&self) -> Result<&Rule, Denial> {
        self.control(ProcessControl::Signal)
    }
}
