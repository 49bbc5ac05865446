//! Where granted paths really lead, and whether the policy grants that place.
//!
//! A grant is decided by how its path is written. Before it is served its links
//! are followed, here, one by one: none that the plugin may have made itself, and
//! only to a place that the policy grants as well.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use outrigger_manifest::{
    Denial, DenialKind, ExecGrant, FilesystemGrant, Grants, Permissions, RealPaths,
};
use outrigger_wire::Excerpt;
use rustix::io::Errno;

use super::paths::Steps;
use crate::fault::Fault;

/// Why a granted path is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnservedPath {
    #[error("{}", Fault::System(*.0).public())]
    System(Errno),
    /// What the plugin made must not decide where its own grants lead.
    #[error(
        "{} is a link where the plugin may make one, so it is not followed",
        Excerpt::from(.0.as_path())
    )]
    PluginsLink(PathBuf),
    /// It is no place for contents; why.
    #[error("{0}")]
    Closed(&'static str),
    #[error("it leads to {}, refused by {rule}", Excerpt::from(.place.as_path()))]
    Denied { place: PathBuf, rule: String },
    #[error(
        "it leads to {}, which no rule of the policy allows",
        Excerpt::from(.place.as_path())
    )]
    NotAllowed { place: PathBuf },
}

impl From<Errno> for UnservedPath {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl UnservedPath {
    fn new(place: &Path, denial: &Denial) -> Self {
        let place = place.to_owned();
        match denial.kind() {
            DenialKind::NotGranted => Self::NotAllowed { place },
            _ => Self::Denied {
                place,
                rule: denial.rule().to_owned(),
            },
        }
    }
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RealPath {
    /// Absolute, and without links when it was looked at.
    pub(crate) path: PathBuf,
    /// Nothing is there: it may be made, as a file.
    pub(crate) missing: bool,
    /// The last link on the way, if the plugin may have made it: it may then lead to
    /// a directory only.
    plugins_link: Option<PathBuf>,
}

impl RealPath {
    /// A path without links.
    #[cfg(test)]
    pub(crate) fn plain(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            missing: false,
            plugins_link: None,
        }
    }

    /// Refuses what was found there, when a link of the plugin's may have led to
    /// it.
    pub(crate) fn check_found(&self, directory: bool) -> Result<(), UnservedPath> {
        match &self.plugins_link {
            Some(link) if !directory => Err(UnservedPath::PluginsLink(link.clone())),
            _ => Ok(()),
        }
    }
}

/// GrantPaths of one plugin's grants.
pub(crate) struct GrantPaths<'g> {
    grants: &'g Grants,
    made: Vec<Creatable>,
}

/// Where the plugin may make links.
struct Creatable {
    given: PathBuf,
    /// Its name in the directory where it really is.
    entry: PathBuf,
    /// Where it leads.
    place: PathBuf,
    recursive: bool,
}

impl Creatable {
    fn new(grant: &FilesystemGrant) -> Self {
        let given = grant.path().to_owned();
        let entry = match (given.parent(), given.file_name()) {
            (Some(parent), Some(name)) => leads_to(parent).join(name),
            _ => given.clone(),
        };
        Self {
            entry,
            place: leads_to(&given),
            recursive: grant.recursive(),
            given,
        }
    }

    /// Whether the plugin may make the entry of a directory at `link`.
    fn beneath(&self, link: &Path) -> bool {
        let bases = [&self.given, &self.entry, &self.place];
        bases.into_iter().any(|base| match self.recursive {
            true => link != base && link.starts_with(base),
            false => link.parent() == Some(base),
        })
    }
}

/// Whether a link on the way is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    Yes,
    /// The place of a granted directory may be a link, for the plugin cannot
    /// reach the directory that it lies in. That of a file may not.
    ToDirectory,
    No,
}

impl<'g> GrantPaths<'g> {
    pub(crate) fn new(grants: &'g Grants) -> Self {
        let makes = |grant: &&FilesystemGrant| grant.permissions().contains(Permissions::CREATE);
        let made = grants.filesystem().iter().filter(makes).map(Creatable::new);
        Self {
            made: made.collect(),
            grants,
        }
    }

    /// Where a granted part of the file tree is.
    pub(crate) fn of(&self, grant: &FilesystemGrant) -> Result<RealPath, UnservedPath> {
        let may_be_made = grant.permissions().contains(Permissions::CREATE) && !grant.recursive();
        let place = self.walk(grant.path())?.place(may_be_made)?;
        place.check_found(place.path.is_dir())?;
        self.grants
            .filesystem_place(grant, &place.path, self)
            .map_err(|denial| UnservedPath::new(&place.path, &denial))?;
        Ok(place)
    }

    /// Where the program of a command is.
    pub(crate) fn of_program(&self, command: &Path) -> Result<RealPath, UnservedPath> {
        let place = self.walk(command)?.place(false)?;
        place.check_found(false)?;
        Ok(place)
    }

    /// Whether a command is granted where its program is.
    pub(crate) fn judge_program(
        &self,
        grant: &ExecGrant,
        place: &RealPath,
    ) -> Result<(), UnservedPath> {
        self.grants
            .exec_place(grant, &place.path, self)
            .map_err(|denial| UnservedPath::new(&place.path, &denial))
    }

    fn walk(&self, path: &Path) -> Result<Walk, UnservedPath> {
        walk(path, |link| {
            if self.made.iter().any(|made| made.beneath(link)) {
                Follow::No
            } else if self.made.iter().any(|made| made.entry == link) {
                Follow::ToDirectory
            } else {
                Follow::Yes
            }
        })
    }
}

impl RealPaths for GrantPaths<'_> {
    fn denied(&self, path: &Path) -> PathBuf {
        leads_to(path)
    }

    fn allowed(&self, path: &Path) -> Option<PathBuf> {
        let walk = self.walk(path).ok()?;
        match walk.plugins_link {
            Some(_) if !walk.path.is_dir() => None,
            _ => Some(walk.whole()),
        }
    }
}

/// Where a path leads as far as it exists, all links followed.
fn leads_to(path: &Path) -> PathBuf {
    match walk(path, |_| Follow::Yes) {
        Ok(walk) => walk.whole(),
        Err(_) => path.to_owned(),
    }
}

/// How far a path leads.
struct Walk {
    /// All of it, or as far as the first step that is not there.
    path: PathBuf,
    /// Why no further.
    end: Option<Errno>,
    /// The step that is not there is the path's own last one.
    last: bool,
    rest: Steps,
    plugins_link: Option<PathBuf>,
}

impl Walk {
    fn place(self, may_be_made: bool) -> Result<RealPath, UnservedPath> {
        let missing = match self.end {
            None => false,
            Some(Errno::NOENT) if self.last && may_be_made => true,
            Some(errno) => return Err(errno.into()),
        };
        Ok(RealPath {
            path: self.path,
            missing,
            plugins_link: self.plugins_link,
        })
    }

    fn whole(self) -> PathBuf {
        let mut path = self.path;
        for step in self.rest {
            take_step(&mut path, step);
        }
        path
    }
}

fn take_step(path: &mut PathBuf, step: OsString) {
    if step == ".." {
        path.pop();
    } else {
        path.push(step);
    }
}

/// Follows the links of an absolute path.
fn walk(path: &Path, follow: impl Fn(&Path) -> Follow) -> Result<Walk, UnservedPath> {
    let mut place = PathBuf::from("/");
    let mut rest = Steps::new(path);
    // So many steps at the end of `rest` are the path's, not a link's.
    let mut written = rest.len();
    let mut plugins_link = None;
    while let Some(step) = rest.take() {
        let of_link = rest.len() >= written;
        written = written.min(rest.len());
        let up = step == "..";
        take_step(&mut place, step);
        if up {
            continue;
        }
        let text = match rustix::fs::readlink(&place, Vec::new()) {
            Ok(text) => PathBuf::from(OsString::from_vec(text.into_bytes())),
            Err(Errno::INVAL) => continue,
            Err(errno) => {
                let last = !of_link && rest.is_empty();
                let end = Some(errno);
                return Ok(Walk {
                    path: place,
                    end,
                    last,
                    rest,
                    plugins_link,
                });
            }
        };
        match follow(&place) {
            Follow::Yes => {}
            // With more steps to come it can only be followed to a directory.
            Follow::ToDirectory if !rest.is_empty() => {}
            Follow::ToDirectory => plugins_link = Some(place.clone()),
            Follow::No => return Err(UnservedPath::PluginsLink(place)),
        }
        rest.follow(&text)?;
        place.pop();
        if text.is_absolute() {
            place = PathBuf::from("/");
        }
    }
    Ok(Walk {
        path: place,
        end: None,
        last: false,
        rest,
        plugins_link,
    })
}
