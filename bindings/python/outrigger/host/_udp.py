"""UDP, by descriptor, by packets over a socket, or by call."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import queue
import select
import socket
import threading
from typing import TYPE_CHECKING

import grpc

from ._calls import Closing
from ._errors import HostError, as_host_error, system_error, told_failure
from ._messages import as_milliseconds, message, message_class
from ._streams import LINGER_SECONDS, WAITING
from ._tcp import socket_address

if TYPE_CHECKING:
    from ._calls import Replies
    from ._tcp import Sending

# The most contents of a datagram that is sent, and room for a packet of the host's with one.
LONGEST_DATAGRAM = 65_507

LONGEST_PACKET = (64 << 10) + 1024

OPEN_UDP = "network.open_udp"


def socket_gone() -> HostError:
    unreachable = grpc.StatusCode.UNAVAILABLE
    return HostError(OPEN_UDP, f"{OPEN_UDP}: the host has ended the socket", code="socket-gone", grpc_code=unreachable)


class UdpSocket(Closing):
    """A UDP socket of the host. One thread may receive while others send.

    Datagrams keep their bounds and may get lost: on the network, and at the host while the plugin
    takes none, which dropped() counts. What became of a datagram that was sent is raised, if at
    all, by a later recv(): the socket goes on. When the host ends it, recv() says once why.
    """

    def __init__(self, connected) -> None:
        self._remote = socket_address(connected.remote_address)
        self._local = socket_address(connected.local_address)
        self._dropped = 0

    def peer_addr(self) -> tuple[str, int] | None:
        """The only address that it leads to; None at a port."""
        return self._remote

    def local_addr(self) -> tuple[str, int] | None:
        """The host's own address."""
        return self._local

    def dropped(self) -> int:
        """How many datagrams the host dropped because the plugin did not take them, as far as it said."""
        return self._dropped

    def send(self, data: bytes) -> int:
        """Send a datagram to the one place that the socket leads to."""
        if self._remote is None:
            raise system_error(OPEN_UDP, errno.EDESTADDRREQ)
        return self._send_datagram(data, "")

    def send_to(self, data: bytes, target: tuple[str, int]) -> int:
        """Send a datagram: at a port, to one of those from whom something came."""
        host, port = ipaddress.ip_address(target[0]), target[1]
        if self._remote is None:
            return self._send_datagram(data, f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}")
        if (host, port) != (ipaddress.ip_address(self._remote[0]), self._remote[1]):
            raise system_error(OPEN_UDP, errno.EISCONN)
        return self._send_datagram(data, "")

    def recv(self, size: int = LONGEST_PACKET, timeout: float | None = None) -> bytes:
        """Receive a datagram; TimeoutError where none comes in time.

        One that is longer than `size` is lost, and raises HostError with the code
        datagram-truncated.
        """
        return self.recv_from(size, timeout)[0]

    def recv_from(self, size: int = LONGEST_PACKET, timeout: float | None = None):
        """Receive a datagram as recv() does, and say who sent it."""
        while True:
            reply = self._message(timeout)
            self._dropped += reply.dropped
            part = reply.WhichOneof("part")
            if part in ("failure", "ended"):
                raise told_failure(OPEN_UDP, getattr(reply, part))
            if part == "datagram":
                break
        data, address = reply.datagram.data, reply.datagram.address
        if len(data) > size:
            text = f"{OPEN_UDP}: a datagram of {len(data)} bytes is longer than the {size} that were asked for"
            out_of_range = grpc.StatusCode.OUT_OF_RANGE
            raise HostError(OPEN_UDP, text, code="datagram-truncated", grpc_code=out_of_range)
        return data, self._remote or socket_address(address)

    def _send_datagram(self, data: bytes, address: str) -> int:
        if len(data) > LONGEST_DATAGRAM:
            raise system_error(OPEN_UDP, errno.EMSGSIZE)
        self._send({"datagram": message("Datagram", data=bytes(data), address=address)})
        return len(data)

    def _send(self, part: dict) -> None:
        raise NotImplementedError

    def _message(self, timeout: float | None):
        """The next message of the host; raises what ended the socket."""
        raise NotImplementedError


class UdpPackets(UdpSocket):
    """A UDP socket that was handed over: one end of a pair of sockets of packets."""

    def __init__(self, pair: socket.socket, connected) -> None:
        super().__init__(connected)
        pair.setblocking(True)
        self._pair = pair

    def _send(self, part: dict) -> None:
        packet = message("OpenUdpRequest", **part).SerializeToString()
        self._check_open()
        with as_host_error(OPEN_UDP):
            try:
                self._pair.send(packet)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise socket_gone() from error

    def _check_open(self) -> None:
        if self._pair.fileno() < 0:
            raise socket_gone()

    def _message(self, timeout: float | None):
        self._check_open()
        if timeout is not None:
            poller = select.poll()
            poller.register(self._pair, select.POLLIN)
            if not poller.poll(as_milliseconds(timeout)):
                raise TimeoutError(f"{OPEN_UDP}: nothing came in {timeout} s")
        with as_host_error(OPEN_UDP):
            while True:
                # The host did not take everything; what it sent is there.
                with contextlib.suppress(ConnectionResetError):
                    packet = self._pair.recv(LONGEST_PACKET)
                    break
        if not packet:
            raise socket_gone()
        return message_class("OpenUdpResponse").FromString(packet)

    def close(self) -> None:
        # Wakes who receives.
        with contextlib.suppress(OSError):
            self._pair.shutdown(socket.SHUT_RDWR)
        self._pair.close()


class UdpCalls(UdpSocket):
    """A UDP socket by a call."""

    def __init__(self, sending: Sending, replies: Replies, connected) -> None:
        super().__init__(connected)
        self._sending, self._replies = sending, replies
        replies.on_end(sending.end)
        self._arrived: queue.Queue = queue.Queue(WAITING)
        self._closed = threading.Event()
        self._wrote = False
        # A stream of replies cannot be waited for in time.
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        try:
            for reply in self._replies:
                self._arrive(reply)
        except HostError as error:
            self._arrive(error)
        finally:
            self._arrive(None)

    def _arrive(self, reply) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                return self._arrived.put(reply, timeout=0.05)

    def _send(self, part: dict) -> None:
        if self._closed.is_set():
            raise socket_gone()
        self._wrote = True
        try:
            self._sending.send(part)
        except HostError as error:
            raise socket_gone() from error

    def _message(self, timeout: float | None):
        if self._closed.is_set():
            raise socket_gone()
        try:
            reply = self._arrived.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"{OPEN_UDP}: nothing came in {timeout} s") from None
        if isinstance(reply, HostError):
            raise reply
        if reply is None:
            # For whoever asks again.
            self._arrived.put(None)
            raise socket_gone()
        return reply

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        # Wakes who receives; whoever asks later is told at once.
        with contextlib.suppress(queue.Empty):
            while True:
                self._arrived.get_nowait()
        with contextlib.suppress(queue.Full):
            self._arrived.put_nowait(None)
        if not self._wrote:
            self._sending.end()
            self._replies.close()
            return
        # What was sent goes out; the host ends the call then.
        late = threading.Timer(LINGER_SECONDS, self._replies.close)
        late.daemon = True
        self._replies.on_end(late.cancel)
        late.start()
        with contextlib.suppress(HostError):
            self._sending.send({"close": True})
