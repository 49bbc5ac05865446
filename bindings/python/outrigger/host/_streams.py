"""Bytes that come in parts."""

from __future__ import annotations

import io
from collections.abc import Iterator

SENT = 64 << 10

# Parts that wait to be sent or read.
WAITING = 4

# How long what was written to a connection is sent after it was closed.
LINGER_SECONDS = 10.0


def parts_of(data, size: int) -> Iterator[memoryview]:
    data = memoryview(data).cast("B")
    for start in range(0, len(data), size):
        yield data[start : start + size]


class PartStream(io.RawIOBase):
    """Parts of a stream, read as bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if self.closed:
            raise ValueError("the stream is closed")
        if not self._rest:
            self._rest = memoryview(self._next())
        length = min(len(buffer), len(self._rest))
        buffer[:length] = self._rest[:length]
        self._rest = self._rest[length:]
        return length

    def _next(self) -> bytes:
        """The next part; empty at the end."""
        raise NotImplementedError
