//! What a system error is called wherever a plugin is told of it.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// A system error, with the name, the gRPC status, the reason and the words that
/// a plugin is given for it. They are the same whether a call told it, the
/// descriptor socket, or a system call on a descriptor that was handed over.
///
/// The numbers are Linux's own; only the names travel.
///
/// # Examples
/// ```
/// use outrigger_wire::SystemError;
///
/// let full = SystemError::from_raw(28);
/// assert_eq!(full.name(), "ENOSPC");
/// assert_eq!((full.status(), full.reason()), (8, "host-resources"));
/// assert_eq!(SystemError::from_name("ENOSPC"), Some(full));
/// assert_eq!(full.to_string(), "no space left on device");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemError(i32);

/// Names by number, from 0 on; empty where Linux has no error of that number.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "", "EPERM", "ENOENT", "ESRCH", "EINTR", "EIO", "ENXIO", "E2BIG", "ENOEXEC", "EBADF",
    "ECHILD", "EAGAIN", "ENOMEM", "EACCES", "EFAULT", "ENOTBLK", "EBUSY", "EEXIST", "EXDEV", "ENODEV",
    "ENOTDIR", "EISDIR", "EINVAL", "ENFILE", "EMFILE", "ENOTTY", "ETXTBSY", "EFBIG", "ENOSPC", "ESPIPE",
    "EROFS", "EMLINK", "EPIPE", "EDOM", "ERANGE", "EDEADLK", "ENAMETOOLONG", "ENOLCK", "ENOSYS", "ENOTEMPTY",
    "ELOOP", "", "ENOMSG", "EIDRM", "ECHRNG", "EL2NSYNC", "EL3HLT", "EL3RST", "ELNRNG", "EUNATCH",
    "ENOCSI", "EL2HLT", "EBADE", "EBADR", "EXFULL", "ENOANO", "EBADRQC", "EBADSLT", "", "EBFONT",
    "ENOSTR", "ENODATA", "ETIME", "ENOSR", "ENONET", "ENOPKG", "EREMOTE", "ENOLINK", "EADV", "ESRMNT",
    "ECOMM", "EPROTO", "EMULTIHOP", "EDOTDOT", "EBADMSG", "EOVERFLOW", "ENOTUNIQ", "EBADFD", "EREMCHG", "ELIBACC",
    "ELIBBAD", "ELIBSCN", "ELIBMAX", "ELIBEXEC", "EILSEQ", "ERESTART", "ESTRPIPE", "EUSERS", "ENOTSOCK", "EDESTADDRREQ",
    "EMSGSIZE", "EPROTOTYPE", "ENOPROTOOPT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EOPNOTSUPP", "EPFNOSUPPORT", "EAFNOSUPPORT", "EADDRINUSE", "EADDRNOTAVAIL",
    "ENETDOWN", "ENETUNREACH", "ENETRESET", "ECONNABORTED", "ECONNRESET", "ENOBUFS", "EISCONN", "ENOTCONN", "ESHUTDOWN", "ETOOMANYREFS",
    "ETIMEDOUT", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "EALREADY", "EINPROGRESS", "ESTALE", "EUCLEAN", "ENOTNAM", "ENAVAIL",
    "EISNAM", "EREMOTEIO", "EDQUOT", "ENOMEDIUM", "EMEDIUMTYPE", "ECANCELED", "ENOKEY", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED",
    "EOWNERDEAD", "ENOTRECOVERABLE", "ERFKILL", "EHWPOISON",
];

/// The largest number with which a system call can fail.
const MAX_ERRNO: i32 = 4095;
const EIO: SystemError = SystemError(5);

/// What the errors of one kind have in common: the number of the gRPC status and
/// the stable reason.
type Kind = (i32, &'static str);

const INVALID_ARGUMENT: Kind = (3, "invalid-argument");
const CALL_TIMEOUT: Kind = (4, "call-timeout");
const NOT_FOUND: Kind = (5, "not-found");
const ALREADY_EXISTS: Kind = (6, "already-exists");
const HOST_PERMISSION: Kind = (7, "host-permission");
const HOST_RESOURCES: Kind = (8, "host-resources");
/// The name says which.
const OTHER: Kind = (9, "system-error");
const UNSUPPORTED: Kind = (12, "unsupported");
/// Storage itself failed.
const INTERNAL: Kind = (13, "system-error");
const UNAVAILABLE: Kind = (14, "unavailable");

impl SystemError {
    /// The error of this number.
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The error of this name, as [`name`](Self::name) gives it.
    pub fn from_name(name: &str) -> Option<Self> {
        let known = Self::known().find(|known| known.known_name() == Some(name));
        known.or_else(|| name.parse().ok().map(Self))
    }

    /// What the system said, a number from 1 to 4095; where an error is the
    /// standard library's own, the system error that is nearest to it, and else
    /// `EIO`.
    ///
    /// # Examples
    /// ```
    /// use std::io::{Error, ErrorKind};
    /// use outrigger_wire::SystemError;
    ///
    /// assert_eq!(SystemError::of(&Error::from_raw_os_error(9)).name(), "EBADF");
    /// assert_eq!(SystemError::of(&ErrorKind::InvalidInput.into()).name(), "EINVAL");
    /// assert_eq!(SystemError::of(&Error::other("odd")).name(), "EIO");
    /// ```
    pub fn of(error: &io::Error) -> Self {
        if let Some(number @ 1..=MAX_ERRNO) = error.raw_os_error() {
            return Self(number);
        }
        let name = match error.kind() {
            io::ErrorKind::InvalidInput => "EINVAL",
            io::ErrorKind::TimedOut => "ETIMEDOUT",
            io::ErrorKind::ConnectionRefused => "ECONNREFUSED",
            io::ErrorKind::ConnectionReset => "ECONNRESET",
            io::ErrorKind::BrokenPipe => "EPIPE",
            io::ErrorKind::AddrNotAvailable => "EADDRNOTAVAIL",
            _ => "EIO",
        };
        Self::from_name(name).unwrap_or(EIO)
    }

    /// The system's number.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The symbolic name, such as `ENOENT`; the number where there is none.
    pub fn name(self) -> Cow<'static, str> {
        match self.known_name() {
            Some(name) => name.into(),
            None => self.0.to_string().into(),
        }
    }

    /// The number of the gRPC status that stands for it.
    pub fn status(self) -> i32 {
        self.kind().0
    }

    /// The stable code of its kind, such as `not-found` or `host-resources`;
    /// `system-error` for those of which only the name tells more.
    pub fn reason(self) -> &'static str {
        self.kind().1
    }

    /// All that have a name.
    pub fn known() -> impl Iterator<Item = Self> {
        let numbers = (0..).zip(NAMES);
        numbers.filter_map(|(number, name)| (!name.is_empty()).then_some(Self(number)))
    }

    fn known_name(self) -> Option<&'static str> {
        let name = NAMES.get(usize::try_from(self.0).ok()?)?;
        (!name.is_empty()).then_some(name)
    }

    fn kind(self) -> Kind {
        match self.known_name().unwrap_or_default() {
            "ENOENT" | "ESRCH" => NOT_FOUND,
            "EEXIST" => ALREADY_EXISTS,
            "EINVAL" | "ENAMETOOLONG" | "EILSEQ" => INVALID_ARGUMENT,
            "ENOSPC" | "EDQUOT" | "EFBIG" | "EMFILE" | "ENFILE" | "ENOMEM" | "EMLINK" => {
                HOST_RESOURCES
            }
            "EACCES" | "EPERM" | "EROFS" => HOST_PERMISSION,
            "ETIMEDOUT" => CALL_TIMEOUT,
            "EAGAIN" | "EBUSY" | "ECONNREFUSED" | "EHOSTUNREACH" | "ENETUNREACH" => UNAVAILABLE,
            "EIO" => INTERNAL,
            "ENOSYS" | "EOPNOTSUPP" => UNSUPPORTED,
            _ => OTHER,
        }
    }
}

/// The system's own words, as Go prints them: without a number, in lower case.
impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let mut letters = text.chars();
        match letters.next() {
            Some(first) => write!(f, "{}{}", first.to_lowercase(), letters.as_str()),
            None => write!(f, "error {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_leads_back_to_its_number() {
        for error in SystemError::known() {
            assert_eq!(SystemError::from_name(&error.name()), Some(error));
        }
        for number in [-1, 0, 41, 58, 4095] {
            let error = SystemError::from_raw(number);
            assert_eq!(error.name(), number.to_string());
            assert_eq!((error.status(), error.reason()), OTHER);
            assert_eq!(SystemError::from_name(&error.name()), Some(error));
        }
        assert_eq!(SystemError::from_name("ENONSENSE"), None);
    }

    #[test]
    fn reasons_are_stable_and_of_one_status_each_but_where_storage_failed() {
        assert_eq!(SystemError::from_name("EIO"), Some(EIO));
        assert_eq!((EIO.status(), EIO.reason()), INTERNAL);
        let others = SystemError::known().filter(|error| *error != EIO);
        let kinds: BTreeSet<_> = others
            .map(|error| (error.reason(), error.status()))
            .collect();
        let expected = [
            ("already-exists", 6),
            ("call-timeout", 4),
            ("host-permission", 7),
            ("host-resources", 8),
            ("invalid-argument", 3),
            ("not-found", 5),
            ("system-error", 9),
            ("unavailable", 14),
            ("unsupported", 12),
        ];
        assert_eq!(kinds, BTreeSet::from(expected));
    }

    #[test]
    fn words_are_as_go_prints_them() {
        for (name, text) in [
            ("ENOENT", "no such file or directory"),
            ("EEXIST", "file exists"),
            ("ELOOP", "too many levels of symbolic links"),
        ] {
            let error = SystemError::from_name(name).expect(name);
            assert_eq!(error.to_string(), text);
        }
    }
}
