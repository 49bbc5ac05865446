"""The broker: further connections between host and plugin, each named by an id."""

import collections
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from .. import _trace
from .._generated import grpc_broker_pb2
from . import _sockets

# How long a dialler waits for an announcement, and how long an announcement is kept.
WAIT_SECONDS = 5.0
# Announcements kept at once, and messages queued before the host opened its stream.
MAX_PENDING = 1024
# Longest address accepted from the host; a unix path has at most 108 bytes.
MAX_ADDRESS = 1024

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


class BrokerError(Exception):
    """A brokered connection could not be made."""


class Broker:
    """Dials ids that the host serves and serves ids that the host dials."""

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self._changed = threading.Condition()
        self._announced: collections.OrderedDict[int, tuple[_sockets.Address, float]] = collections.OrderedDict()
        self._outgoing: collections.deque = collections.deque(maxlen=MAX_PENDING)
        self._stream = 0
        self._last_id = 0
        self._closed = False
        self._listeners: list[_sockets.Listener] = []

    def next_id(self) -> int:
        """A new id for accept_and_serve."""
        with self._changed:
            self._last_id = (self._last_id + 1) & 0xFFFFFFFF
            return self._last_id

    def dial(self, broker_id: int, timeout: float = WAIT_SECONDS) -> grpc.Channel:
        """A channel to what the host serves under the id; each announcement can be used once.

        Raises BrokerError when the host announces nothing in time. The caller closes the channel.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                self._forget_old()
                if broker_id in self._announced:
                    address, _ = self._announced.pop(broker_id)
                    break
                left = deadline - time.monotonic()
                if self._closed:
                    raise BrokerError(f"broker id {broker_id}: the broker is closed")
                if left <= 0:
                    raise BrokerError(f"broker id {broker_id}: the host announced no address within {timeout:g} s")
                self._changed.wait(left)
        return _trace.carried(grpc.insecure_channel(_target(address), options=_CHANNEL_OPTIONS))

    def accept_and_serve(self, broker_id: int, register: Callable[[grpc.Server], None]) -> grpc.Server:
        """Serve what register adds on a socket of its own, and announce it under the id.

        The caller stops the server; the socket goes away with the plugin at the latest.
        """
        listener = _sockets.bind(self._transport)
        register(listener.server)
        listener.server.start()
        with self._changed:
            self._listeners.append(listener)
            self._outgoing.append(
                grpc_broker_pb2.ConnInfo(
                    service_id=broker_id,
                    network=listener.address.network,
                    address=listener.address.text,
                )
            )
            self._changed.notify_all()
        return listener.server

    def close(self) -> None:
        """End the control stream and every server of accept_and_serve."""
        with self._changed:
            self._closed = True
            listeners, self._listeners = self._listeners, []
            self._changed.notify_all()
        for listener in listeners:
            listener.server.stop(0)
            listener.remove()

    def add_to(self, server: grpc.Server) -> None:
        """Serve plugin.GRPCBroker."""
        handler = _sockets.both_streams(self._start_stream, grpc_broker_pb2.ConnInfo)
        _sockets.add_service(server, "plugin.GRPCBroker", {"StartStream": handler})

    def _start_stream(self, requests, context: grpc.ServicerContext) -> Iterator[grpc_broker_pb2.ConnInfo]:
        with self._changed:
            # A newer stream, of a host that reattached, takes the messages over.
            self._stream += 1
            mine = self._stream
        ended = threading.Event()

        def wake() -> None:
            ended.set()
            with self._changed:
                self._changed.notify_all()

        if not context.add_callback(wake):
            return
        threading.Thread(target=self._receive, args=(requests,), daemon=True).start()
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: ended.is_set() or self._closed or mine != self._stream or self._outgoing
                )
                if ended.is_set() or self._closed or mine != self._stream:
                    return
                message = self._outgoing.popleft()
            yield message

    def _receive(self, requests) -> None:
        try:
            for info in requests:
                # A knock belongs to multiplexing, which the handshake has declined.
                if info.HasField("knock") or len(info.address) > MAX_ADDRESS:
                    continue
                with self._changed:
                    self._forget_old()
                    while len(self._announced) >= MAX_PENDING:
                        self._announced.popitem(last=False)
                    address = _sockets.Address(info.network, info.address)
                    self._announced.setdefault(info.service_id, (address, time.monotonic()))
                    self._changed.notify_all()
        except grpc.RpcError:
            # The host is gone or the stream was cancelled; its handler ends by the callback.
            return

    def _forget_old(self) -> None:
        oldest = time.monotonic() - WAIT_SECONDS
        while self._announced:
            broker_id, (_, since) = next(iter(self._announced.items()))
            if since >= oldest:
                return
            del self._announced[broker_id]


def _target(address: _sockets.Address) -> str:
    if address.network == "unix":
        if address.text.startswith("@"):
            return "unix-abstract:" + address.text[1:]
        return "unix:" + address.text
    if address.network == "tcp":
        return "localhost" + address.text if address.text.startswith(":") else address.text
    raise BrokerError(f"unknown network {address.network[:120]!r}")
