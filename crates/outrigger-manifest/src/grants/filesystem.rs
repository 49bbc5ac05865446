//! Granted files, and verdicts on single operations on them.
//!
//! A decision compares texts. Where links lead, only the machine knows: whoever takes a granted
//! path finds out, and asks here whether the policy grants that place as well.

use std::path::{Path, PathBuf};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::real_paths::RealPaths;
use crate::choices::{Access, Capability};
use crate::denial::{Denial, DenialKind};
use crate::entries::{FilesystemEntry, filesystem_text};
use crate::path::{Area, Places, clean_absolute};
use crate::permissions::Permissions;
use crate::rule::{NO_RULE, Rule, Rules};

/// The granted files, what was refused with the reason, and the rules that also hold where the
/// granted paths lead.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct FilesystemGrants {
    pub(crate) granted: Vec<FilesystemGrant>,
    pub(crate) refused: Vec<(FilesystemGrant, String)>,
    pub(crate) rules: Rules<FilesystemRule>,
}

/// A rule of the policy about files, its placeholder filled in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FilesystemRule {
    pub(crate) path: PathBuf,
    pub(crate) recursive: bool,
    pub(crate) permissions: Permissions,
    pub(crate) access: Option<Access>,
}

impl FilesystemRule {
    /// The rule of an entry; `None` where its placeholder stands for nothing. Such a denial has
    /// refused everything already.
    pub(crate) fn new(entry: &FilesystemEntry, places: &Places) -> Option<FilesystemRule> {
        Some(FilesystemRule {
            path: entry.path.expand(places)?,
            recursive: entry.recursive,
            permissions: entry.permissions,
            access: entry.access,
        })
    }

    pub(crate) fn area(&self) -> Area<'_> {
        self.area_at(&self.path)
    }

    fn area_at<'p>(&self, path: &'p Path) -> Area<'p> {
        Area {
            path,
            recursive: self.recursive,
        }
    }

    /// Whether the rule, a denial, means what the grant lets a plugin do.
    fn denies(&self, grant: &FilesystemGrant) -> bool {
        let access = match (self.access, grant.access) {
            (Some(Access::Direct), Access::Mediated) => false,
            (Some(Access::Direct), Access::Direct) | (Some(Access::Mediated) | None, _) => true,
        };
        access && !(grant.permissions & self.permissions).is_empty()
    }

    /// Whether the rule, which allows, allows the access of the grant in the whole area.
    fn allows(&self, grant: &FilesystemGrant, area: Area<'_>, real: &dyn RealPaths) -> bool {
        (self.access == Some(Access::Direct) || grant.access == Access::Mediated)
            && real
                .allowed(&self.path)
                .is_some_and(|path| self.area_at(&path).contains(area))
    }
}

impl FilesystemGrants {
    /// See [`Grants::filesystem_verdict`](crate::Grants::filesystem_verdict).
    pub(crate) fn verdict(
        &self,
        path: &Path,
        needs: Permissions,
    ) -> Result<&FilesystemGrant, Denial> {
        let operation = if needs.is_empty() {
            "use".to_owned()
        } else {
            needs.to_string()
        };
        let shown = path.to_string_lossy();
        let clean = clean_absolute(path).map_err(|why| {
            let kind = DenialKind::BadArgument;
            Denial::new(kind, Capability::Filesystem, &operation, &shown, why)
        })?;
        let listed = !needs.contains(Permissions::LIST)
            || self.granted.iter().any(|grant| grant.lists(&clean));
        let fits = |grant: &&FilesystemGrant| {
            listed && grant.area().covers(&clean) && grant.permissions.contains(needs)
        };
        let mut best: Option<&FilesystemGrant> = None;
        for grant in self.granted.iter().filter(fits) {
            if best.is_none_or(|best| grant.rank() > best.rank()) {
                best = Some(grant);
            }
        }
        best.ok_or_else(|| self.denial(&clean, needs, &operation, &shown))
    }

    fn denial(&self, path: &Path, needs: Permissions, operation: &str, shown: &str) -> Denial {
        let refused = self.refused.iter().find(|(refused, _)| {
            refused.area().covers(path) && !(refused.permissions & needs).is_empty()
        });
        let wanted = if needs.is_empty() {
            Permissions::READ
        } else {
            needs
        };
        let missing = filesystem_text(&path.to_string_lossy(), wanted, false, Access::Mediated);
        Denial::not_granted(
            Capability::Filesystem,
            operation,
            shown,
            refused.map(|(_, rule)| rule.as_str()),
            format!("capabilities.filesystem: {missing}"),
        )
    }

    /// See [`Grants::filesystem_place`](crate::Grants::filesystem_place).
    pub(crate) fn place(
        &self,
        grant: &FilesystemGrant,
        place: &Path,
        real: &dyn RealPaths,
    ) -> Result<(), Denial> {
        let operation = grant.permissions.to_string();
        let denial = |kind, rule| {
            let shown = place.to_string_lossy();
            Denial::new(kind, Capability::Filesystem, &operation, &shown, rule)
        };
        let clean = clean_absolute(place).map_err(|why| denial(DenialKind::BadArgument, why))?;
        let area = Area {
            path: &clean,
            recursive: grant.recursive,
        };
        for rule in self
            .rules
            .deny
            .iter()
            .filter(|rule| rule.entry.denies(grant))
        {
            let leads_to = real.denied(&rule.entry.path);
            if area.touches(rule.entry.area()) || area.touches(rule.entry.area_at(&leads_to)) {
                return Err(denial(DenialKind::RefusedByPolicy, rule.name.clone()));
            }
        }
        let allowed = || -> Permissions {
            let rules = self.rules.allowed();
            let rules = rules.filter(|rule| rule.allows(grant, area, real));
            rules.map(|rule| rule.permissions).collect()
        };
        if self.rules.allow_anything() || allowed().contains(grant.permissions) {
            Ok(())
        } else {
            Err(denial(DenialKind::NotGranted, NO_RULE.to_owned()))
        }
    }
}

/// A granted part of the file tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemGrant {
    pub(crate) index: usize,
    pub(crate) path: PathBuf,
    pub(crate) permissions: Permissions,
    pub(crate) recursive: bool,
    pub(crate) access: Access,
    pub(crate) rule: Rule,
}

impl FilesystemGrant {
    /// Its place in [`Grants::filesystem`].
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The path, absolute and lexically clean.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What may be done there, including what grants that contain this one permit.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Whether everything below is granted, or only the path and its direct entries.
    #[must_use]
    pub fn recursive(&self) -> bool {
        self.recursive
    }

    /// Whether the plugin reaches it through the host or by itself. Direct grants are recursive.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Which request and rule it comes from.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Whether a clean absolute path lies in the granted part of the tree.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        self.area().covers(path)
    }

    pub(crate) fn area(&self) -> Area<'_> {
        Area {
            path: &self.path,
            recursive: self.recursive,
        }
    }

    /// Whether what is in the directory at a clean absolute path may be shown.
    fn lists(&self, path: &Path) -> bool {
        let whole = self.recursive || self.path == path;
        whole && self.covers(path) && self.permissions.contains(Permissions::LIST)
    }

    fn rank(&self) -> (usize, bool) {
        (self.path.components().count(), self.recursive)
    }

    pub(crate) fn text(&self) -> String {
        filesystem_text(
            &self.path.to_string_lossy(),
            self.permissions,
            self.recursive,
            self.access,
        )
    }
}

impl Serialize for FilesystemGrant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("FilesystemGrant", 5)?;
        state.serialize_field("path", &self.path.to_string_lossy())?;
        state.serialize_field("permissions", &self.permissions)?;
        state.serialize_field("recursive", &self.recursive)?;
        state.serialize_field("access", &self.access)?;
        state.serialize_field("rule", &self.rule)?;
        state.end()
    }
}
