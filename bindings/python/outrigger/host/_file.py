"""An opened file, by descriptor or by call."""

from __future__ import annotations

import contextlib
import enum
import errno
import io
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import grpc

from ._calls import Closing
from ._errors import HostError, as_host_error, operation_name
from ._messages import message, seconds_of, timestamp
from ._streams import parts_of

if TYPE_CHECKING:
    from ._connection import Connection

# Bytes read from a file at once, and bytes in one message of a connection or a command's input.
PART = 256 << 10


class FileKind(enum.Enum):
    """What something at a path is."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    OTHER = 4

    @classmethod
    def _missing_(cls, _value) -> "FileKind":
        return cls.OTHER


class Metadata:
    """What is known about a file or directory; times are seconds since 1970."""

    def __init__(self, info) -> None:
        self._info = info

    def kind(self) -> FileKind:
        return FileKind(self._info.kind)

    def is_file(self) -> bool:
        return self.kind() == FileKind.FILE

    def is_dir(self) -> bool:
        return self.kind() == FileKind.DIRECTORY

    def len(self) -> int:
        return self._info.size

    def is_empty(self) -> bool:
        return self._info.size == 0

    def mode(self) -> int:
        return self._info.mode

    def modified(self) -> float | None:
        return seconds_of(self._info, "modified")

    def accessed(self) -> float | None:
        return seconds_of(self._info, "accessed")

    def uid(self) -> int:
        return self._info.uid

    def gid(self) -> int:
        return self._info.gid

    def links(self) -> int:
        return self._info.links


class Lease(Closing):
    """A name at the host, given back when it is closed."""

    def __init__(self, host: Connection, lease: str) -> None:
        self._host, self.id = host, lease

    def close(self) -> None:
        lease, self.id = self.id, ""
        if lease:
            self._host.call("Filesystem", "Close", message("CloseRequest", lease=lease))


class File(io.RawIOBase):
    """A file that the host has opened.

    It behaves the same whether it came as a descriptor or is read and written by calls; its
    position is its own.
    """

    def __init__(self, host: Connection, options, *, descriptor: int = -1, lease: str = "") -> None:
        super().__init__()
        self._host, self._options = host, options
        self._descriptor, self._lease = descriptor, Lease(host, lease)
        self._position = 0

    def descriptor(self) -> int | None:
        """The descriptor, where the host handed one over: for `mmap` and the like."""
        return self._descriptor if self._descriptor >= 0 else None

    def readable(self) -> bool:
        return self._options.read

    def writable(self) -> bool:
        return self._options.write or self._options.append

    def seekable(self) -> bool:
        return True

    def read_at(self, length: int, offset: int) -> bytes:
        """At most length bytes from offset, without moving the position; empty only at the end."""
        length = min(length, self._host._payload())
        if length == 0:
            return b""
        if self._descriptor >= 0:
            return self._pread("filesystem.read", length, offset)
        return self._call("Read", "ReadRequest", offset=offset, length=length).data

    def _pread(self, operation: str, length: int, offset: int) -> bytes:
        with as_host_error(operation):
            return os.pread(self._descriptor, length, offset)

    def _pwrite(self, operation: str, part, offset: int) -> None:
        while part:
            with as_host_error(operation):
                written = os.pwrite(self._descriptor, part, offset)
            offset, part = offset + written, part[written:]

    def read_exact_at(self, length: int, offset: int) -> bytes:
        """Exactly length bytes from offset; raises HostError where the file ends before that."""
        parts = bytearray()
        while len(parts) < length:
            part = self.read_at(length - len(parts), offset + len(parts))
            if not part:
                text = "filesystem.read: unexpected end of file"
                status = grpc.StatusCode.OUT_OF_RANGE
                raise HostError("filesystem.read", text, code="unexpected-end", grpc_code=status)
            parts += part
        return bytes(parts)

    def write_at(self, data, offset: int) -> None:
        """Write all of data at offset, without moving the position."""
        self._refuse_appending()
        for part in parts_of(data, self._host._payload()):
            if self._descriptor >= 0:
                self._pwrite("filesystem.write", part, offset)
            else:
                self._call("Write", "WriteRequest", offset=offset, data=bytes(part))
            offset += len(part)

    def readinto(self, buffer) -> int:
        data = self.read_at(len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Everything from the position to the end."""
        return b"".join(iter(lambda: self.read(PART), b""))

    def read_to_end(self) -> bytes:
        """Everything from the position to the end."""
        return self.readall()

    def write(self, data) -> int:
        """Write all of data at the position, or at the end of a file that is open for appending."""
        data = memoryview(data).cast("B")
        if not self._options.append:
            self.write_at(data, self._position)
            self._position += len(data)
            return len(data)
        for part in parts_of(data, self._host._payload()):
            while part and self._descriptor >= 0:
                with as_host_error("filesystem.write_next"):
                    part = part[os.write(self._descriptor, part) :]
            if part:
                self._call("WriteNext", "WriteNextRequest", data=bytes(part))
        self._position = self.metadata().len()
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        target = offset + (self.metadata().len() if start is None else start)
        with as_host_error("filesystem.seek"):
            if target < 0:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = target
        return target

    def tell(self) -> int:
        return self._position

    def stream(self, offset: int, length: int = 0) -> Iterator[bytes]:
        """The contents from offset on, length bytes or, for 0, up to the end, in parts."""
        if self._descriptor < 0:
            with as_host_error("filesystem.read_stream"):
                request = message("ReadStreamRequest", lease=self._lease.id, offset=offset, length=length)
            with self._host.stream("Filesystem", "ReadStream", request) as parts:
                yield from (part.data for part in parts)
            return
        end = offset + length
        while wanted := min(PART, end - offset) if length else PART:
            part = self._pread("filesystem.read_stream", wanted, offset)
            if not part:
                return
            offset += len(part)
            yield part

    def write_stream(self, offset: int, parts: Iterable[bytes]) -> int:
        """Write what parts yields from offset on; how much it was."""
        self._refuse_appending()
        if self._descriptor < 0:
            with as_host_error("filesystem.write_stream"):
                first = message("WriteStreamRequest", lease=self._lease.id, offset=offset)
            return self._host.send("Filesystem", "WriteStream", self._requests(first, parts)).written
        start = offset
        for part in parts:
            data = memoryview(part).cast("B")
            self._pwrite("filesystem.write_stream", data, offset)
            offset += len(data)
        return offset - start

    def _requests(self, first, parts: Iterable[bytes]) -> Iterator:
        yield first
        for part in parts:
            for data in parts_of(part, self._host._payload()):
                yield message("WriteStreamRequest", data=bytes(data))

    def metadata(self) -> Metadata:
        """What the file is now."""
        if self._descriptor < 0:
            return Metadata(self._call("FileStat", "FileStatRequest").info)
        with as_host_error("filesystem.file_stat"):
            found = os.fstat(self._descriptor)
        kind = FileKind.FILE if (found.st_mode & 0o170000) == 0o100000 else FileKind.OTHER
        return Metadata(
            message(
                "FileInfo",
                kind=kind.value,
                size=found.st_size,
                mode=found.st_mode & 0o7777,
                modified=timestamp(found.st_mtime_ns / 1e9),
                accessed=timestamp(found.st_atime_ns / 1e9),
                uid=found.st_uid,
                gid=found.st_gid,
                links=found.st_nlink,
            )
        )

    def set_len(self, size: int) -> None:
        """Cut the file, or grow it with zeros."""
        if self._descriptor >= 0:
            with as_host_error("filesystem.truncate"):
                os.ftruncate(self._descriptor, size)
        else:
            self._call("Truncate", "TruncateRequest", size=size)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        self.set_len(size)
        return size

    def sync_all(self) -> None:
        """Wait until contents and attributes are on storage."""
        if self._descriptor >= 0:
            with as_host_error("filesystem.sync"):
                os.fsync(self._descriptor)
        else:
            self._call("Sync", "SyncRequest")

    def sync_data(self) -> None:
        """Wait until the contents are on storage."""
        if self._descriptor >= 0:
            with as_host_error("filesystem.sync"):
                os.fdatasync(self._descriptor)
        else:
            self._call("Sync", "SyncRequest", data_only=True)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        # The host may be gone already, and all leases with it.
        with contextlib.suppress(HostError, ValueError):
            self._lease.close()

    def _call(self, method: str, kind: str, /, **fields):
        with as_host_error(operation_name("Filesystem", method)):
            request = message(kind, lease=self._lease.id, **fields)
        return self._host.call("Filesystem", method, request)

    def _refuse_appending(self) -> None:
        if self._options.append:
            text = "filesystem.write: the file is open for appending"
            status = grpc.StatusCode.FAILED_PRECONDITION
            raise HostError("filesystem.write", text, code="failed", grpc_code=status)
