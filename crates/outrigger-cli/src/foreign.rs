//! What a program is that printed no handshake line: a look at its process
//! while it still runs.

use std::collections::{BTreeSet, HashSet};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use outrigger_host::{Address, Network};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::failure::{Failure, printable};

/// Processes that are looked at: the program and what it started.
const MOST_PROCESSES: usize = 64;
/// Descriptors that are looked at of each.
const MOST_DESCRIPTORS: usize = 4096;
/// Sockets that are told.
const MOST_SOCKETS: usize = 8;
/// How much of one table of sockets is read, in bytes.
const LARGEST_TABLE: u64 = 8 << 20;
/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_millis(300);

/// What every HTTP/2 client sends first: the preface and empty settings.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of a frame of settings.
const SETTINGS: u8 = 4;

/// What was seen of a process.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Look {
    servers: Vec<Server>,
    reads_stdin: bool,
}

/// A socket on which it listens.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Server {
    address: Address,
    /// Whether HTTP/2 is spoken there, as gRPC is.
    http2: bool,
}

impl Look {
    /// Looks at the process `pid`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub(crate) async fn at(pid: u32) -> Self {
        let family = family(pid);
        let sockets: HashSet<u64> = family.iter().flat_map(|pid| sockets_of(*pid)).collect();
        // All at the same time: the start may be given up in a moment.
        let servers = listening(pid, &sockets).into_iter().map(|address| async {
            let http2 = tokio::time::timeout(ANSWER, speaks_http2(&address)).await;
            Server {
                http2: http2.unwrap_or(false),
                address,
            }
        });
        Self {
            servers: futures_util::future::join_all(servers).await,
            reads_stdin: family.iter().any(|pid| reads_stdin(*pid)),
        }
    }

    /// Tells what was seen, and what the program may be.
    pub(crate) fn told(&self, mut failure: Failure) -> Failure {
        for server in &self.servers {
            let speaks = if server.http2 {
                " and speaks HTTP/2 there"
            } else {
                ""
            };
            failure = failure.note(format!("it listens on {}{speaks}", shown(&server.address)));
        }
        if self.reads_stdin {
            failure = failure.note("it waits for input on its stdin");
        }
        if let Some(server) = self.servers.iter().find(|server| server.http2) {
            let Address { network, text } = &server.address;
            let maybe = "it may be a plain gRPC server and no go-plugin program";
            // The program chose the name of its socket, and people copy what they read.
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:[]".contains(c);
            if !text.chars().all(plain) {
                return failure.help(maybe);
            }
            return failure.help(format!(
                "{maybe}; start it by itself, and call it \
                 with `--reattach '1|1|{network}|{text}|grpc'` instead of a program"
            ));
        }
        if !self.servers.is_empty() {
            return failure.help(
                "it may be a server of another kind: a go-plugin program prints its address on stdout",
            );
        }
        match self.reads_stdin {
            true => failure
                .help("it may be a filter, or a program to talk to, and no go-plugin program"),
            false => failure,
        }
    }
}

fn shown(address: &Address) -> String {
    match address.network {
        Network::Unix => format!("the socket `{}`", printable(&address.text)),
        Network::Tcp => printable(&address.text),
    }
}

/// The process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        at += 1;
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok());
        family.extend(children.take(MOST_PROCESSES.saturating_sub(family.len())));
    }
    family
}

/// The inodes of its sockets.
fn sockets_of(pid: u32) -> Vec<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().take(MOST_DESCRIPTORS);
    entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.ok()?.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            inode.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Where the sockets of these inodes listen.
fn listening(pid: u32, sockets: &HashSet<u64>) -> Vec<Address> {
    let table = |name: &str| -> String {
        let mut text = Vec::new();
        let read = std::fs::File::open(format!("/proc/{pid}/net/{name}"))
            .and_then(|file| file.take(LARGEST_TABLE).read_to_end(&mut text));
        read.map_or_else(
            |_| String::new(),
            |_| String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let mut found = BTreeSet::new();
    for name in ["tcp", "tcp6"] {
        for line in table(name).lines().skip(1) {
            if let Some((address, inode)) = tcp_listener(line)
                && sockets.contains(&inode)
            {
                found.insert((Network::Tcp.as_str(), address.to_string()));
            }
        }
    }
    for line in table("unix").lines().skip(1) {
        if let Some((path, inode)) = unix_listener(line)
            && sockets.contains(&inode)
        {
            found.insert((Network::Unix.as_str(), path));
        }
    }
    let addresses = found.into_iter().map(|(network, text)| Address {
        network: match network {
            "unix" => Network::Unix,
            _ => Network::Tcp,
        },
        text,
    });
    addresses.take(MOST_SOCKETS).collect()
}

/// A line of `/proc/net/tcp` or `tcp6` that is of a listener: where one connects to it, and its inode.
fn tcp_listener(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each group of four bytes is a number of this machine, in hexadecimal.
    let groups: Vec<[u8; 4]> = ip
        .as_bytes()
        .chunks(8)
        .map(|group| {
            let text = std::str::from_utf8(group).ok()?;
            u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes)
        })
        .collect::<Option<_>>()?;
    let ip: IpAddr = match groups.as_slice() {
        [only] => Ipv4Addr::from(*only).into(),
        [_, _, _, _] => {
            let bytes: [u8; 16] = groups.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    let ip = match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some((SocketAddr::new(ip, port), fields.get(9)?.parse().ok()?))
}

/// A line of `/proc/net/unix` that is of a listener with a name.
fn unix_listener(line: &str) -> Option<(String, u64)> {
    let mut fields = line.split_whitespace();
    let accepts = fields.nth(3)? == "00010000";
    let inode = fields.nth(2)?.parse().ok()?;
    let path = line.split_once(&format!(" {inode} "))?.1.trim_start();
    (accepts && !path.is_empty()).then(|| (path.to_owned(), inode))
}

/// Whether what listens there answers as an HTTP/2 server does.
async fn speaks_http2(address: &Address) -> bool {
    let Ok(mut stream) = outrigger_transport::connect(address).await else {
        return false;
    };
    let mut head = [0; 9];
    let talked =
        stream.write_all(GREETING).await.is_ok() && stream.read_exact(&mut head).await.is_ok();
    talked && head[3] == SETTINGS && head[5..] == [0; 4]
}

/// Whether its main thread is in the system call that reads descriptor 0.
fn reads_stdin(pid: u32) -> bool {
    let read = match std::env::consts::ARCH {
        "x86_64" => "0",
        "aarch64" | "riscv64" => "63",
        _ => return false,
    };
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut fields = call.split_whitespace();
    fields.next() == Some(read) && fields.next() == Some("0x0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_from_the_kernels_tables() {
        let four = "   0: 00000000:C383 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0";
        let six = "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0";
        if cfg!(target_endian = "little") {
            let found = tcp_listener(four).expect("a listener");
            assert_eq!(
                (found.0.to_string().as_str(), found.1),
                ("127.0.0.1:50051", 4242)
            );
            let found = tcp_listener(six).expect("a listener");
            assert_eq!((found.0.to_string().as_str(), found.1), ("[::1]:8080", 7));
        }
        assert_eq!(tcp_listener(&four.replace(" 0A ", " 01 ")), None);
        let unix = "ffff8880: 00000002 00000000 00010000 0001 01 31337 /tmp/a b";
        assert_eq!(unix_listener(unix), Some(("/tmp/a b".to_owned(), 31337)));
        assert_eq!(unix_listener(&unix.replace("00010000", "00000000")), None);
        for bad in ["", "x", "a b c 00010000 d e f", "0: zz:1 x 0A"] {
            assert_eq!(
                (tcp_listener(bad), unix_listener(bad)),
                (None, None),
                "{bad}"
            );
        }
    }

    #[tokio::test]
    async fn the_listeners_of_a_process_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let look = Look::at(std::process::id()).await;
        let found = look
            .servers
            .iter()
            .find(|server| server.address.text == address);
        assert!(!found.expect("it is found").http2);
    }
}
