"""Connections that the host makes or accepts."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._errors import unexpected
from ._http import HttpRequest, HttpResponse
from ._messages import message
from ._tcp import CallStream, Listener, Sending, SocketStream
from ._udp import OPEN_UDP, UdpCalls, UdpPackets

if TYPE_CHECKING:
    from ._connection import Connection
    from ._tcp import TcpStream
    from ._udp import UdpSocket


class NetworkAccess:
    """Connections that the host makes for the plugin."""

    def __init__(self, host: Connection) -> None:
        self._host = host

    def resolve(self, host: str, port: int) -> list:
        """The addresses of a granted name that may be dialled, as of the module ipaddress."""
        found = self._host.call("Network", "Resolve", message("ResolveRequest", host=host, port=port))
        return [ipaddress.ip_address(address) for address in found.addresses]

    def connect(self, host: str, port: int) -> "TcpStream":
        """Connect to a granted place."""
        target = message("Target", host=host, port=port)
        dialling = self._host._dialling
        # By name the host stays in between, to see that the name is kept to.
        if dialling is not None and is_address(host):
            asked = dialling.ask("network.connect", wait=False, connect=target)
            if asked is not None:
                (descriptor,) = asked[1]
                stream = socket.socket(fileno=descriptor)
                # The host's sockets do not block.
                stream.setblocking(True)
                return SocketStream(stream, asked[0].connected)
        sending = Sending("ConnectRequest", target=target)
        replies = self._host.exchange("Network", "Connect", sending)
        try:
            first = next(replies, None)
            if first is None or first.WhichOneof("part") != "connected":
                raise unexpected("network.connect")
        except BaseException:
            sending.end()
            replies.close()
            raise
        return CallStream(sending, replies, first.connected)

    def listen(self, address: str | None, port: int) -> "Listener":
        """Listen on a granted port, at 127.0.0.1 unless another address of the host is named."""
        request = message("ListenRequest", port=port, address=str(address or ""))
        incoming = self._host.stream("Network", "Listen", request)
        try:
            first = next(incoming, None)
            if first is None or first.WhichOneof("part") != "listening":
                raise unexpected("network.listen")
        except BaseException:
            incoming.close()
            raise
        return Listener(self._host, first.listening, incoming)

    def connect_udp(self, host: str, port: int) -> "UdpSocket":
        """A UDP socket that leads to one granted place: nothing comes from elsewhere."""
        return self._open_udp(connect=message("Target", host=host, port=port))

    def bind_udp(self, address: str | None, port: int) -> "UdpSocket":
        """A UDP socket at a granted port, at 127.0.0.1 unless another address of the host is named."""
        return self._open_udp(bind=message("ListenRequest", port=port, address=str(address or "")))

    def _open_udp(self, **wanted) -> "UdpSocket":
        dialling = self._host._dialling
        if dialling is not None:
            asked = dialling.ask(OPEN_UDP, wait=False, open_udp=message("OpenUdpRequest", **wanted))
            if asked is not None:
                (descriptor,) = asked[1]
                return UdpPackets(socket.socket(fileno=descriptor), asked[0].connected)
        sending = Sending("OpenUdpRequest", **wanted)
        replies = self._host.exchange("Network", "OpenUdp", sending)
        try:
            first = next(replies, None)
            if first is None or first.WhichOneof("part") != "opened":
                raise unexpected(OPEN_UDP)
        except BaseException:
            sending.end()
            replies.close()
            raise
        return UdpCalls(sending, replies, first.opened)

    def get(self, url: str) -> "HttpResponse":
        """A GET of an http:// or https:// address; follows redirects as far as they are granted."""
        return self.request(HttpRequest("GET", url).follow_redirects(5))

    def request(self, request: "HttpRequest") -> "HttpResponse":
        """Make one HTTP request and collect the reply. A status of 400 and more is no error."""
        return HttpResponse(self._host.call("Network", "Http", request._request, timeout=None))

    def request_stream(self, request: "HttpRequest") -> tuple["HttpResponse", Iterator[bytes]]:
        """Make one HTTP request; the body of the reply comes in parts."""
        replies = self._host.stream("Network", "HttpStream", request._request)
        try:
            first = next(replies, None)
            if first is None or first.WhichOneof("part") != "head":
                raise unexpected("network.http_stream")
        except BaseException:
            replies.close()
            raise

        def body() -> Iterator[bytes]:
            with replies:
                for part in replies:
                    yield part.data

        return HttpResponse(first.head), body()


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
