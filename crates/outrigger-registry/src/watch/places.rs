//! Where a change may be one of what is installed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::entry::Entry;
use crate::registry::Registry;

/// How many links are followed from one path, as the kernel does.
const MOST_LINKS: usize = 40;

/// A folder in which something may change that matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// Whatever comes and goes there.
    Names,
    /// One name in it: that it comes and goes.
    Name(OsString),
    /// One file in it: also what it holds.
    File(OsString),
}

/// The places that a scan of `folder` looks at, as far as is known from the last one.
pub(super) fn places_of(folder: &Path, found: Option<&Registry>) -> Vec<Place> {
    let mut places = Vec::new();
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    // Any folder on the way may be replaced.
    for ancestor in folder.ancestors() {
        follow(ancestor, What::Name, &mut places);
    }
    let names = |folder: &Path, places: &mut Vec<Place>| {
        places.push(Place {
            folder: folder.to_owned(),
            what: What::Names,
        });
    };
    names(&folder, &mut places);
    for entry in found.into_iter().flat_map(Registry::entries) {
        for own in [Some(entry.place()), Some(entry.folder())]
            .into_iter()
            .flatten()
        {
            follow(own, What::Name, &mut places);
            names(own, &mut places);
        }
        for file in files_of(entry) {
            follow(&file, What::File, &mut places);
            // A folder between the plugin's own and its program.
            let between = file.ancestors().skip(1);
            let within = between.take_while(|at| *at != entry.folder());
            within.for_each(|at| names(at, &mut places));
        }
    }
    places
}

/// The files whose content makes the entry what it is.
pub(super) fn files_of(entry: &Entry) -> Vec<PathBuf> {
    let mut files = vec![entry.folder().join(crate::FileKind::Manifest.usual_name())];
    files.extend(entry.bundle().into_iter().flat_map(|bundle| bundle.files()));
    files
}

/// The place of a path, and of what it leads to.
pub(super) fn follow(path: &Path, what: impl Fn(OsString) -> What, places: &mut Vec<Place>) {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        places.push(Place {
            folder: folder.to_owned(),
            what: what(name.to_owned()),
        });
        match path.read_link() {
            Ok(target) => path = folder.join(target),
            Err(_) => return,
        }
    }
}
