//! Directories and programs of a test.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of one test alone. Its path is short, so that sockets fit
/// beneath it, and no other path begins with it. Dropping it removes it with
/// everything in it.
#[derive(Debug)]
pub struct TestDir {
    path: PathBuf,
}

impl TestDir {
    /// Makes an empty directory beneath the system's temporary one.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ot-{}-{number}.", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A process with the same id may have been killed before it could clean up.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it, sorted.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn entries(&self) -> Vec<PathBuf> {
        let listing = std::fs::read_dir(&self.path).expect("the test's directory can be read");
        let mut entries: Vec<_> = listing.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        entries
    }

    /// Asserts that nothing is in it.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn assert_empty(&self) {
        let entries = self.entries();
        assert!(entries.is_empty(), "left behind: {entries:?}");
    }
}

impl Default for TestDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A program of this workspace, in the build directory of the running test.
///
/// # Panics
/// When it has not been built.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test knows its own path");
    let build = own.parent().map(|dir| {
        if dir.ends_with("deps") {
            dir.join("..")
        } else {
            dir.into()
        }
    });
    let build = build.expect("a program is in a directory");
    let path = std::path::absolute(build.join(name)).expect("the path is not empty");
    assert!(
        path.exists(),
        "{} is missing; build the whole workspace first",
        path.display()
    );
    path
}

/// Writes an executable shell script.
///
/// Another process writes it: a descriptor of ours, open for writing, could be
/// inherited by a program that another thread starts at that moment, and the
/// system refuses to execute a file that somebody may write.
///
/// # Panics
/// When the system refuses.
pub fn write_script(path: &Path, text: &str) {
    written_by_shell(
        r#"cat > "$1" && chmod 755 "$1""#,
        path.as_os_str(),
        OsStr::new(""),
        text,
    )
    .expect("a script can be written");
}

/// Copies a program, as [`write_script`] writes one.
///
/// # Panics
/// When the system refuses.
pub fn copy_program(from: &Path, to: &Path) {
    written_by_shell(r#"cp "$1" "$2""#, from.as_os_str(), to.as_os_str(), "")
        .expect("a program can be copied");
}

#[allow(clippy::disallowed_methods)] // The shell is no plugin.
fn written_by_shell(script: &str, first: &OsStr, second: &OsStr, stdin: &str) -> io::Result<()> {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script, "sh"])
        .args([first, second])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut pipe) = shell.stdin.take() {
        pipe.write_all(stdin.as_bytes())?;
    }
    match shell.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("the shell failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_directory_is_empty_its_own_and_gone_afterwards() {
        let (one, two) = (TestDir::new(), TestDir::new());
        assert_ne!(one.path(), two.path());
        one.assert_empty();
        write_script(&one.path().join("script"), "#!/bin/sh\n");
        assert_eq!(one.entries(), [one.path().join("script")]);
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists());
    }
}
