//! Faults of a plugin that announced itself well.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use outrigger_testing::Fault;

use crate::http2::{
    CONTINUATION, Call, Connection, DATA, END_HEADERS, END_STREAM, GO_AWAY, HEADERS, Io, PING,
    RESET, RESPONSE, SETTINGS, WINDOW_UPDATE, framed,
};
use crate::lines::{
    announce, child, close_stderr, close_stdout, complain, flood, listen, stay, tail_of,
};
use crate::yamux::FirstStream;

/// The last line on stderr of a plugin whose flood is over.
const FLOOD_IS_OVER: &str = "\nthe flood is over\n";
const STORM: u32 = 100_000;
/// How long a plugin that takes its time takes before it agrees to end.
const LATE: Duration = Duration::from_millis(700);
/// How much a flood of the stdio stream holds, in bytes.
const STDIO_FLOOD: usize = 1 << 30;

pub(crate) fn serve(fault: Fault) -> io::Result<ExitCode> {
    let (listener, line) = listen(&tail_of(fault))?;
    match fault {
        Fault::ChildHoldsPipes => child("exec sleep 300", true)?,
        Fault::ChildKeepsRunning | Fault::ChildStaysToo => child("exec sleep 300", false)?,
        Fault::LeavesDaemon => child("setsid sleep 300 &", false)?,
        _ => {}
    }
    announce(fault, &line)?;
    if fault == Fault::NeverAccepts {
        return Ok(stay());
    }
    let (socket, _) = listener.accept()?;
    if let Some(outcome) = instead_of_http2(fault, socket.try_clone()?)? {
        return Ok(outcome);
    }
    while_serving(fault);
    let multiplexed = matches!(fault, Fault::BrokerKnockStorm | Fault::BrokerKnockRepeated);
    let stream: Box<dyn Io> = match multiplexed {
        true => Box::new(FirstStream::new(socket.try_clone()?)),
        false => Box::new(socket.try_clone()?),
    };
    let mut connection = Connection::start(stream)?;
    match answer(fault, &mut connection, &socket) {
        Ok(Next::Exit(code)) => Ok(code),
        Ok(Next::Stay) => Ok(stay()),
        // Whoever is to stay does so without its host, too.
        Err(_) => {
            let _ = socket.shutdown(std::net::Shutdown::Both);
            Ok(stay())
        }
    }
}

/// Shows the faults of a plugin that speaks something else.
fn instead_of_http2(fault: Fault, mut socket: UnixStream) -> io::Result<Option<ExitCode>> {
    match fault {
        Fault::AcceptsAndCloses => {
            socket.shutdown(std::net::Shutdown::Both)?;
        }
        Fault::AcceptsAndSaysNothing | Fault::TlsSilence | Fault::MuxSilence => {}
        Fault::AcceptsAndTrickles => socket.write_all(&[0, 0])?,
        Fault::AnswersHttp1 | Fault::MuxGarbage => {
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
        }
        Fault::AnswersGarbage | Fault::TlsGarbage => {
            let garbage: Vec<u8> = (0..4096_u32).map(|n| (n * 167 + 13) as u8).collect();
            socket.write_all(&garbage)?;
        }
        Fault::AnswersTlsAlert => socket.write_all(&[21, 3, 3, 0, 2, 2, 80])?,
        Fault::TlsMissing => socket.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])?,
        _ => return Ok(None),
    }
    Ok(Some(stay()))
}

/// Starts what goes on beside the calls.
fn while_serving(fault: Fault) {
    std::thread::spawn(move || {
        let line = [&[b'.'; 1023][..], b"\n"].concat();
        let done = match fault {
            Fault::StdoutFloodWhileServing => flood(&mut io::stdout(), &line),
            Fault::StderrFloodWhileServing => flood(&mut io::stderr(), &line),
            Fault::StdoutClosedWhileServing => close_stdout(),
            Fault::StderrClosedWhileServing => close_stderr(),
            _ => return,
        };
        if done.is_ok() {
            complain(FLOOD_IS_OVER);
        }
    });
}

enum Next {
    Exit(ExitCode),
    Stay,
}

fn answer(mut fault: Fault, connection: &mut Connection, socket: &UnixStream) -> io::Result<Next> {
    at_once(fault, connection, socket)?;
    loop {
        let (id, call) = connection.next()?;
        match (fault, call) {
            (
                Fault::IgnoresShutdown
                | Fault::ChildStaysToo
                | Fault::IgnoresSignals
                | Fault::NeverAnswers,
                Call::Shutdown,
            ) => {}
            (Fault::AgreesAndStays, Call::Shutdown) => {
                connection.reply(id, b"")?;
                return Ok(Next::Stay);
            }
            (Fault::ControllerMissing, Call::Shutdown) => connection.unimplemented(id)?,
            (Fault::AgreesLate, Call::Shutdown) => {
                std::thread::sleep(LATE);
                connection.reply(id, b"")?;
                return Ok(Next::Exit(ExitCode::SUCCESS));
            }
            (Fault::AgreesAndWaits, Call::Shutdown) => {
                connection.reply(id, b"")?;
                while connection.take_frame().is_ok() {}
                return Ok(Next::Exit(ExitCode::SUCCESS));
            }
            (_, Call::Shutdown) => {
                connection.reply(id, b"")?;
                return Ok(Next::Exit(ExitCode::SUCCESS));
            }
            (Fault::StdioFlood, Call::Stdio) => flood_stdio(connection, id)?,
            (Fault::StdioForeign, Call::Stdio) => {
                connection.begin(id)?;
                connection.data(id, &framed(&stdio(77, b"for nobody")).repeat(100))?;
            }
            (Fault::ResetsCalls, Call::Stdio | Call::Health) => {
                connection.frame(RESET, 0, id, &[0, 0, 0, 2])?;
            }
            (_, Call::Stdio | Call::BrokerEnd | Call::Other) => {}
            (_, Call::Health) => {
                if let Some(next) = checked(fault, connection, id)? {
                    return Ok(next);
                }
                if is_over(fault) {
                    // One is enough; from now on everything goes well.
                    fault = Fault::SlowLine;
                }
            }
        }
    }
}

/// What comes before any call.
fn at_once(fault: Fault, connection: &mut Connection, socket: &UnixStream) -> io::Result<()> {
    match fault {
        Fault::HugeFrames => {
            connection.raw(&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1])?;
            loop {
                connection.raw(&[0; 64 << 10])?;
            }
        }
        Fault::SettingsFlood => {
            let mut taken = socket.try_clone()?;
            std::thread::spawn(move || while matches!(taken.read(&mut [0; 4096]), Ok(1..)) {});
            loop {
                connection.frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0].repeat(100))?;
            }
        }
        Fault::PingFlood => loop {
            connection.frame(PING, 0, 0, b"flooding")?;
        },
        Fault::WindowOverflow => {
            let most = i32::MAX.to_be_bytes();
            connection.frame(WINDOW_UPDATE, 0, 0, &most)?;
            connection.frame(WINDOW_UPDATE, 0, 0, &most)
        }
        Fault::GoAwayAtOnce => connection.frame(GO_AWAY, 0, 0, &[0; 8]),
        _ => Ok(()),
    }
}

/// How a health check is answered.
fn checked(fault: Fault, connection: &mut Connection, id: u32) -> io::Result<Option<Next>> {
    match fault {
        Fault::NeverAnswers => {
            complain("called\n");
            return Ok(None);
        }
        Fault::HangsUp => return Err(io::ErrorKind::ConnectionAborted.into()),
        Fault::HangsUpAndEnds => {
            complain("about to end\n");
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                std::process::exit(0);
            });
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Fault::DiesDuringCall => {
            complain("about to die\n");
            std::process::abort();
        }
        Fault::ExitsDuringCall => {
            complain("about to give up\n");
            return Ok(Some(Next::Exit(ExitCode::from(3))));
        }
        Fault::EndlessHeaders => {
            connection.frame(HEADERS, 0, id, RESPONSE)?;
            let field = [b"\x00\x01x\x7e".as_slice(), &[b'y'; 126]].concat();
            loop {
                connection.frame(CONTINUATION, 0, id, &field)?;
            }
        }
        Fault::HugeMessage => {
            connection.begin(id)?;
            connection.data(id, &[0, 0xff, 0xff, 0xff, 0xff])?;
            trickle(connection, id)?;
        }
        Fault::HugeMessageTrickled => {
            connection.begin(id)?;
            connection.data(id, &[0, 0x7f, 0xff, 0xff, 0xfe])?;
            trickle(connection, id)?;
        }
        Fault::StatusMissing => {
            connection.begin(id)?;
            connection.frame(DATA, END_STREAM, id, b"")?;
            return Ok(None);
        }
        Fault::BrokerMissing => {
            let broker = connection.broker()?;
            connection.unimplemented(broker)?;
        }
        Fault::BrokerAnnouncementStorm => {
            let messages = (1..=STORM).map(|id| announcement(id, "/nonexistent/socket"));
            storm(connection, messages)?;
        }
        Fault::BrokerKnockStorm => storm(connection, (1..=STORM).map(knock))?,
        Fault::BrokerKnockRepeated => storm(connection, (1..=STORM).map(|_| knock(1)))?,
        Fault::BrokerNonsense => {
            storm(
                connection,
                [announcement(7, "\0"), b"\xff\xff\xff".to_vec()].into_iter(),
            )?;
        }
        _ => {}
    }
    connection.reply(id, &[0x08, 0x01])?;
    Ok(None)
}

/// Whether a fault is shown once, at the first health check.
fn is_over(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::BrokerAnnouncementStorm
            | Fault::BrokerKnockStorm
            | Fault::BrokerKnockRepeated
            | Fault::BrokerNonsense
            | Fault::BrokerMissing
    )
}

fn trickle(connection: &mut Connection, id: u32) -> io::Result<()> {
    loop {
        connection.data(id, b"x")?;
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn storm(connection: &mut Connection, messages: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
    let stream = connection.broker()?;
    connection.frame(HEADERS, END_HEADERS, stream, RESPONSE)?;
    let bytes: Vec<u8> = messages.flat_map(|message| framed(&message)).collect();
    for part in bytes.chunks(16 << 10) {
        while !connection.has_room(stream, part.len()) {
            connection.take_frame()?;
        }
        connection.data(stream, part)?;
    }
    Ok(())
}

fn flood_stdio(connection: &mut Connection, id: u32) -> io::Result<()> {
    connection.begin(id)?;
    let message = framed(&stdio(1, &[b'.'; 16_000]));
    for _ in 0..STDIO_FLOOD / message.len() {
        while !connection.has_room(id, message.len()) {
            match connection.take_frame()? {
                Some((call, Call::Health)) => connection.reply(call, &[0x08, 0x01])?,
                Some((call, Call::Shutdown)) => {
                    connection.reply(call, b"")?;
                    std::process::exit(0);
                }
                _ => {}
            }
        }
        connection.data(id, &message)?;
    }
    connection.end(id)
}

/// Output for one channel: the channel's number, then the bytes.
fn stdio(channel: u8, bytes: &[u8]) -> Vec<u8> {
    [
        &[0x08, channel, 0x12],
        varint(bytes.len() as u32).as_slice(),
        bytes,
    ]
    .concat()
}

/// An id and the unix socket where it is accepted.
fn announcement(id: u32, address: &str) -> Vec<u8> {
    let (id, length) = (varint(id), varint(address.len() as u32));
    [
        &[0x08],
        id.as_slice(),
        b"\x12\x04unix\x1a",
        &length,
        address.as_bytes(),
    ]
    .concat()
}

fn knock(id: u32) -> Vec<u8> {
    [&[0x08], varint(id).as_slice(), &[0x22, 0x02, 0x08, 0x01]].concat()
}

fn varint(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
