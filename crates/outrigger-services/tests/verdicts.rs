//! Random grants and random operations: the service's verdict is that of a
//! slow model, written from the documentation alone.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use outrigger_services::GrantedServices;
use outrigger_wire::proto::host::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::peer::{Peer, entry, grants};
use tonic::{Code, Status};

/// The directories and files that exist, without links.
const DIRS: [&str; 5] = ["a", "a/b", "a/b/c", "d", "d/e"];
const FILES: [&str; 6] = ["f", "a/f", "a/b/f", "a/b/c/f", "d/f", "d/e/f"];
/// Names that operations use: what exists, and what may be made.
const NAMES: [&str; 17] = [
    "a", "a/b", "a/b/c", "d", "d/e", "f", "a/f", "a/b/f", "a/b/c/f", "d/f", "d/e/f", "n", "a/n",
    "a/b/n", "d/n", "d/e/n", "a/b/c/n",
];
const RIGHTS: [&str; 5] = ["read", "write", "list", "create", "delete"];

type Rights = BTreeSet<&'static str>;

#[derive(Clone, Debug)]
struct Entry {
    path: &'static str,
    rights: Rights,
    recursive: bool,
}

#[derive(Clone, Debug)]
enum Operation {
    ReadFile(&'static str),
    WriteFile(&'static str),
    Stat(&'static str),
    List(&'static str),
    Mkdir(&'static str),
    Remove(&'static str),
    RemoveAll(&'static str),
    Rename(&'static str, &'static str, bool),
    Link(&'static str, &'static str),
    Symlink(&'static str),
    Copy(&'static str, &'static str),
    Chmod(&'static str),
}

/// The model: grants as sentences of the documentation.
struct Model(Vec<Entry>);

impl Model {
    fn covers(entry: &Entry, path: &str) -> bool {
        let steps = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let (top, path) = (steps(entry.path), steps(path));
        if !path.starts_with(&top) {
            return false;
        }
        entry.recursive || path.len() - top.len() <= 1
    }

    /// Whether everything that `inner` covers is covered by `outer`.
    fn contains(outer: &Entry, inner: &Entry) -> bool {
        if outer.recursive {
            Self::covers(outer, inner.path)
        } else {
            !inner.recursive && outer.path == inner.path
        }
    }

    /// One grant must have every right, its own or of a grant around it.
    fn allows(&self, path: &str, needs: &[&'static str]) -> bool {
        self.0.iter().any(|entry| {
            let around = self.0.iter().filter(|outer| Self::contains(outer, entry));
            let rights: Rights = around.flat_map(|outer| outer.rights.clone()).collect();
            Self::covers(entry, path) && needs.iter().all(|need| rights.contains(need))
        })
    }

    /// What is in a directory is shown by a grant for its tree, or for itself.
    fn lists(&self, path: &str) -> bool {
        let whole = |entry: &&Entry| entry.recursive || entry.path == path;
        self.0.iter().filter(whole).any(|entry| {
            let around = self.0.iter().filter(|outer| Self::contains(outer, entry));
            let rights: Rights = around.flat_map(|outer| outer.rights.clone()).collect();
            Self::covers(entry, path) && rights.contains("list")
        })
    }

    /// Whether it lies above something granted.
    fn above_grant(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.0.iter().any(|entry| entry.path.starts_with(&below))
    }

    /// Whether it is granted as a file.
    fn granted_file(&self, path: &str) -> bool {
        FILES.contains(&path) && self.0.iter().any(|entry| entry.path == path)
    }

    fn rights(&self, path: &str) -> Rights {
        RIGHTS
            .into_iter()
            .filter(|right| self.allows(path, &[*right]))
            .collect()
    }

    /// Whether a directory that was granted is `path` or beneath it; a granted
    /// file only beneath it.
    fn holds_grant(&self, path: &str) -> bool {
        self.0.iter().any(|entry| {
            let beneath = entry.path.starts_with(&format!("{path}/"));
            beneath || (entry.path == path && DIRS.contains(&path))
        })
    }

    fn gains(&self, from: &str, to: &str) -> bool {
        let below = |path: &str| format!("{path}/x");
        !self.rights(to).is_subset(&self.rights(from))
            || !self
                .rights(&below(to))
                .is_subset(&self.rights(&below(from)))
    }

    /// Whether the operation is refused on the tree as it is at first.
    fn refuses(&self, operation: &Operation) -> bool {
        let exists = |path: &&str| DIRS.contains(path) || FILES.contains(path);
        let write = |path: &str| {
            if exists(&path) {
                !self.allows(path, &["write"])
            } else {
                !self.allows(path, &["write", "create"])
            }
        };
        match operation {
            Operation::ReadFile(path) => !self.allows(path, &["read"]),
            Operation::WriteFile(path) => write(path),
            Operation::Stat(path) => !self.allows(path, &["read"]) && !self.allows(path, &["list"]),
            Operation::List(path) => !self.lists(path),
            Operation::Mkdir(path) => !self.allows(path, &["create"]) || self.granted_file(path),
            Operation::Symlink(path) => {
                let granted = self.0.iter().any(|entry| entry.path == *path);
                !self.allows(path, &["create"]) || granted || self.above_grant(path)
            }
            Operation::Remove(path) | Operation::RemoveAll(path) => {
                !self.allows(path, &["delete"]) || (exists(path) && self.holds_grant(path))
            }
            Operation::Rename(from, to, replace) => {
                let target = if *replace && exists(to) {
                    !self.allows(to, &["create", "delete"])
                } else {
                    !self.allows(to, &["create"])
                };
                !self.allows(from, &["delete"])
                    || target
                    || self.holds_grant(from)
                    || self.holds_grant(to)
                    || self.gains(from, to)
                    || (DIRS.contains(from) && self.granted_file(to))
            }
            Operation::Link(from, to) => {
                !self.allows(from, &["read"])
                    || !self.allows(to, &["create"])
                    || self.gains(from, to)
                    || self.above_grant(to)
            }
            Operation::Copy(from, to) => {
                !self.allows(from, &["read"]) || (!DIRS.contains(from) && write(to))
            }
            Operation::Chmod(path) => !self.allows(path, &["write"]),
        }
    }
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMES[..])
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let paths = prop::sample::select([&DIRS[..], &FILES[..3]].concat());
    let rights = prop::sample::subsequence(&RIGHTS[..], 1..=5);
    let one = (paths, rights, any::<bool>()).prop_map(|(path, rights, recursive)| Entry {
        path,
        rights: rights.into_iter().collect(),
        recursive: recursive && !FILES.contains(&path),
    });
    prop::collection::vec(one, 1..4)
}

fn operations() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        names().prop_map(ReadFile),
        names().prop_map(WriteFile),
        names().prop_map(Stat),
        names().prop_map(List),
        names().prop_map(Mkdir),
        names().prop_map(Remove),
        names().prop_map(RemoveAll),
        (names(), names(), any::<bool>()).prop_map(|(from, to, replace)| Rename(from, to, replace)),
        (names(), names()).prop_map(|(from, to)| Link(from, to)),
        names().prop_map(Symlink),
        (names(), names()).prop_map(|(from, to)| Copy(from, to)),
        names().prop_map(Chmod),
    ]
}

fn plant(top: &Path) {
    for dir in DIRS {
        std::fs::create_dir_all(top.join(dir)).expect("a directory");
    }
    for file in FILES {
        std::fs::write(top.join(file), file).expect("a file");
    }
}

async fn attempt(peer: &Peer, top: &Path, operation: &Operation) -> Result<(), Status> {
    let at = |path: &str| top.join(path).to_str().expect("UTF-8").to_owned();
    macro_rules! call {
        ($method:literal, $response:ty, $request:expr) => {
            peer.call::<_, $response>(concat!("Filesystem/", $method), $request)
                .await
                .map(drop)
        };
    }
    match operation {
        Operation::ReadFile(path) => {
            call!(
                "ReadFile",
                ReadFileResponse,
                ReadFileRequest { path: at(path) }
            )
        }
        Operation::WriteFile(path) => {
            let request = WriteFileRequest {
                path: at(path),
                data: "changed".into(),
                ..Default::default()
            };
            call!("WriteFile", WriteFileResponse, request)
        }
        Operation::Stat(path) => call!("Stat", StatResponse, StatRequest { path: at(path) }),
        Operation::List(path) => {
            let request = ListRequest {
                path: at(path),
                ..Default::default()
            };
            call!("List", ListResponse, request)
        }
        Operation::Mkdir(path) => {
            let request = MkdirRequest {
                path: at(path),
                ..Default::default()
            };
            call!("Mkdir", MkdirResponse, request)
        }
        Operation::Remove(path) => {
            call!("Remove", RemoveResponse, RemoveRequest { path: at(path) })
        }
        Operation::RemoveAll(path) => {
            call!(
                "RemoveAll",
                RemoveAllResponse,
                RemoveAllRequest { path: at(path) }
            )
        }
        Operation::Rename(from, to, replace) => {
            let request = RenameRequest {
                from: at(from),
                to: at(to),
                replace: *replace,
            };
            call!("Rename", RenameResponse, request)
        }
        Operation::Link(from, to) => {
            let request = LinkRequest {
                existing: at(from),
                new: at(to),
            };
            call!("Link", LinkResponse, request)
        }
        Operation::Symlink(path) => {
            let request = SymlinkRequest {
                target: "f".into(),
                new: at(path),
            };
            call!("Symlink", SymlinkResponse, request)
        }
        Operation::Copy(from, to) => {
            let request = CopyRequest {
                from: at(from),
                to: at(to),
                replace: true,
            };
            call!("Copy", CopyResponse, request)
        }
        Operation::Chmod(path) => {
            let request = ChmodRequest {
                path: at(path),
                mode: 0o700,
            };
            call!("Chmod", ChmodResponse, request)
        }
    }
}

#[test]
fn the_verdict_is_that_of_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let base = tempfile::tempdir().expect("a directory");
    let base = base.path().canonicalize().expect("its name");
    let turn = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let cases = (entries(), prop::collection::vec(operations(), 1..12));
    let outcome = runner.run(&cases, |(entries, operations)| {
        turn.set(turn.get() + 1);
        let case: PathBuf = base.join(format!("case-{}", turn.get()));
        let texts: Vec<String> = {
            plant(&case);
            let text = |e: &Entry| {
                let rights: Vec<_> = e.rights.iter().copied().collect();
                entry(&case.join(e.path), &rights.join(", "), e.recursive)
            };
            // The same path twice is one request.
            let mut seen = BTreeSet::new();
            entries
                .iter()
                .filter(|entry| seen.insert(entry.path))
                .map(text)
                .collect()
        };
        let mut seen = BTreeSet::new();
        let entries = entries.into_iter().filter(|entry| seen.insert(entry.path));
        let model = Model(entries.collect());
        let granted = grants(&format!("{{filesystem: [{}]}}", texts.join(", ")));
        runtime.block_on(async {
            let connect = async || {
                Peer::new(&GrantedServices::new(granted.clone()), "guesser").await
            };
            let mut peer = connect().await;
            for operation in &operations {
                let outcome = attempt(&peer, &case, operation).await;
                let refused = matches!(&outcome, Err(status) if status.code() == Code::PermissionDenied);
                let expected = model.refuses(operation);
                // It may fail for another reason before the last of its rights is
                // looked at, but it must not succeed.
                if (refused && !expected) || (expected && outcome.is_ok()) {
                    return Err(TestCaseError::fail(format!(
                        "{operation:?} under {texts:?}: {outcome:?}, the model says refused: {expected}"
                    )));
                }
                // Whatever it did is undone.
                if !refused {
                    std::fs::remove_dir_all(&case).expect("removed");
                    plant(&case);
                    // What was granted is another directory now.
                    std::mem::replace(&mut peer, connect().await).close().await;
                }
            }
            peer.close().await;
            Ok(())
        })?;
        std::fs::remove_dir_all(&case).expect("removed");
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
