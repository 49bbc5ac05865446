//! Paths as texts: what can be said of one before anything is looked up.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use crate::fault::Fault;

/// The longest path of a request, in bytes: the kernel's own `PATH_MAX`.
pub(crate) const MAX_PATH: usize = 4096;

/// `rest` beneath `top`; `top` itself, without a slash, when there is no rest.
pub(crate) fn joined(top: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        top.to_owned()
    } else {
        top.join(rest)
    }
}

/// Refuses texts that cannot be a path at all.
pub(crate) fn check_path(path: &str) -> Result<(), Fault> {
    if path.len() >= MAX_PATH {
        return Err(Fault::System(Errno::NAMETOOLONG));
    }
    if path.contains('\0') {
        return Err(Fault::System(Errno::INVAL));
    }
    Ok(())
}

/// `path` without `.`, `..` and doubled slashes, by its text alone, as Go's
/// `filepath.Clean` does it. For matching names only: what is opened is
/// resolved step by step.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for step in path.components() {
        match step {
            Component::ParentDir if cleaned.parent().is_some() => {
                cleaned.pop();
            }
            Component::ParentDir | Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => cleaned.push(step),
        }
    }
    cleaned
}

/// Whether the steps of a relative path, taken by their text, ever leave the
/// directory where they start.
pub(crate) fn leaves_start(path: &Path) -> bool {
    let mut depth = 0_usize;
    for step in path.components() {
        match step {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

/// `path` as plain steps, if it has no other ones.
pub(crate) fn plain(path: &Path) -> Option<PathBuf> {
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

/// The steps of `path`, down and up.
pub(crate) fn steps(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir))
        .map(|step| step.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cleaned_by_its_text() {
        assert_eq!(clean(Path::new("/a/./b//../c/")), Path::new("/a/c"));
        assert_eq!(clean(Path::new("/../../etc")), Path::new("/etc"));
    }

    #[test]
    fn steps_above_their_start_are_noticed() {
        for inside in ["", ".", "a/..", "a/../b", "./a/b/../.."] {
            assert!(!leaves_start(Path::new(inside)), "{inside}");
        }
        for outside in ["..", "a/../..", "a/../../a", "/a"] {
            assert!(leaves_start(Path::new(outside)), "{outside}");
        }
    }

    #[test]
    fn texts_that_are_no_path_are_refused_before_the_kernel_sees_them() {
        assert!(matches!(
            check_path("a\0b"),
            Err(Fault::System(Errno::INVAL))
        ));
        let deep = "a/".repeat(10_000);
        assert!(matches!(
            check_path(&deep),
            Err(Fault::System(Errno::NAMETOOLONG))
        ));
    }
}
