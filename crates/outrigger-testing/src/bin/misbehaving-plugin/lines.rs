//! Faults before and in the handshake line.

use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use outrigger_testing::Fault;

/// Long enough for every host to give up, short enough to leave nothing for ever.
const STAY: Duration = Duration::from_secs(120);
const GIBIBYTE: usize = 1 << 30;

/// A certificate, made with openssl.
const CERTIFICATE: &str = "MIIBuTCCAV+gAwIBAgIUH0yQCYnMDfT1n3T3oiaSG4lLhckwCgYIKoZIzj0EAwIwJjEQMA4GA1UECgwHRXhhbXBsZTESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTAxMTExMFoYDzIxMjYxMDI4MDExMTEwWjAmMRAwDgYDVQQKDAdFeGFtcGxlMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAThbAiJhLmsBElZt+FrF4NL2s1BniGMc7GkRigGGm5Z71jziqVq7LPWbrJV74OrXlQMKPqX22WHU5CXZRT91AHPo2kwZzAdBgNVHQ4EFgQUn8IsKDhvn0MXTPlkSeXUOnv6/QUwHwYDVR0jBBgwFoAUn8IsKDhvn0MXTPlkSeXUOnv6/QUwDwYDVR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwIDSAAwRQIgVMb2cMD7yIQAoQjT0TRNxdWT/qdlZLHsMfGP+WQahWwCIQCT+6OwHZOERAw1WqXm+I0+X1EbglkwDJXR96YR2r5Haw";

/// Does nothing until the host loses its patience.
pub(crate) fn stay() -> ExitCode {
    std::thread::sleep(STAY);
    ExitCode::SUCCESS
}

pub(crate) fn say(bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes.as_ref())?;
    stdout.flush()
}

pub(crate) fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Writes `piece` again and again, 1 GiB in all.
pub(crate) fn flood(to: &mut dyn Write, piece: &[u8]) -> io::Result<()> {
    let block = piece.repeat((64 << 10) / piece.len());
    for _ in 0..GIBIBYTE / block.len() {
        to.write_all(&block)?;
    }
    Ok(())
}

/// Closes this process's end of the stdout pipe.
pub(crate) fn close_stdout() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(null)?)
}

/// Closes this process's end of the stderr pipe.
pub(crate) fn close_stderr() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stderr(null)?)
}

/// Becomes itself again, through a shell that has every signal ignored.
#[allow(clippy::disallowed_methods)] // It is a plugin's own business what it becomes.
pub(crate) fn ignoring_signals(fault: Fault) -> io::Error {
    use std::os::unix::process::CommandExt;

    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return error,
    };
    Command::new("/bin/sh")
        .args([
            "-c",
            r#"trap '' HUP INT QUIT TERM USR1 USR2; exec "$0" "$@""#,
        ])
        .arg(own)
        .args([fault.as_str(), "again"])
        .exec()
}

/// Starts a process that has nothing to do and much time.
#[allow(clippy::disallowed_methods)] // It is no plugin.
pub(crate) fn child(script: &str, with_pipes: bool) -> io::Result<()> {
    let stdio = || {
        if with_pipes {
            Stdio::inherit()
        } else {
            Stdio::null()
        }
    };
    Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .map(drop)
}

/// The directory that the host has for this plugin's sockets.
fn socket_path() -> PathBuf {
    let dir =
        std::env::var_os("PLUGIN_UNIX_SOCKET_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    dir.join("misbehaving")
}

/// Listens, and gives the handshake line that says so, without its end.
pub(crate) fn listen(tail: &str) -> io::Result<(UnixListener, String)> {
    let path = socket_path();
    let listener = UnixListener::bind(&path)?;
    Ok((listener, format!("1|1|unix|{}|grpc|{tail}", path.display())))
}

/// What a line says after the protocol, so that the host goes on.
pub(crate) fn tail_of(fault: Fault) -> String {
    match fault {
        Fault::TlsGarbage | Fault::TlsSilence | Fault::TlsMissing | Fault::CertificateUnasked => {
            CERTIFICATE.to_owned()
        }
        // A DER sequence of zeros.
        Fault::CertificateHollow => format!("MEg{}", "A".repeat(96)),
        Fault::CertificateNotBase64 => "#".repeat(60),
        Fault::MuxGarbage
        | Fault::MuxSilence
        | Fault::BrokerKnockStorm
        | Fault::BrokerKnockRepeated => "|true".to_owned(),
        Fault::MuxNotABoolean => "|perhaps".to_owned(),
        _ => String::new(),
    }
}

/// Shows the faults that come before serving; `None` for the others.
pub(crate) fn before_serving(fault: Fault) -> io::Result<Option<ExitCode>> {
    let missing = socket_path();
    let missing = missing.display();
    match fault {
        Fault::GarbageLine => say("hello, I am no plugin\x1b[2J\n")?,
        Fault::EndlessLine => loop {
            say([b'x'; 4096])?;
        },
        Fault::StdoutFlood => loop {
            say("no handshake\n".repeat(512))?;
        },
        Fault::CrawlingLine => loop {
            say("1")?;
            std::thread::sleep(Duration::from_millis(50));
        },
        Fault::Silence => {}
        Fault::LineWithoutEnd => {
            let (_listener, line) = listen("")?;
            say(line)?;
            return Ok(Some(stay()));
        }
        Fault::NulInLine => say("1|1|unix|/tmp/a\0b|grpc|\n")?,
        Fault::LineNotUtf8 => say(b"1|1|unix|/tmp/a\xff\xfeb|grpc|\n")?,
        Fault::EmptyFirstLine => say(format!("\n1|1|unix|{missing}|grpc|\n"))?,
        Fault::WrongCoreVersion => say(format!("2|1|unix|{missing}|grpc|\n"))?,
        Fault::WrongAppVersion => say(format!("1|99|unix|{missing}|grpc|\n"))?,
        Fault::CoreVersionNotANumber => say(format!("one|1|unix|{missing}|grpc|\n"))?,
        Fault::AppVersionNotANumber => say(format!("1|1.0|unix|{missing}|grpc|\n"))?,
        Fault::TooFewFields => say("1|1|unix\n")?,
        Fault::ForeignNetwork => say("1|1|udp|127.0.0.1:1|grpc|\n")?,
        Fault::AddressMissing => say("1|1|unix||grpc|\n")?,
        Fault::AddressTooLong => say(format!("1|1|unix|/{}|grpc|\n", "x".repeat(60_000)))?,
        Fault::SocketMissing => say(format!("1|1|unix|{missing}|grpc|\n"))?,
        Fault::PortClosed => {
            let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            say(format!("1|1|tcp|{port}|grpc|\n"))?;
        }
        Fault::ForeignProtocol => say(format!("1|1|unix|{missing}|carrier-pigeon|\n"))?,
        Fault::ExitsBeforeHandshake => return Ok(Some(ExitCode::SUCCESS)),
        Fault::FailsBeforeHandshake => {
            complain("cannot open the database\n");
            return Ok(Some(ExitCode::from(3)));
        }
        Fault::DiesBeforeHandshake => std::process::abort(),
        Fault::ExitsDuringHandshake => {
            say("1|1|un")?;
            return Ok(Some(ExitCode::from(3)));
        }
        Fault::ExitsAfterHandshake => {
            let (_listener, line) = listen("")?;
            say(line + "\n")?;
            return Ok(Some(ExitCode::from(3)));
        }
        Fault::ExitsAndPipesAreHeld => {
            child("exec sleep 300", true)?;
            return Ok(Some(ExitCode::from(3)));
        }
        Fault::StdoutClosed => close_stdout()?,
        Fault::StderrFloodFirst => {
            let line = [b'.'; 1023];
            flood(&mut io::stderr(), &[&line[..], b"\n"].concat())?;
            return Ok(None);
        }
        Fault::StderrLineEndless => {
            flood(&mut io::stderr(), b"x")?;
            return Ok(None);
        }
        _ => return Ok(None),
    }
    Ok(Some(stay()))
}

/// Prints the line of a plugin that serves.
pub(crate) fn announce(fault: Fault, line: &str) -> io::Result<()> {
    if fault != Fault::SlowLine {
        return say(format!("{line}\n"));
    }
    for byte in format!("{line}\n").bytes() {
        say([byte])?;
        std::thread::sleep(Duration::from_millis(4));
    }
    Ok(())
}
