"""Where the host is, and the services that it has."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterable

import grpc
from google.protobuf import message_factory

from ._calls import CALL_SECONDS, Replies
from ._clock import Clock
from ._descriptors import Descriptors
from ._environment import Env
from ._errors import HostError, call_failed
from ._fs import Fs
from ._log import Log
from ._messages import PACKAGE, POOL, message
from ._network import NetworkAccess
from ._process import Processes
from ._session import Session

# Where the host says on which broker id it serves.
VARIABLE = "OUTRIGGER_HOST_SERVICES"


class Context:
    """A plugin's way to its host. It connects at once: an announcement is kept for 5 s only."""

    def __init__(self, broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._host: Host | None = None
        if os.environ.get(VARIABLE):
            threading.Thread(target=self._look, daemon=True).start()

    def host(self) -> "Host":
        """The host's services; raises HostError where it offers none."""
        with self._lock:
            if self._host is None:
                text = os.environ.get(VARIABLE, "")
                if not text.isdecimal():
                    raise HostError(
                        "host.connect",
                        f"this host offers no services: it sets no {VARIABLE}",
                        code="no-host-services",
                        grpc_code=grpc.StatusCode.UNAVAILABLE,
                    )
                self._host = Host.connect(self._broker, int(text))
            return self._host

    def _look(self) -> None:
        # Who needs the host is told what is wrong.
        with contextlib.suppress(Exception):
            self.host()


class Host:
    """The services of the host."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._label = str(uuid.uuid4())
        self._calls = 0
        self._about = self.call("Session", "Describe", message("DescribeRequest"))
        self._descriptors = self._dialling = None
        if self._about.HasField("descriptors"):
            self._descriptors = Descriptors(self._about.descriptors)
            # Whoever waits for somebody on the network does not keep files waiting.
            self._dialling = Descriptors(self._about.descriptors)

    @classmethod
    def connect(cls, broker, broker_id: int) -> "Host":
        """The services that the host serves under a broker id."""
        try:
            return cls(broker.dial(broker_id))
        except HostError:
            raise
        except Exception as error:
            unreachable = grpc.StatusCode.UNAVAILABLE
            raise HostError("host.connect", str(error), code="broker", grpc_code=unreachable) from error

    def without_descriptors(self) -> "Host":
        """The same services, asked by calls only."""
        other = object.__new__(Host)
        other.__dict__.update(self.__dict__, _descriptors=None, _dialling=None)
        return other

    def has_descriptors(self) -> bool:
        """Whether the host hands over descriptors."""
        return self._descriptors is not None

    def fs(self) -> "Fs":
        """Files beneath what was granted."""
        return Fs(self)

    def env(self) -> "Env":
        """Variables that were granted, and facts about the host."""
        return Env(self)

    def process(self) -> "Processes":
        """Commands that were granted."""
        return Processes(self)

    def network(self) -> "NetworkAccess":
        """Connections to granted places."""
        return NetworkAccess(self)

    def clock(self) -> "Clock":
        """Time and randomness of the host."""
        return Clock(self)

    def log(self) -> "Log":
        """The host's log."""
        return Log(self)

    def session(self) -> "Session":
        """What this plugin is to the host."""
        return Session(self)

    def call(self, service: str, method: str, request, *, timeout: float | None = CALL_SECONDS):
        """One call with one reply."""
        try:
            return self._method(service, method, self._channel.unary_unary)(request, timeout=timeout)
        except grpc.RpcError as error:
            raise call_failed(service, method, error) from error

    def stream(self, service: str, method: str, request) -> "Replies":
        """One call with a stream of replies, which lasts until it is closed."""
        replies = self._method(service, method, self._channel.unary_stream)(request)
        return Replies(service, method, replies)

    def send(self, service: str, method: str, requests: Iterable):
        """One call with a stream of requests and one reply."""
        try:
            return self._method(service, method, self._channel.stream_unary)(iter(requests))
        except grpc.RpcError as error:
            raise call_failed(service, method, error) from error

    def exchange(self, service: str, method: str, requests: Iterable) -> "Replies":
        """One call with streams both ways."""
        replies = self._method(service, method, self._channel.stream_stream)(iter(requests))
        return Replies(service, method, replies)

    def _method(self, service: str, method: str, kind):
        found = POOL.FindServiceByName(f"{PACKAGE}.{service}").methods_by_name[method]
        ask = kind(
            f"/{PACKAGE}.{service}/{method}",
            request_serializer=lambda asked: asked.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
        )
        self._calls += 1
        metadata = (("client", self._label), ("request", str(self._calls)))
        return lambda request, **options: ask(request, metadata=metadata, **options)

    def _payload(self) -> int:
        """The most bytes of contents in one message."""
        return max(1, (self._about.limits.message_bytes or 4 << 20) - 1024)

    def _hand_over(self, operation: str, *, writes: bool = False, **request):
        """What the host hands over; None where the same must be asked by a call."""
        # Where written bytes are counted, the host has to write them.
        if self._descriptors is None or (writes and self._about.limits.written_bytes):
            return None
        return self._descriptors.ask(operation, **request)
