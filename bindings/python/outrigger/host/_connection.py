"""The connection to the host's services: calls, and descriptors that it hands over."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import grpc
from google.protobuf import message_factory

from ._calls import CALL_SECONDS, Replies
from ._descriptors import Descriptors
from ._errors import call_failed
from ._messages import PACKAGE, POOL, message


class Connection:
    """What every service of the host is asked through."""

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

    def has_descriptors(self) -> bool:
        """Whether the host hands over descriptors."""
        return self._descriptors is not None

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
