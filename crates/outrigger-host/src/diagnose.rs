//! Facts about a program that did not start as a plugin.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use outrigger_wire::Excerpt;

use crate::program::{ProgramNotFound, is_bare, locate};

/// Bytes of a program that are looked at.
const HEAD: usize = 4096;

/// What a look at a program shows: enough to tell a wrong file from a wrong
/// architecture from missing rights.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The program.
    pub path: PathBuf,
    /// What is there, if anything.
    pub file: Option<FileFacts>,
}

/// What the file system and the first bytes of a program say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileFacts {
    /// Permission bits and file type, as `ls -l` shows them.
    pub mode: String,
    /// Owner and group, by number.
    pub owner: (u32, u32),
    /// User and group of this process, by number.
    pub current: (u32, u32),
    /// Whether any execute bit is set.
    pub executable: bool,
    /// What kind of program it is.
    pub kind: ProgramKind,
}

/// What the first bytes of a program say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgramKind {
    /// A directory.
    Directory,
    /// An ELF program for this machine.
    Elf {
        /// Its architecture.
        architecture: String,
        /// Whether this host runs it.
        runs_here: bool,
        /// The dynamic loader it asks for, if that does not exist.
        missing_loader: Option<String>,
    },
    /// A Mach-O program, for macOS.
    MachO,
    /// A PE program, for Windows.
    Pe,
    /// A script.
    Script {
        /// The interpreter of its first line, escaped and cut.
        interpreter: String,
        /// Whether the interpreter exists.
        exists: bool,
    },
    /// Empty, text, data.
    Other,
    /// It could not be read.
    Unreadable,
}

/// Looks at the program that `program` means: a name without a slash is looked
/// up in `PATH`. Never fails: what cannot be seen is absent.
pub fn diagnose(program: &Path) -> Diagnosis {
    match locate(program) {
        Ok(path) => look_at(&path),
        Err(error) => diagnose_not_found(&error),
    }
}

/// Looks at what was found instead of a program, if anything was.
pub(crate) fn diagnose_not_found(error: &ProgramNotFound) -> Diagnosis {
    match error.passed_over() {
        Some(path) => look_at(path),
        None => Diagnosis {
            path: error.program().to_owned(),
            file: None,
        },
    }
}

fn look_at(path: &Path) -> Diagnosis {
    let file = std::fs::metadata(path).ok().map(|meta| FileFacts {
        mode: mode_text(&meta),
        owner: (meta.uid(), meta.gid()),
        current: (
            rustix::process::geteuid().as_raw(),
            rustix::process::getgid().as_raw(),
        ),
        executable: meta.permissions().mode() & 0o111 != 0,
        kind: if meta.is_dir() {
            ProgramKind::Directory
        } else {
            kind_of(path)
        },
    });
    Diagnosis {
        path: path.to_owned(),
        file,
    }
}

impl Diagnosis {
    /// The reason and the remedy, where the facts alone tell.
    pub(crate) fn verdict(&self) -> Option<(&'static str, String)> {
        let Some(file) = &self.file else {
            let remedy = match is_bare(&self.path) {
                true => "install it in a directory of PATH, or give its path with a slash",
                false => "build it or correct its path",
            };
            return Some(("program-not-found", remedy.into()));
        };
        match &file.kind {
            ProgramKind::Directory => Some((
                "program-is-a-directory",
                "name the program inside it".into(),
            )),
            _ if !file.executable => Some((
                "program-not-executable",
                "make it executable (`chmod +x`)".into(),
            )),
            ProgramKind::Elf {
                architecture,
                runs_here: false,
                ..
            } => Some((
                "wrong-architecture",
                format!(
                    "it is ELF {architecture} and this host is {}; rebuild it for this host",
                    std::env::consts::ARCH
                ),
            )),
            ProgramKind::Elf {
                missing_loader: Some(loader),
                ..
            } => Some((
                "interpreter-not-found",
                format!(
                    "its dynamic loader `{loader}` does not exist; install it or link statically"
                ),
            )),
            ProgramKind::MachO => Some((
                "wrong-architecture",
                "it is a macOS program; install its Linux release".into(),
            )),
            ProgramKind::Pe => Some((
                "wrong-architecture",
                "it is a Windows program; install its Linux release".into(),
            )),
            ProgramKind::Script {
                interpreter,
                exists: false,
            } => Some((
                "interpreter-not-found",
                format!(
                    "its first line names {interpreter}, which does not exist; install it or change the line"
                ),
            )),
            ProgramKind::Elf { .. }
            | ProgramKind::Script { .. }
            | ProgramKind::Other
            | ProgramKind::Unreadable => None,
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        let Some(file) = &self.file else {
            return f.write_str(match is_bare(&self.path) {
                true => "not found in PATH",
                false => "nothing is there",
            });
        };
        let (uid, gid) = file.owner;
        let (own_uid, own_gid) = file.current;
        write!(
            f,
            "mode {}, owner {uid}:{gid} (current {own_uid}:{own_gid}), ",
            file.mode
        )?;
        match &file.kind {
            ProgramKind::Directory => f.write_str("a directory"),
            ProgramKind::Elf { architecture, .. } => {
                write!(f, "ELF {architecture} (current {})", std::env::consts::ARCH)
            }
            ProgramKind::MachO => f.write_str("a Mach-O program"),
            ProgramKind::Pe => f.write_str("a PE program"),
            ProgramKind::Script { interpreter, .. } => write!(f, "a script for {interpreter}"),
            ProgramKind::Other => f.write_str("no known program format"),
            ProgramKind::Unreadable => f.write_str("unreadable"),
        }
    }
}

fn mode_text(meta: &std::fs::Metadata) -> String {
    let mode = meta.permissions().mode();
    let mut text = String::from(if meta.is_dir() { "d" } else { "-" });
    for shift in [6, 3, 0] {
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            text.push(if mode >> shift & bit != 0 {
                letter
            } else {
                '-'
            });
        }
    }
    text
}

fn kind_of(path: &Path) -> ProgramKind {
    // Opening a FIFO or a device could block.
    if !std::fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
        return ProgramKind::Other;
    }
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    if read.is_err() {
        return ProgramKind::Unreadable;
    }
    match head.as_slice() {
        [0x7f, b'E', b'L', b'F', ..] => elf(&head),
        [b'#', b'!', line @ ..] => script(line),
        [b'M', b'Z', ..] => ProgramKind::Pe,
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => ProgramKind::MachO,
        _ => ProgramKind::Other,
    }
}

fn script(line: &[u8]) -> ProgramKind {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let interpreter = text.split_whitespace().next().unwrap_or_default();
    ProgramKind::Script {
        interpreter: Excerpt::new(interpreter.as_bytes()).to_string(),
        exists: Path::new(interpreter).exists(),
    }
}

fn elf(head: &[u8]) -> ProgramKind {
    let little = head.get(5) != Some(&2);
    let wide = head.get(4) == Some(&2);
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(length)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if little {
            bytes.iter().rev().fold(0, add)
        } else {
            bytes.iter().fold(0, add)
        })
    };
    let (architecture, rust_name) = match number(18, 2) {
        Some(3) => ("i386", "x86"),
        Some(40) => ("arm", "arm"),
        Some(62) => ("x86_64", "x86_64"),
        Some(183) => ("aarch64", "aarch64"),
        Some(243) => ("riscv64", "riscv64"),
        Some(258) => ("loongarch64", "loongarch64"),
        Some(22) => ("s390x", "s390x"),
        Some(21) => ("powerpc64", "powerpc64"),
        _ => ("unknown", ""),
    };
    let runs_here = rust_name == std::env::consts::ARCH
        || (rust_name == "x86" && std::env::consts::ARCH == "x86_64");
    let loader = wide.then(|| loader_of(head, &number)).flatten();
    ProgramKind::Elf {
        architecture: architecture.to_owned(),
        runs_here,
        missing_loader: loader.filter(|loader| !Path::new(loader).exists()),
    }
}

/// The dynamic loader that a 64-bit ELF program asks for.
fn loader_of(head: &[u8], number: &dyn Fn(usize, usize) -> Option<u64>) -> Option<String> {
    const INTERPRETER: u64 = 3;
    let table = usize::try_from(number(32, 8)?).ok()?;
    let (size, count) = (usize::try_from(number(54, 2)?).ok()?, number(56, 2)?);
    for index in 0..usize::try_from(count.min(64)).ok()? {
        let entry = table.checked_add(index.checked_mul(size)?)?;
        if number(entry, 4)? == INTERPRETER {
            let at = usize::try_from(number(entry + 8, 8)?).ok()?;
            let length = usize::try_from(number(entry + 32, 8)?).ok()?;
            let name = head.get(at..at.checked_add(length)?)?;
            let name = name.strip_suffix(b"\0").unwrap_or(name);
            return String::from_utf8(name.to_vec()).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(content: &[u8], mode: u32) -> Option<&'static str> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("program");
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        diagnose(&path).verdict().map(|(code, _)| code)
    }

    fn elf_for(machine: u16) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        head
    }

    #[test]
    fn each_wrong_program_has_its_verdict() {
        let missing = diagnose(Path::new("/nonexistent/program"));
        assert_eq!(
            missing.verdict().map(|(code, _)| code),
            Some("program-not-found")
        );
        assert_eq!(
            diagnose(Path::new("/tmp")).verdict().map(|v| v.0),
            Some("program-is-a-directory")
        );
        assert_eq!(
            verdict_of(b"#!/bin/sh\n", 0o644),
            Some("program-not-executable")
        );
        assert_eq!(verdict_of(b"#!/bin/sh\n", 0o755), None);
        assert_eq!(
            verdict_of(b"#!/no/such/interpreter -x\n", 0o755),
            Some("interpreter-not-found")
        );
        assert_eq!(
            verdict_of(&elf_for(0x1234), 0o755),
            Some("wrong-architecture")
        );
        assert_eq!(verdict_of(b"MZ\x90\x00", 0o755), Some("wrong-architecture"));
        assert_eq!(
            verdict_of(&[0xcf, 0xfa, 0xed, 0xfe], 0o755),
            Some("wrong-architecture")
        );
        assert_eq!(verdict_of(b"", 0o755), None);
    }

    #[test]
    fn this_program_runs_here() {
        let own = std::env::current_exe().expect("a path");
        assert_eq!(diagnose(&own).verdict(), None);
        assert!(diagnose(&own).to_string().contains(std::env::consts::ARCH));
    }

    #[test]
    fn hostile_headers_do_no_harm() {
        let mut head = elf_for(62);
        head[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        head[54..58].copy_from_slice(&[0xff; 4]);
        assert_eq!(verdict_of(&head, 0o755), None);
        assert_eq!(verdict_of(b"\x7fELF", 0o755), Some("wrong-architecture"));
    }
}
