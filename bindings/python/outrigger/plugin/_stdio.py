"""What the program prints, carried to the host by plugin.GRPCStdio."""

import collections
import io
import sys
import threading
from collections.abc import Iterator

import grpc
from google.protobuf import empty_pb2

from .._generated import grpc_stdio_pb2
from . import _sockets

CHUNK = 1024
# Bytes kept while the host does not read; beyond that the oldest are dropped, so that printing never blocks.
MAX_BUFFERED = 1 << 20


class Stdio:
    """A bounded buffer of printed bytes and the service that empties it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._chunks: collections.deque = collections.deque()
        self._buffered = 0
        self._closed = False

    def redirect(self) -> None:
        """Replace sys.stdout and sys.stderr; the descriptors 1 and 2 stay with the host."""
        sys.stdout = self._text_stream(grpc_stdio_pb2.StdioData.STDOUT)
        sys.stderr = self._text_stream(grpc_stdio_pb2.StdioData.STDERR)

    def add_to(self, server: grpc.Server) -> None:
        """Serve plugin.GRPCStdio."""
        handler = _sockets.server_stream(self._stream, empty_pb2.Empty)
        _sockets.add_service(server, "plugin.GRPCStdio", {"StreamStdio": handler})

    def write(self, channel: int, data: bytes) -> None:
        """Queue printed bytes for the host."""
        with self._changed:
            for start in range(0, len(data), CHUNK):
                chunk = data[start : start + CHUNK]
                self._chunks.append((channel, chunk))
                self._buffered += len(chunk)
            while self._buffered > MAX_BUFFERED:
                self._buffered -= len(self._chunks.popleft()[1])
            self._changed.notify_all()

    def close(self) -> None:
        """End the stream once what is buffered was taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _stream(self, _request, context: grpc.ServicerContext) -> Iterator[grpc_stdio_pb2.StdioData]:
        ended = threading.Event()

        def wake() -> None:
            ended.set()
            with self._changed:
                self._changed.notify_all()

        if not context.add_callback(wake):
            return
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks or self._closed or ended.is_set())
                if ended.is_set() or not self._chunks:
                    return
                channel, data = self._chunks.popleft()
                self._buffered -= len(data)
            yield grpc_stdio_pb2.StdioData(channel=channel, data=data)

    def _text_stream(self, channel: int) -> io.TextIOWrapper:
        return io.TextIOWrapper(_Printed(self, channel), encoding="utf-8", errors="backslashreplace", write_through=True)


class _Printed(io.RawIOBase):
    """The byte stream beneath sys.stdout or sys.stderr."""

    def __init__(self, stdio: Stdio, channel: int) -> None:
        super().__init__()
        self._stdio = stdio
        self._channel = channel

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        copied = bytes(data)
        self._stdio.write(self._channel, copied)
        return len(copied)
