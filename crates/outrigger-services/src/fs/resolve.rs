//! Where a requested path leads, and the operation that happens there.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use outrigger_manifest::Permissions;
use rustix::io::Errno;

use super::area::Area;
use super::call::{FileCall, SessionFiles};
use super::kernel::Purpose;
use super::paths::{MAX_PATH, clean, plain, steps};
use super::place::Place;
use super::requested_path::RequestedPath;
use super::rights::Required;
use crate::fault::Fault;

/// How often a path is looked at anew because it changes under our hands.
pub(crate) const ATTEMPTS: usize = 64;
/// How many links one path may lead through, as the kernel has it.
const LINKS: usize = 40;

/// Whether the last step of a path may be a link that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    Yes,
    No,
}

impl FileCall {
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
        wanted: &RequestedPath,
        follow: Follow,
        needs: Required,
        mut act: impl FnMut(&Place) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        // Where `..` leads is looked up step by step.
        let mut steps = wanted.path.components();
        if steps.any(|step| step == Component::ParentDir) {
            self.wait()?;
        }
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
                self.progress.allowed_by(&place.area.rule);
                match act(&place) {
                    Err(Fault::System(Errno::LOOP)) => {}
                    outcome => return outcome,
                }
            }
            self.progress.check()?;
            if !area.is_dir() {
                // A link was put in the place of the granted file.
                return Err(Fault::Outside);
            }
            rest = self.without_links(&area, &path, follow)?;
        }
        Err(Fault::System(Errno::BUSY))
    }

    /// Each directory on the way to `wanted` within its area, and itself last.
    pub(crate) fn prefixes(
        &self,
        wanted: &RequestedPath,
        needs: Required,
    ) -> Result<Vec<RequestedPath>, Fault> {
        let (area, path) = self.start(wanted, needs)?;
        let (mut prefix, mut all) = (PathBuf::new(), Vec::new());
        for step in path.components() {
            prefix.push(step);
            if matches!(step, Component::Normal(_)) {
                all.push(RequestedPath::from_parts(
                    Some(area.clone()),
                    prefix.clone(),
                ));
            }
        }
        Ok(all)
    }

    /// The area in which `wanted` starts, and the steps from there.
    fn start(
        &self,
        wanted: &RequestedPath,
        needs: Required,
    ) -> Result<(Arc<Area>, PathBuf), Fault> {
        if let Some(area) = &wanted.start {
            return Ok((area.clone(), wanted.path.clone()));
        }
        // Steps up are taken when it is known where the steps before them lead.
        if let Some(start) = self.covering(&wanted.path) {
            if plain(&start.1).is_some() {
                return Ok(start);
            }
            let cleaned = clean(&wanted.path);
            return match self.without_links(&start.0, &start.1, Follow::No) {
                Err(Fault::Outside) => self.covering(&cleaned).ok_or(Fault::Outside),
                _ => Ok(start),
            };
        }
        let cleaned = clean(&wanted.path);
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
        if let Some(temp) = self.files.temp_if_made()
            && let Some(rest) = temp.area().relative(path)
        {
            return Some((temp.area().clone(), rest.to_owned()));
        }
        let areas = self.files.areas().usable();
        let covering = areas.filter_map(|area| Some((area, area.relative(path)?)));
        // The less remains, the more of it is named.
        let (area, rest) = covering.min_by_key(|(_, rest)| rest.components().count())?;
        Some((area.clone(), rest.to_owned()))
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
                self.progress.check()?;
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
                    if ahead.len() + todo.len() > MAX_PATH {
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
}

/// Opens the directory at `path` beneath its grant, and says which rule grants
/// it. The plugin's temporary directory comes with the service: no grant names
/// it. May wait for storage.
pub(crate) fn granted_dir(
    files: &Arc<SessionFiles>,
    path: &str,
    needs: Permissions,
) -> Result<(OwnedFd, String), Fault> {
    let call = files.call_with(Arc::default());
    let wanted = RequestedPath::new(files, path)?;
    call.reach(&wanted, Follow::Yes, Required::All(needs), |place| {
        if files.is_temp(&place.area) {
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
