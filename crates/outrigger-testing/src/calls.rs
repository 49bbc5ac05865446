//! System calls that older kernels do not have, refused for real.

use std::error::Error;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// The system calls newer than Linux 3.2, the oldest kernel that Rust runs on,
/// that this workspace uses, by itself or through its libraries.
pub const NEWER_CALLS: &[(&str, i64)] = &[
    ("close_range", libc::SYS_close_range),
    ("copy_file_range", libc::SYS_copy_file_range),
    ("faccessat2", libc::SYS_faccessat2),
    ("getrandom", libc::SYS_getrandom),
    ("openat2", libc::SYS_openat2),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("preadv2", libc::SYS_preadv2),
    ("renameat2", libc::SYS_renameat2),
    ("statx", libc::SYS_statx),
];

/// The first number that all architectures share: everything since Linux 5.1.
const FIRST_SHARED: i64 = libc::SYS_pidfd_send_signal;
/// More than Linux has.
const BEYOND: i64 = 700;

/// Refuses a system call to this thread and to whatever it starts from now on,
/// with `ENOSYS` or `EPERM`. `all` are all of [`NEWER_CALLS`] and every other
/// one since Linux 5.1, known here or not. Needs no rights; cannot be undone.
///
/// `clone3` and `getrandom` are answered with ENOSYS then, whatever is asked
/// for: after EPERM, glibc starts no thread and AWS-LC, which TLS is made with,
/// ends the process.
///
/// # Errors
/// A name that is not in [`NEWER_CALLS`], another answer, or a kernel without filters.
pub fn refuse(call: &str, answer: &str) -> Result<(), Box<dyn Error>> {
    let errno = match answer {
        "ENOSYS" => libc::ENOSYS,
        "EPERM" => libc::EPERM,
        other => return Err(format!("no answer: {other}").into()),
    };
    let known = NEWER_CALLS.iter().find(|(name, _)| *name == call);
    match (call, known) {
        ("all", _) => {
            let missing = [libc::SYS_clone3, libc::SYS_getrandom];
            let newer = NEWER_CALLS.iter().map(|(_, number)| *number);
            let all = newer.chain(FIRST_SHARED..BEYOND);
            answer_with(errno, all.filter(|number| !missing.contains(number)))?;
            answer_with(libc::ENOSYS, missing)
        }
        (_, Some((_, number))) => answer_with(errno, [*number]),
        (_, None) => Err(format!("no newer call: {call}").into()),
    }
}

fn answer_with(errno: i32, calls: impl IntoIterator<Item = i64>) -> Result<(), Box<dyn Error>> {
    let filter = SeccompFilter::new(
        calls
            .into_iter()
            .map(|number| (number, Vec::new()))
            .collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}
