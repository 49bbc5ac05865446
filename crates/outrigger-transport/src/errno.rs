//! Names of system errors.

use rustix::io::Errno;

const NAMES: &[(Errno, &str)] = &[
    (Errno::NOENT, "ENOENT"),
    (Errno::EXIST, "EEXIST"),
    (Errno::NOTDIR, "ENOTDIR"),
    (Errno::ISDIR, "EISDIR"),
    (Errno::NOTEMPTY, "ENOTEMPTY"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NAMETOOLONG, "ENAMETOOLONG"),
    (Errno::LOOP, "ELOOP"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::DQUOT, "EDQUOT"),
    (Errno::FBIG, "EFBIG"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NFILE, "ENFILE"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::MLINK, "EMLINK"),
    (Errno::ACCESS, "EACCES"),
    (Errno::PERM, "EPERM"),
    (Errno::ROFS, "EROFS"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::BUSY, "EBUSY"),
    (Errno::TXTBSY, "ETXTBSY"),
    (Errno::XDEV, "EXDEV"),
    (Errno::IO, "EIO"),
    (Errno::BADF, "EBADF"),
    (Errno::NODEV, "ENODEV"),
    (Errno::NXIO, "ENXIO"),
    (Errno::SRCH, "ESRCH"),
    (Errno::PIPE, "EPIPE"),
    (Errno::NOSYS, "ENOSYS"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::CONNRESET, "ECONNRESET"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::DESTADDRREQ, "EDESTADDRREQ"),
    (Errno::MSGSIZE, "EMSGSIZE"),
    (Errno::ISCONN, "EISCONN"),
    (Errno::ADDRINUSE, "EADDRINUSE"),
    (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
];

/// The name of the system error `raw`, as host services tell it and plugins
/// compare it; its number where it has no name here.
///
/// # Examples
/// ```
/// let missing = std::io::Error::from_raw_os_error(2);
/// let raw = missing.raw_os_error().expect("a system error");
/// assert_eq!(outrigger_transport::errno_name(raw), "ENOENT");
/// assert_eq!(outrigger_transport::errno_name(4095), "4095");
/// ```
pub fn errno_name(raw: i32) -> String {
    let known = NAMES.iter().find(|(errno, _)| errno.raw_os_error() == raw);
    known.map_or_else(|| raw.to_string(), |(_, name)| (*name).to_owned())
}
