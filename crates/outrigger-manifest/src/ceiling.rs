//! What the policy says about the place that a granted path really leads to.
//!
//! A decision compares texts. Where links lead, only the machine knows: whoever takes a granted
//! path finds out, and asks here whether the policy grants that place as well.

use std::path::{Path, PathBuf};

use crate::args::ArgPattern;
use crate::denial::{Denial, DenialKind};
use crate::grants::{ExecGrant, FilesystemGrant};
use crate::path::{Area, clean_absolute};
use crate::permissions::Permissions;
use crate::words::{Access, Capability};

/// How the rule of a [`Denial`] reads where nothing allows it.
pub(crate) const NO_RULE: &str = "no rule of the policy allows it";

/// Where the paths of a policy's rules lead on this machine.
pub trait RealPaths {
    /// Where a denied path leads, every link followed; what does not exist is spelled beneath
    /// the last directory that does.
    fn denied(&self, path: &Path) -> PathBuf;

    /// Where an allowed path leads. `None` when a link on the way may have been made by the very
    /// plugin, which must not choose what it is allowed.
    fn allowed(&self, path: &Path) -> Option<PathBuf>;
}

/// The rules about files and commands that hold for one plugin, their placeholders filled in.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ceiling {
    pub(crate) filesystem: Sides<FilesystemRule>,
    pub(crate) exec: Sides<ExecRule>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Sides<T> {
    /// Some section allows whatever is asked for.
    pub(crate) anything: bool,
    pub(crate) allow: Vec<T>,
    pub(crate) deny: Vec<T>,
}

impl<T> Default for Sides<T> {
    fn default() -> Self {
        Sides {
            anything: false,
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FilesystemRule {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) recursive: bool,
    pub(crate) permissions: Permissions,
    pub(crate) access: Option<Access>,
}

impl FilesystemRule {
    pub(crate) fn area(&self) -> Area<'_> {
        self.area_at(&self.path)
    }

    fn area_at<'p>(&self, path: &'p Path) -> Area<'p> {
        Area {
            path,
            recursive: self.recursive,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExecRule {
    pub(crate) name: String,
    pub(crate) command: PathBuf,
    pub(crate) args: ArgPattern,
}

impl Ceiling {
    pub(crate) fn filesystem_place(
        &self,
        grant: &FilesystemGrant,
        place: &Path,
        real: &dyn RealPaths,
    ) -> Result<(), Denial> {
        let denial = |kind, rule| Denial {
            kind,
            capability: Capability::Filesystem,
            operation: grant.permissions.to_string(),
            argument: place.to_string_lossy().into_owned(),
            rule,
            missing: None,
        };
        let place = clean_absolute(place).map_err(|why| denial(DenialKind::BadArgument, why))?;
        let area = Area {
            path: &place,
            recursive: grant.recursive,
        };
        let rules = &self.filesystem;
        for rule in &rules.deny {
            let only_direct = rule.access == Some(Access::Direct);
            if (only_direct && grant.access != Access::Direct)
                || (grant.permissions & rule.permissions).is_empty()
            {
                continue;
            }
            let leads_to = real.denied(&rule.path);
            if area.touches(rule.area()) || area.touches(rule.area_at(&leads_to)) {
                return Err(denial(DenialKind::RefusedByPolicy, rule.name.clone()));
            }
        }
        let allows = |rule: &&FilesystemRule| {
            (rule.access == Some(Access::Direct) || grant.access == Access::Mediated)
                && real
                    .allowed(&rule.path)
                    .is_some_and(|path| rule.area_at(&path).contains(area))
        };
        let allowed = || -> Permissions {
            let rules = rules.allow.iter().filter(allows);
            rules.map(|rule| rule.permissions).collect()
        };
        if rules.anything || allowed().contains(grant.permissions) {
            Ok(())
        } else {
            Err(denial(DenialKind::NotGranted, NO_RULE.to_owned()))
        }
    }

    pub(crate) fn exec_place(
        &self,
        grant: &ExecGrant,
        place: &Path,
        real: &dyn RealPaths,
    ) -> Result<(), Denial> {
        let denial = |kind, rule| Denial {
            kind,
            capability: Capability::Process,
            operation: "exec".to_owned(),
            argument: place.to_string_lossy().into_owned(),
            rule,
            missing: None,
        };
        let place = clean_absolute(place).map_err(|why| denial(DenialKind::BadArgument, why))?;
        let rules = &self.exec;
        for rule in &rules.deny {
            let same = rule.command == place || real.denied(&rule.command) == place;
            if same && grant.args.touched_by(&rule.args) {
                return Err(denial(DenialKind::RefusedByPolicy, rule.name.clone()));
            }
        }
        let allowed = || {
            rules.allow.iter().any(|rule| {
                grant.args.intersection(&rule.args).as_ref() == Some(&grant.args)
                    && real.allowed(&rule.command).as_deref() == Some(&place)
            })
        };
        if rules.anything || allowed() {
            Ok(())
        } else {
            Err(denial(DenialKind::NotGranted, NO_RULE.to_owned()))
        }
    }
}
