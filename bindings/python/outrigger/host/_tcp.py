"""TCP, by descriptor or by call."""

from __future__ import annotations

import contextlib
import errno
import queue
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._calls import Closing
from ._errors import HostError, as_host_error, system_error, unexpected
from ._messages import message
from ._streams import LINGER_SECONDS, SENT, WAITING, PartStream, parts_of

if TYPE_CHECKING:
    from ._calls import Replies
    from ._connection import Connection

# How much may come for a connection that was closed.
DISCARDED = 256 << 10


def socket_address(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdecimal() else None


class TcpStream(PartStream):
    """A connection: a raw stream to read and write.

    As with a socket, what was written goes out after close(): for LINGER_SECONDS, while the plugin
    runs, and unless the peer goes on sending: what comes is not wanted.

    One to an address may be a socket that the host carries. When its peer breaks off, its time is
    up, or the host ends, it ends as if the peer had finished: a protocol that does not mark its
    own end cannot tell. Any other raises HostError then.
    """

    def __init__(self, connected) -> None:
        super().__init__()
        self._remote = socket_address(connected.remote_address)
        self._local = socket_address(connected.local_address)

    def peer_addr(self) -> tuple[str, int] | None:
        """Address and port at the other end, if the host said."""
        return self._remote

    def local_addr(self) -> tuple[str, int] | None:
        """The host's own address and port."""
        return self._local

    def writable(self) -> bool:
        return True

    def shutdown(self) -> None:
        """End our direction; the other one stays open."""
        raise NotImplementedError


class SocketStream(TcpStream):
    """A connection that was handed over."""

    def __init__(self, stream: socket.socket, connected) -> None:
        super().__init__(connected)
        self._socket = stream

    def readinto(self, buffer) -> int:
        with as_host_error("network.connect"):
            return self._socket.recv_into(buffer)

    def write(self, data) -> int:
        with as_host_error("network.connect"):
            self._socket.sendall(data)
        return memoryview(data).nbytes

    def shutdown(self) -> None:
        with as_host_error("network.connect"):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        super().close()
        self._socket.close()


def connection_broken() -> HostError:
    return system_error("network.connect", errno.EPIPE)


class Sending:
    """The messages of one direction of a connection; few wait, then who writes does."""

    def __init__(self, kind: str, **first) -> None:
        self._kind = kind
        self._messages: queue.Queue = queue.Queue(WAITING)
        self._messages.put(message(kind, **first))
        self._over = threading.Event()
        self.taken = threading.Event()

    def send(self, part: dict | None) -> None:
        """Send a part, or the end; raises HostError where nobody takes it."""
        if part is not None:
            part = message(self._kind, **part)
        while not self._over.is_set():
            with contextlib.suppress(queue.Full):
                # Woken now and then, because the end of a call wakes nobody here.
                return self._messages.put(part, timeout=0.05)
        raise connection_broken()

    def end(self) -> None:
        """Nobody takes what is sent any more."""
        self._over.set()
        with contextlib.suppress(queue.Full):
            self._messages.put_nowait(None)

    def __iter__(self) -> Iterator:
        yield from iter(self._messages.get, None)
        self.taken.set()


class CallStream(TcpStream):
    """A connection by calls."""

    def __init__(self, sending: Sending, replies: Replies, connected) -> None:
        super().__init__(connected)
        self._sending, self._replies = sending, replies
        replies.on_end(sending.end)
        self._finished = self._shut = self._wrote = False

    def _next(self) -> bytes:
        while not self._finished:
            reply = next(self._replies, None)
            if reply is None or reply.WhichOneof("part") == "finish":
                self._finished = True
            elif reply.data:
                return reply.data
        return b""

    def write(self, data) -> int:
        if self.closed or self._shut:
            raise connection_broken()
        for part in parts_of(data, SENT):
            self._wrote = True
            self._sending.send({"data": bytes(part)})
        return memoryview(data).nbytes

    def shutdown(self) -> None:
        if not self._shut:
            self._shut = True
            self._sending.send({"finish": True})

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if not self._wrote:
            self._sending.end()
            self._replies.close()
            return
        # The call's end would take back what it did not send yet.
        threading.Thread(target=self._linger, daemon=True).start()

    def _linger(self) -> None:
        late = threading.Timer(LINGER_SECONDS, self._replies.close)
        late.daemon = True
        late.start()
        # The connection may have ended before.
        with contextlib.suppress(HostError):
            self._sending.send(None)
            came = 0
            for reply in self._replies:
                came += len(reply.data)
                if came > DISCARDED:
                    # Nobody wants it; only what was written still has to go.
                    self._sending.taken.wait(LINGER_SECONDS)
                    break
        late.cancel()
        self._replies.close()


class Listener(Closing):
    """A port on which the host listens for the plugin, until this is closed."""

    def __init__(self, host: Connection, local: str, incoming: Replies) -> None:
        self._host, self._local, self._incoming = host, local, incoming

    def local_addr(self) -> tuple[str, int] | None:
        """Where the host listens."""
        return socket_address(self._local)

    def accept(self) -> tuple[TcpStream, tuple[str, int] | None]:
        """The next connection from a granted origin, and where it comes from.

        One that the host gave up meanwhile, because nobody took it in time, is passed over.
        """
        for reply in self._incoming:
            if reply.WhichOneof("part") != "incoming":
                continue
            incoming = reply.incoming
            sending = Sending("AcceptRequest", connection=incoming.connection)
            replies = self._host.exchange("Network", "Accept", sending)
            try:
                replies.settled()
            except HostError as error:
                sending.end()
                if error.code == "unknown-lease":
                    continue
                raise
            remote = incoming.remote_address
            connected = message("Connected", remote_address=remote, local_address=self._local)
            return CallStream(sending, replies, connected), socket_address(remote)
        raise unexpected("network.listen")

    def close(self) -> None:
        self._incoming.close()
