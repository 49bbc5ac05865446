//! The granted parts of the file tree: which can be served, and which cannot.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_manifest::{FilesystemGrant, Grants, Permissions};

use super::area::Area;
use super::kernel;
use crate::fs::real_paths::GrantPaths;
use outrigger_wire::Excerpt;

/// A granted path that cannot be served.
///
/// *Cause*: it did not exist when the services were made, is neither a file nor
/// a directory (a command: no program), or the host may not reach it; or links
/// lead it to a place that the policy does not grant, or lie where the plugin may
/// make them. *Resolution*: make it before the services are made, or take it out
/// of the manifest; write, in manifest and policy, where it really is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is granted and cannot be served: {reason}", Excerpt::from(.path.as_path()))]
pub struct UnusableGrant {
    /// The granted path.
    pub path: PathBuf,
    /// What the system said, or which rule refuses it where it leads.
    pub reason: String,
}

impl UnusableGrant {
    /// The stable code of this kind of problem.
    pub fn code(&self) -> &'static str {
        "grant-unusable"
    }
}

/// A grant that holds places where the kernel shows itself, which are not served
/// like contents.
///
/// *Cause*: `/proc`, `/sys` or the like lie in what is granted. *Resolution*: none is
/// needed; leave them out where the plugin does not read them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is granted{}: {reason}", Excerpt::from(.path.as_path()), held(.path, .places))]
pub struct LimitedGrant {
    /// The granted path.
    pub path: PathBuf,
    /// Where, in it.
    pub places: Vec<PathBuf>,
    /// What of them is served.
    pub reason: &'static str,
}

impl LimitedGrant {
    /// The stable code of this kind of remark.
    pub fn code(&self) -> &'static str {
        "grant-limited"
    }
}

/// The places that a grant holds, as words.
fn held(path: &Path, places: &[PathBuf]) -> String {
    const SHOWN: usize = 3;
    if places == [path] {
        return String::new();
    }
    let shown = places.iter().take(SHOWN);
    let shown: Vec<String> = shown
        .map(|place| Excerpt::from(place.as_path()).to_string())
        .collect();
    let more = match places.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(", with {}{more}", shown.join(", "))
}

/// What was granted of the file tree, held by handles that were taken once, in the
/// order of the grants.
#[derive(Debug, Default)]
pub(crate) struct GrantedAreas {
    pub(crate) all: Vec<Result<Arc<Area>, UnusableGrant>>,
}

impl GrantedAreas {
    pub(crate) fn take(grants: &Grants) -> Self {
        let places = GrantPaths::new(grants);
        let take = |grant: &FilesystemGrant| {
            let path = grant.path().to_owned();
            let (permissions, rule) = (grant.permissions(), grant.rule().to_string());
            let area = places.of(grant).and_then(|place| {
                let recursive = grant.recursive();
                Area::take(path.clone(), place, permissions, recursive, rule.into())
            });
            area.map(Arc::new).map_err(|unserved| UnusableGrant {
                path,
                reason: unserved.to_string(),
            })
        };
        Self {
            all: grants.filesystem().iter().map(take).collect(),
        }
    }

    pub(crate) fn unusable(&self) -> impl Iterator<Item = &UnusableGrant> {
        self.all.iter().filter_map(|area| area.as_ref().err())
    }

    pub(crate) fn limited(&self) -> impl Iterator<Item = LimitedGrant> {
        // A single file that is only read is served as it is.
        let looks = Permissions::READ | Permissions::LIST;
        let areas = self
            .usable()
            .filter(move |area| area.is_dir() || !(area.permissions - looks).is_empty());
        areas.flat_map(|area| {
            let limits = kernel::limits(&area.canonical, area.recursive && area.is_dir());
            kernel::Limit::ALL.into_iter().filter_map(move |limit| {
                let places = limits.iter().filter(|(_, of)| *of == limit);
                let mut places: Vec<PathBuf> = places.map(|(place, _)| place.clone()).collect();
                places.sort();
                places.dedup();
                let (path, reason) = (area.given.clone(), limit.as_str());
                (!places.is_empty()).then_some(LimitedGrant {
                    path,
                    places,
                    reason,
                })
            })
        })
    }

    /// The areas that can be served.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &Arc<Area>> {
        self.all.iter().filter_map(|area| area.as_ref().ok())
    }

    /// The directories among them.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Arc<Area>> {
        self.usable().filter(|area| area.is_dir())
    }
}
