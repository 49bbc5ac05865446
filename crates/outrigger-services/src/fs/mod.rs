//! Files beneath what was granted: where a path of a request leads, and whether
//! what is wanted there is granted.

pub(crate) mod area;
mod calls;
pub(crate) mod kernel;
mod list;
pub(crate) mod mode;
pub(crate) mod open;
pub(crate) mod ops;
#[cfg(test)]
mod races;
pub(crate) mod rpc;
#[cfg(test)]
mod spellings;
pub(crate) mod stream;
pub(crate) mod temp;
mod watch;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use outrigger_manifest::{Denial, FilesystemGrant, Grants, Permissions};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::fault::Fault;
use crate::places::Places;
use crate::session::{Notes, Session};
use crate::text::Quoted;
use area::{Area, Place};
use kernel::Purpose;
pub(crate) use rpc::Filesystem;
pub(crate) use temp::TempArea;

/// Where written bytes stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// In the temporary directory, of which a plugin has only so much.
    InTemp,
    Elsewhere,
}

/// How often a path is looked at anew because it changes under our hands.
const ATTEMPTS: usize = 64;
/// How many links one path may lead through, as the kernel has it.
const LINKS: usize = 40;

/// A granted path that cannot be served.
///
/// *Cause*: it did not exist when the services were made, is neither a file nor
/// a directory (a command: no program), or the host may not reach it; or links
/// lead it to a place that the policy does not grant, or lie where the plugin may
/// make them. *Resolution*: make it before the services are made, or take it out
/// of the manifest; write, in manifest and policy, where it really is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is granted and cannot be served: {reason}", Quoted(&.path.to_string_lossy()))]
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
#[error("{} is granted{}: {reason}", Quoted(&.path.to_string_lossy()), held(.path, .places))]
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
        .map(|place| Quoted(&place.to_string_lossy()).to_string())
        .collect();
    let more = match places.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(", with {}{more}", shown.join(", "))
}

/// What was granted, held by handles that were taken once. In the order of the
/// grants.
#[derive(Debug, Default)]
pub(crate) struct Files {
    areas: Vec<Result<Arc<Area>, UnusableGrant>>,
}

impl Files {
    pub(crate) fn take(grants: &Grants) -> Self {
        let places = Places::new(grants);
        let take = |grant: &FilesystemGrant| {
            let path = grant.path().to_owned();
            let (permissions, rule) = (grant.permissions(), grant.rule().to_string());
            let area = places.of(grant).and_then(|place| {
                let recursive = grant.recursive();
                Area::take(path.clone(), place, permissions, recursive, rule.into())
            });
            area.map(Arc::new).map_err(|astray| UnusableGrant {
                path,
                reason: astray.to_string(),
            })
        };
        Self {
            areas: grants.filesystem().iter().map(take).collect(),
        }
    }

    pub(crate) fn unusable(&self) -> impl Iterator<Item = &UnusableGrant> {
        self.areas.iter().filter_map(|area| area.as_ref().err())
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

    fn usable(&self) -> impl Iterator<Item = &Arc<Area>> {
        self.areas.iter().filter_map(|area| area.as_ref().ok())
    }

    fn dirs(&self) -> impl Iterator<Item = &Arc<Area>> {
        self.usable().filter(|area| area.is_dir())
    }
}

/// What one connection has beside its leases.
#[derive(Debug, Default)]
pub(crate) struct Own {
    temp: OnceLock<TempArea>,
    making_temp: Mutex<()>,
    pub(crate) cursors: list::Cursors,
    pub(crate) watches: watch::Watches,
}

/// An operation's side of the session: for work on threads that may outlive it.
#[derive(Clone)]
pub(crate) struct Cx {
    pub(crate) session: Arc<Session>,
    pub(crate) notes: Arc<Notes>,
}

/// A path of a request, not yet looked at.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Where it starts; nothing for an absolute path.
    start: Option<Arc<Area>>,
    path: PathBuf,
    dir_only: bool,
}

/// Whether the last step of a path may be a link that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    Yes,
    No,
}

/// What must be granted where a path leads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needs {
    /// Every one of these.
    All(Permissions),
    /// Reading it, or listing where it is: what it takes to know that something
    /// is there.
    Know,
    /// Listing it, or where it is.
    Listed,
}

impl Needs {
    /// What an operation that needs this does to a place.
    fn purpose(self) -> Purpose {
        let changing = Permissions::WRITE | Permissions::CREATE | Permissions::DELETE;
        match self {
            Self::All(needs) if !(needs & changing).is_empty() => Purpose::Change,
            Self::All(_) | Self::Know | Self::Listed => Purpose::Look,
        }
    }
}

/// What an operation puts at a place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Put {
    NewDirectory,
    Link,
    /// Something that is somewhere else already.
    Moved(FileType),
}

impl Wanted {
    /// `path` as `outrigger.host.v1` has it: absolute, or relative to the only
    /// granted directory.
    pub(crate) fn new(session: &Session, path: &str) -> Result<Self, Fault> {
        area::check_path(path)?;
        if path.is_empty() {
            return Err(Fault::abuse("the path is empty"));
        }
        let start = if path.starts_with('/') {
            None
        } else {
            let mut dirs = session.shared().files.dirs();
            match (dirs.next(), dirs.next()) {
                (Some(only), None) => Some(only.clone()),
                (None, _) => {
                    return Err(Fault::abuse(
                        "no directory is granted: name an absolute path",
                    ));
                }
                (Some(_), Some(_)) => {
                    return Err(Fault::abuse(
                        "more than one directory is granted: name an absolute path",
                    ));
                }
            }
        };
        Ok(Self::from_parts(start, path.into()))
    }

    /// `path` beneath a directory that was opened before.
    pub(crate) fn beneath(place: &Place, path: &str) -> Result<Self, Fault> {
        area::check_path(path)?;
        if path.starts_with('/') || area::leaves_start(Path::new(path)) {
            return Err(Fault::Outside);
        }
        let joined = place.path.join(path);
        if joined.as_os_str().len() >= area::MAX_PATH {
            return Err(Fault::System(Errno::NAMETOOLONG));
        }
        Ok(Self::from_parts(Some(place.area.clone()), joined))
    }

    /// `path` relative to the first granted directory.
    pub(crate) fn in_first(session: &Session, path: PathBuf) -> Result<Self, Fault> {
        match session.shared().files.dirs().next() {
            Some(first) => Ok(Self::from_parts(Some(first.clone()), path)),
            None => Err(Fault::refused("no directory is granted")),
        }
    }

    /// An absolute path.
    pub(crate) fn absolute(path: PathBuf) -> Self {
        Self::from_parts(None, path)
    }

    fn from_parts(start: Option<Arc<Area>>, path: PathBuf) -> Self {
        let bytes = path.as_os_str().as_encoded_bytes();
        let dir_only = bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes.ends_with(b"/..");
        Self {
            start,
            path,
            dir_only,
        }
    }
}

impl Cx {
    /// Does `act` where `wanted` leads, once what it needs is known to be
    /// granted there.
    ///
    /// The grant is found by the spelled path, and `act` uses that very path
    /// beneath the grant's handle, without links. Where a link is on the way,
    /// `act` fails with [`Errno::LOOP`]; the path is then spelled without it and
    /// judged again. What is acted on is thus always what was judged, whatever
    /// changes meanwhile.
    pub(crate) fn reach<T>(
        &self,
        wanted: &Wanted,
        follow: Follow,
        needs: Needs,
        mut act: impl FnMut(&Place) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (area, path) = self.start(wanted, needs)?;
        let mut rest = plain(&path);
        for _ in 0..ATTEMPTS {
            if let Some(path) = rest.take() {
                let place = Place {
                    area: area.clone(),
                    path,
                    dir_only: wanted.dir_only,
                    purpose: needs.purpose(),
                };
                let place = self.judged(place, needs)?;
                // Before it happens: the record may be due while it does.
                self.notes.allowed_by(&place.area.rule);
                match act(&place) {
                    Err(Fault::System(Errno::LOOP)) => {}
                    outcome => return outcome,
                }
            }
            self.notes.check()?;
            if !area.is_dir() {
                // A link was put in the place of the granted file.
                return Err(Fault::Outside);
            }
            rest = self.without_links(&area, &path, follow)?;
        }
        Err(Fault::System(Errno::BUSY))
    }

    /// [`reach`](Self::reach) without waiting for anyone: nothing when that
    /// cannot be promised.
    pub(crate) fn reach_now<T>(
        &self,
        wanted: &Wanted,
        needs: Needs,
        act: impl FnOnce(&Place) -> Option<T>,
    ) -> Option<Result<T, Fault>> {
        // Steps up are looked up one by one.
        if wanted
            .path
            .components()
            .any(|step| step == Component::ParentDir)
        {
            return None;
        }
        let judge = || {
            let (area, path) = self.start(wanted, needs)?;
            let Some(path) = plain(&path) else {
                return Ok(None);
            };
            let dir_only = wanted.dir_only;
            let place = Place {
                area,
                path,
                dir_only,
                purpose: needs.purpose(),
            };
            self.judged(place, needs).map(Some)
        };
        match judge() {
            Ok(Some(place)) => {
                let outcome = act(&place)?;
                self.notes.allowed_by(&place.area.rule);
                Some(Ok(outcome))
            }
            Ok(None) => None,
            Err(fault) => Some(Err(fault)),
        }
    }

    /// Each directory on the way to `wanted` within its area, and itself last.
    pub(crate) fn prefixes(&self, wanted: &Wanted, needs: Needs) -> Result<Vec<Wanted>, Fault> {
        let (area, path) = self.start(wanted, needs)?;
        let (mut prefix, mut all) = (PathBuf::new(), Vec::new());
        for step in path.components() {
            prefix.push(step);
            if matches!(step, Component::Normal(_)) {
                all.push(Wanted::from_parts(Some(area.clone()), prefix.clone()));
            }
        }
        Ok(all)
    }

    /// The area in which `wanted` starts, and the steps from there.
    fn start(&self, wanted: &Wanted, needs: Needs) -> Result<(Arc<Area>, PathBuf), Fault> {
        if let Some(area) = &wanted.start {
            return Ok((area.clone(), wanted.path.clone()));
        }
        // Steps up are taken when it is known where the steps before them lead.
        if let Some(start) = self.covering(&wanted.path) {
            if plain(&start.1).is_some() {
                return Ok(start);
            }
            let cleaned = area::clean(&wanted.path);
            return match self.without_links(&start.0, &start.1, Follow::No) {
                Err(Fault::Outside) => self.covering(&cleaned).ok_or(Fault::Outside),
                _ => Ok(start),
            };
        }
        let cleaned = area::clean(&wanted.path);
        match self.covering(&cleaned) {
            Some(start) => Ok(start),
            None => match self.verdict(&cleaned, needs) {
                Err(Fault::Denied(denial)) => Err(Fault::Uncovered(denial)),
                Err(fault) => Err(fault),
                // It is granted, and was not there when the grants were taken.
                Ok(index) => Err(self.unusable(index)),
            },
        }
    }

    /// The area that names most of the absolute `path`, and what remains of it.
    fn covering(&self, path: &Path) -> Option<(Arc<Area>, PathBuf)> {
        if let Some(temp) = self.session.own().temp.get()
            && let Some(rest) = temp.area().relative(path)
        {
            return Some((temp.area().clone(), rest.to_owned()));
        }
        let areas = self.session.shared().files.usable();
        let covering = areas.filter_map(|area| Some((area, area.relative(path)?)));
        // The less remains, the more of it is named.
        let (area, rest) = covering.min_by_key(|(_, rest)| rest.components().count())?;
        Some((area.clone(), rest.to_owned()))
    }

    /// The place, in the area of the grant that allows what is needed there.
    fn judged(&self, place: Place, needs: Needs) -> Result<Place, Fault> {
        if self.is_temp(&place.area) {
            return Ok(place);
        }
        let spelled = place.spelled();
        let index = self.verdict(&spelled, needs)?;
        let grants = self.session.grants().filesystem();
        let areas = &self.session.shared().files.areas;
        let area = match areas.get(index) {
            Some(Ok(area)) => area,
            // A wider grant may serve what this one cannot.
            _ => {
                let enough = |area: &&Arc<Area>| {
                    let has = |right| area.permissions.contains(right);
                    match needs {
                        Needs::All(needs) => {
                            let lists = area.recursive || area.given == spelled;
                            has(needs) && (lists || !needs.contains(Permissions::LIST))
                        }
                        Needs::Know => has(Permissions::READ) || has(Permissions::LIST),
                        Needs::Listed => has(Permissions::LIST),
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
    fn verdict(&self, path: &Path, needs: Needs) -> Result<usize, Fault> {
        let grants = self.session.grants();
        let granted = match needs {
            Needs::All(needs) => grants.filesystem_verdict(path, needs)?,
            Needs::Know => match grants.filesystem_verdict(path, Permissions::READ) {
                Ok(grant) => grant,
                Err(denial) => listed(grants, path).map_err(|_: Denial| denial)?,
            },
            Needs::Listed => listed(grants, path)?,
        };
        let all = grants.filesystem().iter();
        let same = |grant: &outrigger_manifest::FilesystemGrant| std::ptr::eq(grant, granted);
        all.into_iter().position(same).ok_or(Fault::Broken)
    }

    fn unusable(&self, index: usize) -> Fault {
        match self.session.shared().files.areas.get(index) {
            Some(Err(unusable)) => Fault::refused(unusable.to_string()),
            _ => Fault::Broken,
        }
    }

    pub(crate) fn is_temp(&self, area: &Arc<Area>) -> bool {
        let temp = self.session.own().temp.get();
        temp.is_some_and(|temp| Arc::ptr_eq(temp.area(), area))
    }

    /// Every name that grants give to `place`.
    fn names(&self, place: &Place) -> Vec<PathBuf> {
        let canonical = place.canonical();
        let mut names = vec![place.spelled()];
        for area in self.session.shared().files.usable() {
            if let Ok(rest) = canonical.strip_prefix(&area.canonical) {
                names.push(area::joined(&area.given, rest));
            }
        }
        names
    }

    /// Every right at `place`, by whatever name grants lead to it. To be listed
    /// with what is around it counts as listing.
    pub(crate) fn rights(&self, place: &Place) -> Permissions {
        if self.is_temp(&place.area) {
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
        if !self.is_temp(&place.area) {
            self.verdict(&place.spelled(), Needs::All(Permissions::LIST))?;
        }
        Ok(())
    }

    /// Refuses to put at `place` what would make a grant that names it, or
    /// something beneath it, mean something else once grants are taken anew: a
    /// link leads elsewhere, and what was moved there would gain rights.
    pub(crate) fn may_lie(&self, place: &Place, put: Put) -> Result<(), Fault> {
        if self.is_temp(&place.area) {
            return Ok(());
        }
        let names = self.names(place);
        let areas = self.session.shared().files.areas.iter();
        for (grant, area) in self.session.grants().filesystem().iter().zip(areas) {
            if !names.iter().any(|name| grant.path().starts_with(name)) {
                continue;
            }
            let itself = names.iter().any(|name| grant.path() == name);
            let file = area.as_ref().is_ok_and(|area| !area.is_dir());
            let fits = match put {
                Put::NewDirectory => !(itself && file),
                Put::Link => false,
                Put::Moved(FileType::RegularFile) => itself,
                Put::Moved(FileType::Directory) => itself && !file,
                Put::Moved(_) => false,
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
    fn may_pass(&self, area: &Arc<Area>, path: &Path) -> Result<(), Fault> {
        if self.is_temp(area) {
            return Ok(());
        }
        let spelled = area::joined(&area.given, path);
        let grants = self.session.grants().filesystem();
        if grants
            .iter()
            .any(|grant| grant.path().starts_with(&spelled))
        {
            return Ok(());
        }
        // Any right at all lets a plugin find out what is there.
        self.verdict(&spelled, Needs::All(Permissions::NONE))
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
        let grants_hold = self.session.shared().files.usable().any(holds);
        let temp = self.session.own().temp.get();
        if grants_hold || temp.is_some_and(|temp| holds(temp.area())) {
            return Err(Fault::refused(
                "a granted directory itself cannot be moved, replaced or removed",
            ));
        }
        Ok(())
    }

    /// The plain steps to which `path` leads within `area`; nothing when it
    /// changed meanwhile.
    ///
    /// A hint only: what is acted on afterwards is judged, and used without
    /// following anything.
    fn without_links(
        &self,
        area: &Arc<Area>,
        path: &Path,
        follow: Follow,
    ) -> Result<Option<PathBuf>, Fault> {
        let mut todo: VecDeque<OsString> = steps(path);
        let (mut done, mut links) = (PathBuf::new(), 0);
        while let Some(step) = todo.pop_front() {
            if step == ".." {
                self.notes.check()?;
                match area.open(&done, DIR, rustix::fs::Mode::empty(), Purpose::Look) {
                    Ok(_) if done.pop() => continue,
                    Ok(_) => return Err(Fault::Outside),
                    Err(Fault::System(Errno::LOOP)) => return Ok(None),
                    Err(fault) => return Err(fault),
                }
            }
            let last = todo.is_empty();
            if last && follow == Follow::No {
                done.push(step);
                break;
            }
            let next = done.join(&step);
            self.may_pass(area, &next)?;
            match area.read_link(&next) {
                Ok(Some(target)) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Fault::System(Errno::LOOP));
                    }
                    let target = PathBuf::from(target);
                    let rest = if target.is_absolute() {
                        done.clear();
                        area.relative(&target).ok_or(Fault::Outside)?
                    } else {
                        &target
                    };
                    let mut ahead = steps(rest);
                    if ahead.len() + todo.len() > area::MAX_PATH {
                        return Err(Fault::System(Errno::NAMETOOLONG));
                    }
                    ahead.append(&mut todo);
                    todo = ahead;
                }
                Ok(None) => done = next,
                // What is not there leads nowhere else.
                Err(Fault::System(Errno::NOENT)) if !todo.iter().any(|step| step == "..") => {
                    done = next;
                    done.extend(todo.drain(..));
                }
                Err(Fault::System(Errno::LOOP)) => return Ok(None),
                Err(fault) => return Err(fault),
            }
        }
        Ok(Some(done))
    }

    /// The temporary directory, which is made if needed.
    pub(crate) fn temp(&self) -> Result<&TempArea, Fault> {
        self.session.temp()
    }

    /// Bytes that the plugin got without waiting.
    pub(crate) fn read(&self, bytes: u64) {
        self.notes.moved(bytes);
        self.session.count_read(bytes);
        self.session.charge(bytes);
    }

    /// Does a write of `count` bytes under the quotas; `write` says how far it
    /// came even if it failed.
    pub(crate) fn write<T>(
        &self,
        count: u64,
        kept: Kept,
        write: impl FnOnce(&mut u64) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.write_over(count, 0, kept, write)
    }

    /// [`write`](Self::write), where `write` first gives `freed` bytes back to
    /// storage.
    pub(crate) fn write_over<T>(
        &self,
        count: u64,
        freed: u64,
        kept: Kept,
        write: impl FnOnce(&mut u64) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let _room = self.room(count, freed, kept)?;
        self.session.reserve(count)?;
        let mut written = 0;
        let outcome = write(&mut written);
        let written = written.min(count);
        self.session.release(count - written);
        self.notes.moved(written);
        outcome
    }

    /// Room for `count` bytes in the place of `freed`, where it is limited.
    pub(crate) fn room(
        &self,
        count: u64,
        freed: u64,
        kept: Kept,
    ) -> Result<Option<temp::Room<'_>>, Fault> {
        let most = self.session.limits().temp_bytes;
        let temp = match kept {
            Kept::InTemp if most != 0 => self.session.own().temp.get(),
            Kept::InTemp | Kept::Elsewhere => None,
        };
        let room = temp.map(|temp| temp.room(count, freed, most, self.until()));
        room.transpose()
    }

    /// Where what is written to a file of this area stays.
    pub(crate) fn kept(&self, area: &Arc<Area>) -> Kept {
        if self.is_temp(area) {
            Kept::InTemp
        } else {
            Kept::Elsewhere
        }
    }

    /// When the operation must be over.
    pub(crate) fn until(&self) -> Instant {
        Instant::now() + self.session.limits().call_timeout
    }
}

impl Session {
    /// The temporary directory of this connection, which is made if needed.
    pub(crate) fn temp(&self) -> Result<&TempArea, Fault> {
        let own = self.own();
        let _making = own
            .making_temp
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if own.temp.get().is_none() {
            // The lock makes this the only writer.
            let root = &self.shared().temp_root;
            let _ = own.temp.set(TempArea::create(root, self.identity())?);
        }
        own.temp.get().ok_or(Fault::Broken)
    }

    /// The temporary directory if it exists already.
    pub(crate) fn temp_if_made(&self) -> Option<&TempArea> {
        self.own().temp.get()
    }

    /// The path of the connection's temporary directory, which is made if
    /// needed. May wait for storage.
    pub(crate) fn temp_dir(&self) -> Result<PathBuf, Fault> {
        Ok(self.temp()?.area().canonical.clone())
    }
}

/// Opens the directory at `path` beneath its grant, and says which rule grants
/// it. The plugin's temporary directory comes with the service: no grant names
/// it. May wait for storage.
pub(crate) fn granted_dir(
    session: &Arc<Session>,
    path: &str,
    needs: Permissions,
) -> Result<(OwnedFd, String), Fault> {
    let cx = Cx {
        session: session.clone(),
        notes: Arc::default(),
    };
    let wanted = Wanted::new(session, path)?;
    cx.reach(&wanted, Follow::Yes, Needs::All(needs), |place| {
        let temp = session.temp_if_made().map(TempArea::area);
        if temp.is_some_and(|temp| Arc::ptr_eq(temp, &place.area)) {
            return Err(Fault::Ungranted {
                code: "not-granted",
                text: "the plugin's temporary directory is none that was granted".into(),
                missing: format!(
                    "capabilities.filesystem: [{{path: DIR, permissions: [{needs}]}}]"
                ),
            });
        }
        Ok((place.directory()?, place.area.rule.to_string()))
    })
}

const DIR: rustix::fs::OFlags = rustix::fs::OFlags::PATH.union(rustix::fs::OFlags::DIRECTORY);

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

/// `path` as plain steps, if it has no other ones.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for step in path.components() {
        match step {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

fn steps(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir))
        .map(|step| step.as_os_str().to_owned())
        .collect()
}
