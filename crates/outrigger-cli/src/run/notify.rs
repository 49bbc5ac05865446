//! What a service manager is told: systemd's `sd_notify`.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The socket of a service manager, if one started this process.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// How often the manager wants to hear that this process is well.
    watchdog: Option<Duration>,
}

impl Notify {
    /// The manager that the environment names.
    pub(crate) fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let path = std::env::var_os("NOTIFY_SOCKET");
        let period = variable("WATCHDOG_USEC").and_then(|text| text.parse().ok());
        // The variables may come from a parent that was meant.
        let is_ours =
            variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        Self {
            manager: path.as_deref().and_then(manager),
            watchdog: period
                .filter(|period| *period > 0 && is_ours)
                .map(Duration::from_micros),
        }
    }

    /// How often [`alive`](Self::alive) is to be called: twice in the manager's period.
    pub(crate) fn period(&self) -> Option<Duration> {
        self.watchdog
            .filter(|_| self.manager.is_some())
            .map(|period| period / 2)
    }

    /// What was to be started is started, or known not to.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line that a person reads beside the name of the service.
    pub(crate) fn status(&self, text: &str) {
        self.send(&format!("STATUS={text}"));
    }

    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, text: &str) {
        if let Some((socket, manager)) = &self.manager {
            // A manager that does not listen any more is nobody to tell that to.
            let _ = socket.send_to_addr(text.as_bytes(), manager);
        }
    }
}

fn manager(path: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(path),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A manager that does not read must not hold up what it watches.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let name = format!("outrigger-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).expect("bound");
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("bound");
        for (socket, named) in [
            (by_path, path.into_os_string()),
            (by_name, format!("@{name}").into()),
        ] {
            let notify = Notify {
                manager: manager(&named),
                watchdog: Some(Duration::from_secs(10)),
            };
            assert_eq!(notify.period(), Some(Duration::from_secs(5)));
            notify.ready("2 plugins run");
            notify.status("1 plugin runs");
            let mut bytes = [0; 256];
            let mut next = || {
                let length = socket.recv(&mut bytes).expect("a message");
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            };
            assert_eq!(next(), "READY=1\nSTATUS=2 plugins run");
            assert_eq!(next(), "STATUS=1 plugin runs");
        }
        assert!(manager(OsStr::new("relative")).is_none());
    }
}
