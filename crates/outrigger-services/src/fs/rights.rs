//! Whether an operation is granted at a place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_manifest::{Denial, FilesystemGrant, Grants, Permissions};
use rustix::fs::FileType;

use super::area::Area;
use super::call::FileCall;
use super::kernel::Purpose;
use super::paths::joined;
use super::place::Place;
use crate::fault::Fault;

/// What must be granted where a path leads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Required {
    /// Every one of these.
    All(Permissions),
    /// Reading it, or listing where it is: what it takes to know that something
    /// is there.
    Known,
    /// Listing it, or where it is.
    Listed,
}

impl Required {
    /// What an operation that needs this does to a place.
    pub(crate) fn purpose(self) -> Purpose {
        let changing = Permissions::WRITE | Permissions::CREATE | Permissions::DELETE;
        match self {
            Self::All(needs) if !(needs & changing).is_empty() => Purpose::Change,
            Self::All(_) | Self::Known | Self::Listed => Purpose::Look,
        }
    }
}

/// What an operation puts at a place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewEntry {
    Directory,
    Link,
    /// Something that is somewhere else already.
    Moved(FileType),
}

impl FileCall {
    /// The place, in the area of the grant that allows what is needed there.
    pub(crate) fn judged(&self, place: Place, needs: Required) -> Result<Place, Fault> {
        if self.files.is_temp(&place.area) {
            return Ok(place);
        }
        let spelled = place.spelled();
        let index = self.verdict(&spelled, needs)?;
        let grants = self.session.grants().filesystem();
        let areas = &self.files.areas().all;
        let area = match areas.get(index) {
            Some(Ok(area)) => area,
            // A wider grant may serve what this one cannot.
            _ => {
                let enough = |area: &&Arc<Area>| {
                    let has = |right| area.permissions.contains(right);
                    match needs {
                        Required::All(needs) => {
                            let lists = area.recursive || area.given == spelled;
                            has(needs) && (lists || !needs.contains(Permissions::LIST))
                        }
                        Required::Known => has(Permissions::READ) || has(Permissions::LIST),
                        Required::Listed => has(Permissions::LIST),
                    }
                };
                let wider = areas.iter().zip(grants);
                let wider = wider.filter(|(_, grant)| grant.covers(&spelled));
                let mut wider = wider.filter_map(|(area, _)| area.as_ref().ok());
                wider.find(enough).ok_or_else(|| self.unusable(index))?
            }
        };
        if Arc::ptr_eq(area, &place.area) {
            return Ok(place);
        }
        let path = spelled
            .strip_prefix(&area.given)
            .map_err(|_| Fault::Outside)?;
        Ok(Place {
            area: area.clone(),
            path: path.to_owned(),
            dir_only: place.dir_only,
            purpose: place.purpose,
        })
    }

    /// Which grant allows what is needed at the absolute `path`, by its number.
    pub(crate) fn verdict(&self, path: &Path, needs: Required) -> Result<usize, Fault> {
        let grants = self.session.grants();
        let granted = match needs {
            Required::All(needs) => grants.filesystem_verdict(path, needs)?,
            Required::Known => match grants.filesystem_verdict(path, Permissions::READ) {
                Ok(grant) => grant,
                Err(denial) => listed(grants, path).map_err(|_: Denial| denial)?,
            },
            Required::Listed => listed(grants, path)?,
        };
        let all = grants.filesystem().iter();
        let same = |grant: &FilesystemGrant| std::ptr::eq(grant, granted);
        all.into_iter().position(same).ok_or(Fault::Broken)
    }

    pub(crate) fn unusable(&self, index: usize) -> Fault {
        match self.files.areas().all.get(index) {
            Some(Err(unusable)) => Fault::refused(unusable.to_string()),
            _ => Fault::Broken,
        }
    }

    /// Every name that grants give to `place`.
    fn names(&self, place: &Place) -> Vec<PathBuf> {
        let canonical = place.canonical();
        let mut names = vec![place.spelled()];
        for area in self.files.areas().usable() {
            if let Ok(rest) = canonical.strip_prefix(&area.canonical) {
                names.push(joined(&area.given, rest));
            }
        }
        names
    }

    /// Every right at `place`, by whatever name grants lead to it. To be listed
    /// with what is around it counts as listing.
    pub(crate) fn rights(&self, place: &Place) -> Permissions {
        if self.files.is_temp(&place.area) {
            return Permissions::ALL;
        }
        let grants = self.session.grants();
        let mut rights = Permissions::NONE;
        for name in self.names(place) {
            for one in ONE_BY_ONE {
                let has = if one == Permissions::LIST {
                    listed(grants, &name).is_ok()
                } else {
                    grants.filesystem_verdict(&name, one).is_ok()
                };
                if has {
                    rights |= one;
                }
            }
        }
        rights
    }

    /// Whether what is in the directory at `place` may be listed.
    pub(crate) fn lists(&self, place: &Place) -> Result<(), Fault> {
        if !self.files.is_temp(&place.area) {
            self.verdict(&place.spelled(), Required::All(Permissions::LIST))?;
        }
        Ok(())
    }

    /// Refuses to put at `place` what would make a grant that names it, or
    /// something beneath it, mean something else once grants are taken anew: a
    /// link leads elsewhere, and what was moved there would gain rights.
    pub(crate) fn may_lie(&self, place: &Place, new: NewEntry) -> Result<(), Fault> {
        if self.files.is_temp(&place.area) {
            return Ok(());
        }
        let names = self.names(place);
        let areas = self.files.areas().all.iter();
        for (grant, area) in self.session.grants().filesystem().iter().zip(areas) {
            if !names.iter().any(|name| grant.path().starts_with(name)) {
                continue;
            }
            let itself = names.iter().any(|name| grant.path() == name);
            let file = area.as_ref().is_ok_and(|area| !area.is_dir());
            let fits = match new {
                NewEntry::Directory => !(itself && file),
                NewEntry::Link => false,
                NewEntry::Moved(FileType::RegularFile) => itself,
                NewEntry::Moved(FileType::Directory) => itself && !file,
                NewEntry::Moved(_) => false,
            };
            if !fits {
                return Err(Fault::refused(
                    "what is granted by this name, or beneath it, stays what it is",
                ));
            }
        }
        Ok(())
    }

    /// Refuses to look at what is not granted on the way to something else.
    pub(crate) fn may_pass(&self, area: &Arc<Area>, path: &Path) -> Result<(), Fault> {
        if self.files.is_temp(area) {
            return Ok(());
        }
        let spelled = joined(&area.given, path);
        let grants = self.session.grants().filesystem();
        if grants
            .iter()
            .any(|grant| grant.path().starts_with(&spelled))
        {
            return Ok(());
        }
        // Any right at all lets a plugin find out what is there.
        self.verdict(&spelled, Required::All(Permissions::NONE))
            .map(drop)
    }

    /// Refuses what would move something to where more may be done with it.
    pub(crate) fn gains_nothing(&self, from: &Place, to: &Place) -> Result<(), Fault> {
        let below = |place: &Place| Place {
            path: place.path.join("x"),
            ..place.clone()
        };
        for (from, to) in [(from.clone(), to.clone()), (below(from), below(to))] {
            let gained = self.rights(&to) - self.rights(&from);
            if !gained.is_empty() {
                let reason = format!("it would gain {gained} where it is put");
                return Err(Fault::refused(reason));
            }
        }
        Ok(())
    }

    /// Refuses to move or remove what a grant of its own lies in.
    pub(crate) fn holds_no_grant(&self, place: &Place) -> Result<(), Fault> {
        let canonical = place.canonical();
        let holds = |area: &Arc<Area>| {
            area.canonical.starts_with(&canonical) && (area.is_dir() || area.canonical != canonical)
        };
        let grants_hold = self.files.areas().usable().any(holds);
        let temp = self.files.temp_if_made();
        if grants_hold || temp.is_some_and(|temp| holds(temp.area())) {
            return Err(Fault::refused(
                "a granted directory itself cannot be moved, replaced or removed",
            ));
        }
        Ok(())
    }
}

const ONE_BY_ONE: [Permissions; 5] = [
    Permissions::READ,
    Permissions::WRITE,
    Permissions::LIST,
    Permissions::CREATE,
    Permissions::DELETE,
];

/// Which grant lets the name `path` be listed: with the directory that it is in,
/// or as one that may be listed itself.
fn listed<'a>(grants: &'a Grants, path: &Path) -> Result<&'a FilesystemGrant, Denial> {
    let itself = grants.filesystem_verdict(path, Permissions::LIST);
    itself.or_else(|denial| {
        let around = path.parent().ok_or(denial.clone())?;
        let around = grants.filesystem_verdict(around, Permissions::LIST);
        around.map_err(|_| denial)
    })
}
