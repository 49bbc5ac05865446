//! A UDP socket that a plugin has as a descriptor: one end of a pair of sockets of
//! packets. The host carries each packet to the network or from there, so that it
//! is judged, counted and ended; the plugin's end leads nowhere else.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdUnixDatagram;

use outrigger_wire::proto::host::open_udp_response::Part;
use outrigger_wire::proto::host::{OpenUdpRequest, OpenUdpResponse};
use prost::Message;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::account::Account;
use super::failure;
use super::relay::{LOOK, is_closed};
use super::settings::NetworkLimits;
use super::udp::{Flow, LONGEST, OPERATION, Opened, Sender};
use crate::fault::{self, Fault};

/// The longest packet of a plugin, in bytes: a datagram and what surrounds it.
const LONGEST_PACKET: usize = LONGEST + 1024;

/// The plugin's end of `opened`, and the work that carries what it moves. The
/// socket closes when that is dropped.
pub(crate) fn packets(
    opened: Opened,
    account: Account,
    limits: &NetworkLimits,
) -> Result<(OwnedFd, impl Future<Output = ()> + Send + use<>), tonic::Status> {
    let pair = || {
        let (packets, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (given, kept) = socketpair(AddressFamily::UNIX, packets, flags, None)?;
        // Of packets, as datagrams are, and unlike them with an end.
        let kept = StdUnixDatagram::from(kept);
        kept.set_nonblocking(true)?;
        Ok((given, UnixDatagram::from_std(kept)?))
    };
    let (given, kept) = match pair() {
        Ok(pair) => pair,
        Err(error) => return Err(account.fail(failure::io(&error))),
    };
    let (flow, mut carrier) = opened.split(account, limits);
    let carrying = async move {
        let (receiving, sender) = carrier.both();
        let outcome = tokio::select! {
            outcome = from_plugin(&kept, &sender) => outcome,
            fault = to_plugin(&kept, &flow) => Err(fault),
            fault = flow.activity.over() => Err(fault),
            () = receiving => Ok(()),
        };
        match outcome {
            Ok(()) => flow.account.end(),
            Err(fault) => {
                let ended = fault::failure(&fault.status(OPERATION));
                drop(flow.account.fail(fault));
                let part = Some(Part::Ended(ended));
                let ended = OpenUdpResponse { dropped: 0, part }.encode_to_vec();
                // Only if there is room: nobody waits for the plugin.
                let _ = kept.try_send(&ended);
            }
        }
    };
    Ok((given, carrying))
}

/// Sends what the plugin sends, until its end is closed.
async fn from_plugin(pair: &UnixDatagram, sender: &Sender<'_>) -> Result<(), Fault> {
    let mut packet = vec![0; LONGEST_PACKET];
    loop {
        let received = pair.async_io(Interest::READABLE, || {
            Ok(recv(pair, &mut packet[..], RecvFlags::TRUNC)?)
        });
        let length = match received.await {
            Ok((_, length)) => length,
            // It closed before it had taken everything; what it sent comes still.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::CONNRESET) => continue,
            Err(error) => return Err(failure::io(&error)),
        };
        if length == 0 {
            break;
        }
        let Some(packet) = packet.get(..length) else {
            sender.flow.tell(&Fault::System(Errno::MSGSIZE));
            continue;
        };
        let message = OpenUdpRequest::decode(packet)
            .map_err(|_| Fault::abuse("a packet that is no message"))?;
        if sender.take(message).await? {
            return Ok(());
        }
    }
    // It sends no more; it may receive still.
    while !is_closed(pair.as_fd()) {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Hands over what came for the plugin, until that makes no sense any more.
async fn to_plugin(pair: &UnixDatagram, flow: &Flow) -> Fault {
    let mut packet = Vec::new();
    loop {
        let message = match flow.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return std::future::pending().await,
            Err(fault) => return fault,
        };
        packet.clear();
        if message.encode(&mut packet).is_err() {
            return Fault::Broken;
        }
        match pair.send(&packet).await {
            Ok(_) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                // The system's own bounds are smaller than a datagram.
                flow.waiting.drop_one();
                flow.account.dropped();
            }
            // It takes no more; what it sent may be on its way still.
            Err(_) => return std::future::pending().await,
        }
    }
}
