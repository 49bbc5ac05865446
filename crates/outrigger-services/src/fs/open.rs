//! Opening files, for as long as a call or for as long as the plugin holds them.

use std::fs::File;
use std::sync::Arc;

use outrigger_manifest::Permissions;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::call::{FileCall, HardLinks};
use super::open_file::{OpenFile, Storage};
use super::place::{Opening, Place};
use super::requested_path::RequestedPath;
use super::resolve::Follow;
use super::rights::Required;
use crate::fault::Fault;
use crate::leases::Leased;

/// A file that was opened and lent.
pub(crate) struct LentFile {
    pub(crate) lease: String,
    pub(crate) file: Arc<Leased<OpenFile>>,
    /// Its state when it was opened.
    pub(crate) stat: Stat,
}

impl FileCall {
    /// Opens the regular file that `wanted` leads to.
    pub(crate) fn open(
        &self,
        wanted: &RequestedPath,
        how: Opening,
    ) -> Result<(File, Place, Stat), Fault> {
        self.open_if(wanted, how, |_| Ok(()))
    }

    /// [`open`](Self::open), if `admit` lets what is there be opened or made.
    pub(crate) fn open_if(
        &self,
        wanted: &RequestedPath,
        how: Opening,
        admit: impl Fn(&Place) -> Result<(), Fault>,
    ) -> Result<(File, Place, Stat), Fault> {
        if !how.read && !how.writes() {
            return Err(Fault::abuse("a file is opened to read, to write, or both"));
        }
        let judge = |stat: &Stat| {
            if how.writes() || how.truncate {
                self.one_name(stat)
            } else {
                Ok(())
            }
        };
        let open = |place: &Place, how: Opening| {
            admit(place)?;
            let (file, stat) = match self.may_wait {
                true => place.open(how, judge)?,
                false => place.open_cached()?,
            };
            Ok((file, place.clone(), stat))
        };
        let only_reads = Opening {
            mode: how.mode,
            ..Opening::READ
        };
        if how != only_reads {
            self.wait()?;
        }
        let needs = how.needs();
        if !how.create && !how.exclusive {
            return self.reach(wanted, Follow::Yes, Required::All(needs), |place| {
                open(place, how)
            });
        }
        // An exclusive one does not follow a link in its place.
        let follow = if how.exclusive {
            Follow::No
        } else {
            Follow::Yes
        };
        let making = needs | Permissions::CREATE;
        match self.reach(wanted, follow, Required::All(making), |place| {
            open(place, how)
        }) {
            Err(Fault::Denied(denial)) if !how.exclusive => {
                let existing = Opening {
                    create: false,
                    ..how
                };
                let opened = self.reach(wanted, Follow::Yes, Required::All(needs), |place| {
                    open(place, existing)
                });
                match opened {
                    // It is not there, and making it is what is not granted.
                    Err(Fault::System(Errno::NOENT)) => Err(Fault::Denied(denial)),
                    outcome => outcome,
                }
            }
            Err(Fault::System(Errno::LOOP)) if how.exclusive => Err(Fault::System(Errno::EXIST)),
            outcome => outcome,
        }
    }

    /// Opens a file and lends it.
    pub(crate) fn lend(&self, wanted: &RequestedPath, how: Opening) -> Result<LentFile, Fault> {
        let slot = self.session.slot()?;
        let (file, place, stat) = self.open(wanted, how)?;
        let storage = self.storage_of(&place.area);
        let file = OpenFile::new(&place, file.into(), &stat, how, storage);
        let (lease, file) = self.session.lend(slot, file);
        if let (Storage::Temporary, Some(temp)) = (storage, self.files.temp_if_made()) {
            temp.note_open(&file);
        }
        Ok(LentFile { lease, file, stat })
    }

    /// The open file that `lease` names.
    pub(crate) fn file(&self, lease: &str) -> Result<Arc<Leased<OpenFile>>, Fault> {
        let file = self.session.lease::<OpenFile>(lease)?;
        self.progress.allowed_by(&file.rule);
        Ok(file)
    }

    /// Refuses to change a file with several names, of which some may lie
    /// outside every grant.
    pub(crate) fn one_name(&self, stat: &Stat) -> Result<(), Fault> {
        let file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        match self.files.settings.hard_links {
            HardLinks::ReadOnly if file && stat.st_nlink > 1 => Err(Fault::refused(
                "it has more than one name, and some may lie outside the grant (hard links)",
            )),
            HardLinks::ReadOnly | HardLinks::Writable => Ok(()),
        }
    }

    /// Refuses a change of an open file itself where writing is not granted.
    pub(crate) fn may_change(&self, file: &OpenFile) -> Result<(), Fault> {
        if !file.rights.contains(Permissions::WRITE) {
            return Err(Fault::refused("writing is not granted where it was opened"));
        }
        self.one_name(&file.stat()?)
    }
}
