"""What every call has: a time limit, an end, and replies that come one after the other."""

from __future__ import annotations

import threading

import grpc

from ._errors import call_failed

# How long a call may take, where it is not the plugin that says for how long.
CALL_SECONDS = 60.0

# How long a call that has begun may take to say that it has failed.
SETTLE_SECONDS = 0.02


class Closing:
    """What ends with close(), or with the block that it is for."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Replies(Closing):
    """A stream of replies; closing it ends the call."""

    def __init__(self, service: str, method: str, replies) -> None:
        self._service, self._method, self._replies = service, method, replies

    def __iter__(self) -> "Replies":
        return self

    def __next__(self):
        try:
            return next(self._replies)
        except grpc.RpcError as error:
            raise call_failed(self._service, self._method, error) from error

    def settled(self) -> None:
        """Raise HostError where the call was refused."""
        ended = threading.Event()
        self.on_end(ended.set)
        self._replies.initial_metadata()
        # A refusal comes as an empty beginning and, right behind it, the end.
        if ended.wait(SETTLE_SECONDS) and self._replies.code() != grpc.StatusCode.OK:
            raise call_failed(self._service, self._method, self._replies)

    def on_end(self, call) -> None:
        """Call back when the call has ended, or now."""
        if not self._replies.add_callback(call):
            call()

    def close(self) -> None:
        self._replies.cancel()
