//! The guarded way to a file compared with the plain one: nothing is reached
//! that lies outside, and everything that stays inside is.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::Stat;

use super::call::FileCall;
use crate::fault::Fault;
use crate::testing::file_call;

/// One thing in the tree.
#[derive(Clone, Debug)]
enum Node {
    Dir,
    File,
    Link(String),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn nodes() -> impl Strategy<Value = Vec<(Vec<&'static str>, Node)>> {
    let names = || prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4);
    let steps = prop::sample::select(&["a", "b", "c", "..", "."][..]);
    let text = (prop::collection::vec(steps, 1..5), 0..5)
        .prop_map(|(steps, kind)| (steps.join("/"), kind));
    let link = text.prop_map(|(text, kind)| match kind {
        // Absolute, inside and outside; the rest is relative.
        0 => Node::Link(format!("INSIDE/{text}")),
        1 => Node::Link(format!("OUTSIDE/{text}")),
        _ => Node::Link(text),
    });
    let node = prop_oneof![3 => Just(Node::Dir), 2 => Just(Node::File), 4 => link];
    prop::collection::vec((names(), node), 1..14)
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    let step = prop::sample::select(&["a", "b", "c", "a", "b", "c", "..", ".", ""][..]);
    let path = prop::collection::vec(step, 1..6).prop_map(|steps| {
        let path = steps.join("/");
        // An absolute one would mean something else.
        if path.starts_with('/') {
            format!(".{path}")
        } else {
            path
        }
    });
    prop::collection::vec(path, 1..12)
}

fn plant(top: &Path, outside: &Path, nodes: &[(Vec<&str>, Node)]) {
    for (steps, node) in nodes {
        let path = top.join(steps.join("/"));
        // Whatever is in the way stays, and nothing is made through a link.
        let mut parent = top.to_owned();
        for step in &steps[..steps.len() - 1] {
            parent.push(step);
            if parent.canonicalize().is_ok_and(|real| real != parent) {
                break;
            }
            let _ = std::fs::create_dir(&parent);
        }
        if Some(parent.as_path()) != path.parent() || !parent.is_dir() || parent.is_symlink() {
            continue;
        }
        let _ = match node {
            Node::Dir => std::fs::create_dir(&path),
            Node::File => match path.symlink_metadata() {
                Ok(_) => Ok(()),
                Err(_) => std::fs::write(&path, steps.join("/")),
            },
            Node::Link(text) => {
                let text = text.replace("INSIDE", top.to_str().expect("UTF-8"));
                symlink(
                    text.replace("OUTSIDE", outside.to_str().expect("UTF-8")),
                    &path,
                )
            }
        };
    }
}

/// Where a path leads, taken step by step by its names; nothing when a step
/// leaves the top or something is missing.
fn inside(top: &Path, path: &str) -> Option<PathBuf> {
    let split = |path: &Path| -> VecDeque<OsString> { path.iter().map(OsString::from).collect() };
    let (mut at, mut todo, mut links) = (top.to_owned(), split(Path::new(path)), 0);
    while let Some(step) = todo.pop_front() {
        if step == "." {
            continue;
        }
        if step == ".." {
            if at == top || !at.is_dir() {
                return None;
            }
            at.pop();
            continue;
        }
        let next = at.join(&step);
        let Ok(text) = std::fs::read_link(&next) else {
            next.symlink_metadata().ok()?;
            at = next;
            continue;
        };
        links += 1;
        if links > 40 {
            return None;
        }
        let mut ahead = if text.is_absolute() {
            at = top.to_owned();
            split(text.strip_prefix(top).ok()?)
        } else {
            split(&text)
        };
        ahead.append(&mut todo);
        todo = ahead;
    }
    Some(at)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn compare(call: &FileCall, top: &Path, path: &str) -> Result<(), TestCaseError> {
    let wanted = match call.path(path) {
        Ok(wanted) => wanted,
        Err(_) => return Ok(()),
    };
    let (expected, found) = (inside(top, path), call.stat(&wanted));
    match (&expected, &found) {
        (Some(expected), Ok(known)) => {
            let stat = rustix::fs::stat(expected).expect("there");
            prop_assert_eq!(identity(&stat), identity(&known.stat), "{}", path);
        }
        (None, Ok(_)) => prop_assert!(false, "{} was reached", path),
        // A file spelled as a directory.
        (Some(expected), Err(_)) if wanted.dir_only && !expected.is_dir() => {}
        (Some(_), Err(fault)) => prop_assert!(false, "{} was refused: {:?}", path, fault),
        (None, Err(_)) => {}
    }
    // The quick way says the same, or nothing.
    let now = call.at_once().stat(&wanted);
    if !matches!(now, Err(Fault::WouldWait)) {
        let now = now.map(|known| identity(&known.stat)).map_err(drop);
        prop_assert_eq!(now, found.map(|known| identity(&known.stat)).map_err(drop));
    }
    // Contents come from inside, whatever the kernel thinks of the path.
    if let Ok(contents) = call.read_file(&wanted, "") {
        prop_assert_ne!(&contents, b"SECRET");
        // The kernel refuses a link whose text spells a file as a directory.
        let real = top.join(path).canonicalize();
        prop_assert!(real.is_err() || real.is_ok_and(|real| real.starts_with(top)));
    }
    match call.remove_all(&wanted) {
        Ok(()) | Err(Fault::Refused(_) | Fault::Outside | Fault::System(_)) => Ok(()),
        Err(fault) => Err(TestCaseError::fail(format!("{path}: {fault:?}"))),
    }
}

fn run(stepwise: bool, cases: u32) {
    let base = tempfile::tempdir().expect("a directory");
    let base = base.path().canonicalize().expect("its name");
    let (top, outside) = (base.join("top"), base.join("outside"));
    std::fs::create_dir_all(outside.join("a/b")).expect("directories");
    for file in ["c", "a/c", "a/b/c"] {
        std::fs::write(outside.join(file), "SECRET").expect("a file");
    }
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&(nodes(), paths()), |(nodes, paths)| {
        std::fs::create_dir(&top).expect("a directory");
        plant(&top, &outside, &nodes);
        let call = file_call(
            &[(&top, "read, write, list, create, delete", true)],
            stepwise,
        );
        let outcome = paths.iter().try_for_each(|path| compare(&call, &top, path));
        std::fs::remove_dir_all(&top).expect("removed");
        outcome
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    for file in ["c", "a/c", "a/b/c"] {
        let contents = std::fs::read(outside.join(file)).expect("still there");
        assert_eq!(contents, b"SECRET");
    }
}

#[test]
fn every_spelling_leads_where_its_steps_lead_inside_and_nowhere_else() {
    run(false, 300);
}

#[test]
fn every_spelling_leads_to_the_same_without_openat2() {
    run(true, 200);
}
