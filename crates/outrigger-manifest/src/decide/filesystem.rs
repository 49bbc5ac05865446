//! Decides about files.

use std::path::PathBuf;

use super::Decider;
use super::decision::Reason;
use crate::choices::Access;
use crate::entries::FilesystemEntry;
use crate::grants::{FilesystemGrant, FilesystemGrants, FilesystemRule};
use crate::permissions::Permissions;
use crate::rule::{Allowing, Rule, Rules};

impl Decider<'_> {
    pub(super) fn filesystem(&mut self) -> FilesystemGrants {
        let rules = self.rules("filesystem", |rules| &rules.lists.filesystem);
        // Where a denied place is unknown, nobody can tell what lies in it.
        let unknown_denial = self.unknown_denial(&rules.deny, |entry| &entry.path);
        let places = self.places;
        let mut grants = FilesystemGrants {
            rules: rules.filter_map(|entry| FilesystemRule::new(entry, places)),
            ..FilesystemGrants::default()
        };
        for (index, entry) in self
            .requests
            .capabilities
            .lists
            .filesystem
            .iter()
            .enumerate()
        {
            let request = format!("capabilities.filesystem[{index}]");
            let Some(path) = entry.path.expand(places) else {
                let reason = Reason::unknown_place(&entry.path);
                self.refuse(entry.at, &request, entry.text(), &reason, None);
                continue;
            };
            let wanted = wanted(entry, path, &request);
            if let Some(reason) = &unknown_denial {
                self.refuse(entry.at, &request, entry.text(), reason, None);
                grants.refused.push((wanted, reason.against(&request)));
                continue;
            }
            self.files(entry, wanted, &mut grants);
        }
        grants.granted = with_inherited(&grants.granted);
        grants
    }

    /// Decides about one request.
    fn files(
        &mut self,
        entry: &FilesystemEntry,
        wanted: FilesystemGrant,
        grants: &mut FilesystemGrants,
    ) {
        let judged = Judged::new(&wanted, &grants.rules);
        for grant in &judged.grants {
            self.grant(&grant.rule, grant.text());
        }
        let request = &*wanted.rule.request;
        for (permissions, reason) in judged.refused(&wanted) {
            let mut shares = judged.grants.iter();
            let narrowed = shares.find(|grant| !(grant.permissions & permissions).is_empty());
            let narrowed = narrowed.map(FilesystemGrant::text);
            let text = entry.text_with(permissions);
            self.refuse(entry.at, request, text, &reason, narrowed);
            let refused = FilesystemGrant {
                permissions,
                ..wanted.clone()
            };
            grants.refused.push((refused, reason.against(request)));
        }
        if let Some(reason) = judged.why_mediated(&wanted) {
            let [asked, given] =
                [Access::Direct, Access::Mediated].map(|access| format!("access: {access}"));
            self.refuse(entry.at, request, asked, reason, Some(given));
        }
        grants.granted.extend(judged.grants);
    }
}

/// What is granted if a request is granted in full.
fn wanted(entry: &FilesystemEntry, path: PathBuf, request: &str) -> FilesystemGrant {
    FilesystemGrant {
        index: 0,
        path,
        permissions: entry.permissions,
        recursive: entry.recursive,
        access: entry.access(),
        rule: Rule {
            request: request.into(),
            policy: "".into(),
        },
    }
}

/// What the rules make of one request.
#[derive(Default)]
struct Judged {
    grants: Vec<FilesystemGrant>,
    /// Permissions that denials took, each time with the rule.
    denied: Vec<(Permissions, String)>,
    /// Why a grant gives mediated access where direct access was asked for.
    weakened: Option<Reason>,
}

impl Judged {
    fn new(wanted: &FilesystemGrant, rules: &Rules<FilesystemRule>) -> Judged {
        let mut judged = Judged::default();
        for allowing in &rules.allow {
            let Some(mut grant) = shared(wanted, allowing) else {
                continue;
            };
            let weakened = judged.apply_denials(&mut grant, wanted, rules);
            if grant.permissions.is_empty() {
                continue;
            }
            judged.weakened = judged.weakened.or(weakened);
            judged.grants.push(grant);
        }
        drop_repeated(&mut judged.grants);
        judged
    }

    /// Takes from a grant what denials touch. Returns why its access is no longer direct.
    fn apply_denials(
        &mut self,
        grant: &mut FilesystemGrant,
        wanted: &FilesystemGrant,
        rules: &Rules<FilesystemRule>,
    ) -> Option<Reason> {
        let limited = || Reason::limited(&*grant.rule.policy);
        let mut weakened = (grant.access != wanted.access).then(limited);
        for denial in &rules.deny {
            let taken = grant.permissions & denial.entry.permissions;
            if taken.is_empty() || !grant.area().touches(denial.entry.area()) {
                continue;
            }
            match (denial.entry.access, grant.access) {
                (Some(Access::Direct), Access::Direct) => {
                    grant.access = Access::Mediated;
                    weakened = Some(Reason::denied(&denial.name));
                }
                (Some(Access::Direct), Access::Mediated) => {}
                (Some(Access::Mediated) | None, _) => {
                    self.denied.push((taken, denial.name.clone()));
                    grant.permissions = grant.permissions - taken;
                }
            }
        }
        weakened
    }

    /// The permissions that are granted on everything that was asked for, in a grant that fits.
    fn in_full(
        &self,
        wanted: &FilesystemGrant,
        fits: impl Fn(&FilesystemGrant) -> bool,
    ) -> Permissions {
        let whole = |grant: &&FilesystemGrant| grant.area().contains(wanted.area());
        let grants = self.grants.iter().filter(whole);
        grants
            .filter(|grant| fits(grant))
            .map(|grant| grant.permissions)
            .collect()
    }

    /// The permissions that are not granted on everything that was asked for, and why.
    fn refused(&self, wanted: &FilesystemGrant) -> Vec<(Permissions, Reason)> {
        let mut missing = wanted.permissions - self.in_full(wanted, |_| true);
        let mut refused = Vec::new();
        for (taken, rule) in &self.denied {
            let taken = *taken & missing;
            if !taken.is_empty() {
                missing = missing - taken;
                refused.push((taken, Reason::denied(rule)));
            }
        }
        if !missing.is_empty() {
            refused.push((missing, Reason::no_rule()));
        }
        refused
    }

    /// Why direct access became mediated, unless another rule allowed all of it directly after all.
    fn why_mediated(&self, wanted: &FilesystemGrant) -> Option<&Reason> {
        let as_wanted = self.in_full(wanted, |grant| grant.access == wanted.access);
        let weakened = self.weakened.as_ref();
        weakened.filter(|_| !as_wanted.contains(wanted.permissions))
    }
}

/// The part of a request that something allows.
fn shared(
    wanted: &FilesystemGrant,
    allowing: &Allowing<FilesystemRule>,
) -> Option<FilesystemGrant> {
    let mut grant = wanted.clone();
    match allowing {
        Allowing::Anything(name) => grant.rule.policy = name.as_str().into(),
        Allowing::Entry(rule) => {
            let area = wanted.area().intersection(rule.entry.area())?;
            grant.path = area.path.to_owned();
            grant.recursive = area.recursive;
            grant.permissions = wanted.permissions & rule.entry.permissions;
            let access = rule.entry.access.unwrap_or(Access::Mediated);
            grant.access = wanted.access.min(access);
            grant.rule.policy = rule.name.as_str().into();
        }
    }
    Some(grant)
}

/// Leaves out grants that say nothing another does not say.
fn drop_repeated(grants: &mut Vec<FilesystemGrant>) {
    let all = std::mem::take(grants);
    for (index, grant) in all.iter().enumerate() {
        let more = |(other_index, other): (usize, &FilesystemGrant)| {
            let covers = other.area().contains(grant.area())
                && other.permissions.contains(grant.permissions)
                && other.access >= grant.access;
            let same = other.area() == grant.area()
                && other.permissions == grant.permissions
                && other.access == grant.access;
            other_index != index && covers && (!same || other_index < index)
        };
        if !all.iter().enumerate().any(more) {
            grants.push(grant.clone());
        }
    }
}

/// Each grant with the permissions of those that contain it, so that one grant answers for a
/// path. A grant by which the plugin reaches files itself takes only from others of its kind.
fn with_inherited(grants: &[FilesystemGrant]) -> Vec<FilesystemGrant> {
    let inherited = |grant: &FilesystemGrant| {
        grants
            .iter()
            .filter(|other| other.area().contains(grant.area()))
            .filter(|other| other.access == Access::Direct || grant.access == Access::Mediated)
            .map(|other| other.permissions)
            .collect::<Permissions>()
    };
    grants
        .iter()
        .enumerate()
        .map(|(index, grant)| FilesystemGrant {
            index,
            permissions: grant.permissions | inherited(grant),
            ..grant.clone()
        })
        .collect()
}
