//! Where a process listens for its peer: unix sockets in a directory, or TCP
//! ports of the loopback interface.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use outrigger_wire::{Address, Network, PortRange};
use tokio::net::{TcpListener, UnixListener};

use crate::stream::Stream;

/// The longest path a unix socket address holds, in bytes, without the NUL.
const MAX_SOCKET_PATH: usize = 107;
/// The longest name of a socket that a plugin's library may pick, in bytes.
const LONGEST_NAME: usize = "plugin12345678901234567890".len();
/// The longest that we pick.
const LONGEST_OWN_NAME: usize = "plugin1234567890".len();
/// How often a taken name is replaced by another one.
const NAME_ATTEMPTS: u32 = 16;
/// Where temporary files go when nothing says otherwise.
const TEMP_DIR: &str = "/tmp";

/// The system's directory for temporary files: what `TMPDIR` names, and `/tmp`
/// where that is unset or empty.
pub fn temp_dir() -> PathBuf {
    temp_dir_of(std::env::var_os("TMPDIR"))
}

fn temp_dir_of(variable: Option<OsString>) -> PathBuf {
    let named = variable.filter(|dir| !dir.is_empty());
    named.unwrap_or_else(|| TEMP_DIR.into()).into()
}

/// An absolute directory for unix sockets: `name` beneath `parent`, or beneath
/// `/tmp` where sockets there could not be announced to a peer: the path is too
/// long for a socket's address, is not UTF-8, or has a `|` or a line break in it.
///
/// # Errors
/// When `parent` is relative and the current directory is gone.
pub fn socket_place(parent: &Path, name: &str) -> io::Result<PathBuf> {
    place(parent, name, LONGEST_NAME)
}

fn place(parent: &Path, name: &str, longest: usize) -> io::Result<PathBuf> {
    let place = match parent.as_os_str().is_empty() {
        true => temp_dir(),
        false => std::path::absolute(parent)?,
    };
    let place = place.join(name);
    let length = place.as_os_str().len() + "/".len() + longest;
    let fits = length <= MAX_SOCKET_PATH && Address::unix(&place).is_some();
    Ok(match fits {
        true => place,
        false => Path::new(TEMP_DIR).join(name),
    })
}

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The directory, the socket or its rights were refused.
    #[error("could not listen on `{path}`")]
    Unix {
        /// The path of the socket.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The group that should own the socket does not exist.
    #[error("no group is named `{group}`")]
    UnknownGroup {
        /// The name as configured.
        group: String,
    },
    /// No port of the range could be bound.
    #[error("could not listen on any port from {min} to {max} of 127.0.0.1")]
    NoPort {
        /// First port of the range.
        min: u16,
        /// Last port of the range.
        max: u16,
        /// Why the last port was refused.
        #[source]
        source: io::Error,
    },
}

impl SocketError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unix { .. } => "socket-refused",
            Self::UnknownGroup { .. } => "socket-group-unknown",
            Self::NoPort { .. } => "no-free-port",
        }
    }

    /// What the reader can do now.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownGroup { .. } => Some("name an existing group or give its number"),
            Self::Unix { .. } | Self::NoPort { .. } => None,
        }
    }
}

impl outrigger_wire::Coded for SocketError {
    fn code(&self) -> &'static str {
        Self::code(self)
    }

    fn hint(&self) -> Option<std::borrow::Cow<'static, str>> {
        Self::hint(self).map(Into::into)
    }
}

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// Unix sockets or TCP.
    pub network: Network,
    /// The directory of unix sockets; the system's temporary one if absent, and
    /// `/tmp` where sockets in it [could not be announced](socket_place).
    pub dir: Option<PathBuf>,
    /// This process made `dir`: it is made again where a cleaner of temporary
    /// files has removed it, with mode 0700 (0770 for a group), and refused where
    /// somebody else has made one of its name meanwhile.
    pub owned: bool,
    /// Group name or number that owns the sockets, which then have mode 0660.
    pub group: Option<String>,
    /// The ports to try, in order; any free one if absent.
    pub ports: Option<PortRange>,
}

impl Sockets {
    /// Unix sockets in `dir`.
    pub fn unix(dir: Option<PathBuf>) -> Self {
        Self {
            network: Network::Unix,
            dir,
            owned: false,
            group: None,
            ports: None,
        }
    }

    /// TCP on the loopback interface.
    pub fn tcp(ports: Option<PortRange>) -> Self {
        Self {
            network: Network::Tcp,
            dir: None,
            owned: false,
            group: None,
            ports,
        }
    }

    /// Binds a fresh listener. It accepts connections from now on.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub async fn bind(&self) -> Result<BoundListener, SocketError> {
        match self.network {
            Network::Unix => self.bind_unix(),
            Network::Tcp => self.bind_tcp().await,
        }
    }

    fn bind_unix(&self) -> Result<BoundListener, SocketError> {
        let dir = self.dir.clone().unwrap_or_else(temp_dir);
        if self.owned {
            self.own(&dir)?;
        }
        let dir = place(&dir, "", LONGEST_OWN_NAME).map_err(|source| SocketError::Unix {
            path: dir.display().to_string(),
            source,
        })?;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        let mut path = dir.clone();
        for _ in 0..NAME_ATTEMPTS {
            // The name is no secret, and one that is taken is noticed: the standard
            // library's random seed does, and spares plugin authors two crates.
            let number = RandomState::new().build_hasher().finish();
            path = dir.join(format!("plugin{}", number % 10_000_000_000));
            match UnixListener::bind(&path) {
                Ok(listener) => {
                    let bound = SocketFile(path);
                    self.give_to_group(&bound.0, 0o660)?;
                    let text = bound.0.display().to_string();
                    return Ok(BoundListener {
                        address: Address {
                            network: Network::Unix,
                            text,
                        },
                        listener: Bound::Unix(listener),
                        file: Some(bound),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
        Err(SocketError::Unix {
            path: path.display().to_string(),
            source: last,
        })
    }

    /// The number of the group that owns the sockets, if they have one.
    ///
    /// # Errors
    /// [`SocketError::UnknownGroup`].
    pub fn group_id(&self) -> Result<Option<u32>, SocketError> {
        let group = self.group.as_deref().filter(|group| !group.is_empty());
        group.map(group_id).transpose()
    }

    /// Makes `dir` again if it is gone.
    fn own(&self, dir: &Path) -> Result<(), SocketError> {
        let refused = |source| SocketError::Unix {
            path: dir.display().to_string(),
            source,
        };
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => return self.give_to_group(dir, 0o770),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused(error)),
        }
        let found = std::fs::symlink_metadata(dir).map_err(refused)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            let text = "the directory for sockets was replaced by one that is not this user's";
            return Err(refused(io::Error::other(text)));
        }
        Ok(())
    }

    fn give_to_group(&self, path: &Path, mode: u32) -> Result<(), SocketError> {
        let Some(gid) = self.group_id()? else {
            return Ok(());
        };
        let refused = |source| SocketError::Unix {
            path: path.display().to_string(),
            source,
        };
        std::os::unix::fs::chown(path, None, Some(gid)).map_err(refused)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(refused)
    }

    async fn bind_tcp(&self) -> Result<BoundListener, SocketError> {
        let (min, max) = self.ports.map_or((0, 0), |ports| (ports.min, ports.max));
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in min..=max {
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => {
                    let text = match listener.local_addr() {
                        Ok(address) => address.to_string(),
                        Err(source) => return Err(SocketError::NoPort { min, max, source }),
                    };
                    return Ok(BoundListener {
                        address: Address {
                            network: Network::Tcp,
                            text,
                        },
                        listener: Bound::Tcp(listener),
                        file: None,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(SocketError::NoPort {
            min,
            max,
            source: last,
        })
    }
}

/// The number of a group given by name or by number.
fn group_id(group: &str) -> Result<u32, SocketError> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let unknown = || SocketError::UnknownGroup {
        group: group.to_owned(),
    };
    let table = std::fs::read_to_string("/etc/group").map_err(|_| unknown())?;
    table
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next()? == group).then(|| fields.nth(1)?.parse().ok())?)
        .ok_or_else(unknown)
}

/// A listener and the address that reaches it. Dropping it removes its file.
#[derive(Debug)]
pub struct BoundListener {
    address: Address,
    listener: Bound,
    file: Option<SocketFile>,
}

/// The listening socket itself.
#[derive(Debug)]
pub enum Bound {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

impl BoundListener {
    /// The address to tell the peer.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// What the system said; the listener stays usable.
    ///
    /// # Cancel safety
    /// No connection is lost when the future is dropped.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.listener {
            Bound::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Bound::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Removes the socket file now; connections can no longer be made.
    pub fn unlink(&mut self) {
        self.file = None;
    }
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The directory may already be gone, and the file with it.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_listener_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let bound = Sockets::unix(Some(dir.path().to_owned()))
            .bind()
            .await
            .expect("a socket");
        assert!(Path::new(&bound.address().text).exists());
        drop(bound);
        assert_eq!(std::fs::read_dir(dir.path()).expect("a listing").count(), 0);
    }

    #[tokio::test]
    async fn a_group_by_number_or_name_gets_mode_0660() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = rustix::process::getgid().as_raw();
        let mut sockets = Sockets::unix(Some(dir.path().to_owned()));
        sockets.group = Some(own.to_string());
        let bound = sockets.bind().await.expect("a socket");
        let meta = std::fs::metadata(&bound.address().text).expect("metadata");
        assert_eq!((meta.mode() & 0o777, meta.gid()), (0o660, own));
        sockets.group = Some("no such group".into());
        let error = sockets.bind().await.expect_err("refused");
        assert_eq!(error.code(), "socket-group-unknown");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a listing").count(), 1);
    }

    #[test]
    fn an_empty_directory_for_temporary_files_counts_as_unset() {
        let dir = |text: Option<&str>| temp_dir_of(text.map(OsString::from));
        assert_eq!(dir(None), Path::new("/tmp"));
        assert_eq!(dir(Some("")), Path::new("/tmp"));
        assert_eq!(dir(Some("/var/tmp")), Path::new("/var/tmp"));
    }

    #[tokio::test]
    async fn a_directory_of_ones_own_is_made_again_and_no_other_is_taken() {
        let base = tempfile::tempdir().expect("a directory");
        let dir = base.path().join("dir");
        let own = rustix::process::getgid().as_raw();
        for (group, mode) in [(None, 0o700), (Some(own.to_string()), 0o770)] {
            let sockets = Sockets {
                owned: true,
                group,
                ..Sockets::unix(Some(dir.clone()))
            };
            for _ in 0..2 {
                drop(sockets.bind().await.expect("a socket"));
                let meta = std::fs::metadata(&dir).expect("made again");
                assert_eq!(meta.mode() & 0o777, mode);
            }
            std::fs::remove_dir_all(&dir).expect("removed");
            // A link leads to where somebody else may be at home.
            std::os::unix::fs::symlink(base.path(), &dir).expect("linked");
            let error = sockets.bind().await.expect_err("refused");
            assert_eq!(error.code(), "socket-refused");
            std::fs::remove_file(&dir).expect("removed");
        }
        // What somebody else made is not made again.
        let error = Sockets::unix(Some(dir.clone())).bind().await;
        assert_eq!(error.expect_err("refused").code(), "socket-refused");
        assert!(!dir.exists());
    }

    #[tokio::test]
    async fn sockets_that_could_not_be_announced_are_made_in_tmp() {
        use std::os::unix::ffi::OsStrExt;
        let base = tempfile::tempdir().expect("a directory");
        let long = "x".repeat(120);
        let names: [&[u8]; 6] = [
            b"a|b",
            b"a\nb",
            b"a\rb",
            b"caf\xe9",
            long.as_bytes(),
            b"plain and simple",
        ];
        for name in names {
            let dir = base.path().join(std::ffi::OsStr::from_bytes(name));
            std::fs::create_dir(&dir).expect("made");
            let sockets = Sockets::unix(Some(dir.clone()));
            let bound = sockets.bind().await.expect("bound");
            let path = Path::new(&bound.address().text);
            let expected = match name {
                b"plain and simple" => dir.as_path(),
                _ => Path::new("/tmp"),
            };
            assert_eq!(path.parent(), Some(expected));
            let text = bound.address().to_string();
            assert!(!text.contains(['|', '\n', '\r', char::REPLACEMENT_CHARACTER]));
            crate::connect(bound.address()).await.expect("reached");
        }
    }

    #[tokio::test]
    async fn the_address_of_a_socket_is_absolute() {
        // A peer has another current directory.
        let place = socket_place(Path::new("here"), "dir").expect("there is a directory");
        assert!(
            place.is_absolute() && place.ends_with("here/dir"),
            "{place:?}"
        );
        let nowhere = socket_place(Path::new(""), "dir").expect("temporary");
        assert_eq!(nowhere, temp_dir().join("dir"));
    }

    #[tokio::test]
    async fn a_port_range_is_searched_in_order() {
        let free = Sockets::tcp(None).bind().await.expect("a port");
        let port: u16 = free
            .address()
            .text
            .rsplit(':')
            .next()
            .and_then(|p| p.parse().ok())
            .expect("a port");
        let error = Sockets::tcp(Some(PortRange {
            min: port,
            max: port,
        }))
        .bind()
        .await;
        assert_eq!(error.expect_err("taken").code(), "no-free-port");
    }
}
