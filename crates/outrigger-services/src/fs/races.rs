//! Attacks on the resolution of paths: names that are exchanged while they are
//! used, with and without `openat2`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, RenameFlags};
use rustix::io::Errno;

use super::call::FileCall;
use super::open::LentFile;
use super::open_file::OpenFile;
use super::place::Opening;
use super::requested_path::RequestedPath;
use crate::fault::Fault;
use crate::testing::file_call;

/// A thread that exchanges pairs of names as fast as it can until dropped.
struct Swapping {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapping {
    fn start(pairs: Vec<[PathBuf; 2]>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let swap = move || {
            while !stopped.load(Ordering::Relaxed) {
                for [a, b] in &pairs {
                    rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
                        .expect("exchanged");
                }
            }
        };
        Self {
            stop,
            thread: Some(std::thread::spawn(swap)),
        }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wanted(call: &FileCall, path: &str) -> RequestedPath {
    call.path(path).expect("a path")
}

/// Opens and reads in each of the ways that a plugin can.
fn read(call: &FileCall, path: &str, way: usize) -> Option<Result<Vec<u8>, Fault>> {
    let wanted = wanted(call, path);
    let from = |lent: Result<LentFile, Fault>| {
        lent.and_then(|lent| {
            let text = lent.file.read(100, 0, true)?;
            call.session.give_back::<OpenFile>(&lent.lease)?;
            Ok(text)
        })
    };
    let outcome = match way {
        0 => call.at_once().read_file(&wanted, ""),
        1 => call.read_file(&wanted, ""),
        2 => from(call.at_once().lend(&wanted, Opening::READ)),
        3 => from(call.lend(&wanted, Opening::READ)),
        _ => {
            let how = Opening {
                write: true,
                ..Opening::READ
            };
            from(call.lend(&wanted, how))
        }
    };
    match outcome {
        Err(Fault::WouldWait) => None,
        outcome => Some(outcome),
    }
}

fn race(stepwise: bool, turns: usize) {
    let base = tempfile::tempdir().expect("a directory");
    let base = base.path().canonicalize().expect("its name");
    let at = |path: &str| base.join(path);
    for (dir, text) in [("granted", "inside"), ("outside", "SECRET")] {
        std::fs::create_dir_all(at(dir).join("dir")).expect("a directory");
        std::fs::create_dir_all(at(dir).join("last")).expect("a directory");
        std::fs::write(at(dir).join("dir/file"), text).expect("a file");
        std::fs::write(at(dir).join("last/file"), text).expect("a file");
    }
    std::os::unix::fs::symlink(at("outside/dir"), at("granted/link")).expect("a link");
    std::os::unix::fs::symlink("../../outside/last/file", at("granted/last/link")).expect("a link");
    let granted = at("granted");
    std::fs::create_dir(granted.join("dir/sub")).expect("a directory");
    let call = file_call(
        &[(&granted, "read, write, list, create, delete", true)],
        stepwise,
    );
    let pairs = [["dir", "link"], ["last/file", "last/link"]];
    let pairs = pairs.map(|pair| pair.map(|name| granted.join(name)));
    let swapping = Swapping::start(pairs.to_vec());
    let (mut inside, mut refused, mut turn) = (0, 0, 0);
    let until = Instant::now() + Duration::from_secs(120);
    // A busy machine may need more turns before the race has happened.
    while turn < turns || inside.min(refused) < 1000 {
        assert!(
            Instant::now() < until,
            "no race: {inside} inside, {refused} refused"
        );
        let path = ["dir/file", "last/file", "dir/../dir/file"][turn % 3];
        match read(&call, path, turn / 3 % 5) {
            Some(Ok(text)) => {
                assert_eq!(text, b"inside", "leaked on turn {turn}");
                inside += 1;
            }
            Some(Err(_)) => refused += 1,
            // The quick way left it to the other one.
            None => {}
        }
        if turn % 100 == 0 {
            // Changes must not get out either; that they fail is fine.
            let _ = call.mkdir(&wanted(&call, "dir/made"), Mode::RWXU);
            let _ = call.chmod(&wanted(&call, "dir"), Mode::RWXU | Mode::ROTH);
            let _ = call.remove_all(&wanted(&call, "dir/made"));
            let how = Opening {
                write: true,
                create: true,
                exclusive: true,
                ..Opening::default()
            };
            let _ = call.write_file(&wanted(&call, "dir/new"), how, b"new");
            let _ = call.remove(&wanted(&call, "dir/new"));
            if let Ok(mut listing) = call.listing(&wanted(&call, "dir")) {
                let listed = listing.each(|name, _| {
                    assert_ne!(name, c"outside-only");
                    Ok(())
                });
                // It may have been taken away meanwhile.
                assert!(matches!(listed, Ok(()) | Err(Fault::System(Errno::NOENT))));
            }
            // What is on the way is not what was named: the exchange of it would fail.
            for _ in 0..4 {
                let _ = call.remove_all(&wanted(&call, "dir/./sub/../sub/none"));
                let _ = call.remove_all(&wanted(&call, "dir/sub/none"));
            }
        }
        if turn == 0 {
            std::fs::write(at("outside/dir/outside-only"), b"").expect("a file");
        }
        turn += 1;
    }
    drop(swapping);
    let left = |dir: &str| {
        let mut names: Vec<String> = std::fs::read_dir(at(dir))
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name().into_string())
            .collect::<Result<_, _>>()
            .expect("UTF-8");
        names.sort();
        names
    };
    assert_eq!(left("outside/dir"), ["file", "outside-only"]);
    for file in ["outside/dir/file", "outside/last/file"] {
        assert_eq!(std::fs::read(at(file)).expect("there"), b"SECRET");
    }
    let mode = |dir: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(at(dir)).expect("there").mode() & 0o7
    };
    assert_eq!(
        mode("outside/dir"),
        mode("outside/last"),
        "its mode changed"
    );
}

#[test]
fn links_swapped_in_during_200_000_opens_leak_nothing() {
    race(false, 200_000);
}

#[test]
fn links_swapped_in_during_30_000_opens_without_openat2_leak_nothing() {
    race(true, 30_000);
}

#[test]
fn a_grant_is_what_was_taken_whatever_happens_to_its_path() {
    for stepwise in [false, true] {
        let base = tempfile::tempdir().expect("a directory");
        let base = base.path().canonicalize().expect("its name");
        let granted = base.join("granted");
        std::fs::create_dir(&granted).expect("a directory");
        std::fs::write(granted.join("file"), b"inside").expect("a file");
        let call = file_call(&[(&granted, "read", true)], stepwise);
        std::fs::rename(&granted, base.join("moved")).expect("moved");
        std::fs::create_dir(&granted).expect("a directory");
        std::fs::write(granted.join("file"), b"OTHER").expect("a file");
        let path = granted.join("file");
        let path = path.to_str().expect("UTF-8");
        let read = call.read_file(&wanted(&call, path), "").expect("there");
        assert_eq!(read, b"inside");
    }
}
