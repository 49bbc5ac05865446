"""The host's services (outrigger.host.v1) as if they were local, under what the host has granted.

    import outrigger_host

    def register(server, broker):
        ctx = outrigger_host.Context(broker)    # looks for the host from now on
        ...
        with ctx.host().fs().open("/data/report.csv") as file:
            start = file.read(512)

The names are those of the Rust SDK. What is a builder there is one here; what waits there blocks
here; times are seconds; what holds something at the host has close() and is a context manager;
files, connections, input and output of commands are raw streams of `io` that write all they are
given.

Where the host hands over descriptors, opened files, connections to addresses, UDP sockets and
commands' pipes come as such; elsewhere, and for what a descriptor cannot do, the same methods are calls. Needs
grpcio and protobuf, and `generated/host_services.bin`, the contract's descriptors.
"""

import contextlib
import enum
import errno
import io
import ipaddress
import os
import queue
import re
import select
import socket
import struct
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Where the host says on which broker id it serves.
VARIABLE = "OUTRIGGER_HOST_SERVICES"
# How long a call may take, where it is not the plugin that says for how long.
CALL_SECONDS = 60.0
# How long what was written to a connection is sent after it was closed.
LINGER_SECONDS = 10.0
# How much may come for a connection that was closed.
DISCARDED = 256 << 10
# How long a call that has begun may take to say that it has failed.
SETTLE_SECONDS = 0.02
PACKAGE = "outrigger.host.v1"
# Longest message on the descriptor socket, and most descriptors with one.
LONGEST_FRAME = 64 << 10
MOST_DESCRIPTORS = 3
# Bytes read from a file at once, and bytes in one message of a connection or a command's input.
PART = 256 << 10
SENT = 64 << 10
# Parts that wait to be sent or read.
WAITING = 4
# The most contents of a datagram that is sent, and room for a packet of the host's with one.
LONGEST_DATAGRAM = 65_507
LONGEST_PACKET = (64 << 10) + 1024


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(
        (Path(__file__).parent / "generated" / "host_services.bin").read_bytes()
    )
    for file in files.file:
        pool.Add(file)
    return pool


_POOL = _pool()


def message(name: str, /, **fields):
    """A message of the contract by its short name."""
    return _class(name)(**fields)


def _class(name: str):
    full = name if "." in name else f"{PACKAGE}.{name}"
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full))


class HostError(Exception):
    """The host did not do something, or could not be asked.

    code is the host's own, such as "not-granted"; operation is what was asked for, such as
    "filesystem.open"; grpc_code is the kind of failure; missing is the grant that would have been
    needed, errno the name of the system's error and retry_after the seconds after which to try
    again, where there are such.
    """

    def __init__(
        self,
        operation: str,
        text: str,
        *,
        code: str,
        grpc_code: grpc.StatusCode,
        details: dict[str, str] | None = None,
    ):
        details = details or {}
        missing = details.get("missing")
        super().__init__(f"{text}; it takes {missing}" if missing else text)
        self.operation = operation
        self.code = code
        self.grpc_code = grpc_code
        self.missing = missing or None
        self.errno = details.get("errno") or None
        after = details.get("retry_after_ms", "")
        self.retry_after = int(after) / 1000 if after.isdecimal() else None

    def is_refusal(self) -> bool:
        """Whether the host refused it, rather than failed at it."""
        return self.grpc_code == grpc.StatusCode.PERMISSION_DENIED

    def is_not_found(self) -> bool:
        """Whether what was named is not there."""
        return self.grpc_code == grpc.StatusCode.NOT_FOUND


class _ErrorDetails:
    """google.rpc.Status and ErrorInfo, as far as they are needed, without their modules."""

    @staticmethod
    def read(error: grpc.RpcError) -> tuple[str, dict[str, str]]:
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                with contextlib.suppress(ValueError, IndexError, UnicodeDecodeError):
                    return _ErrorDetails._status(value)
        return "host-call-failed", {}

    @staticmethod
    def _status(data: bytes) -> tuple[str, dict[str, str]]:
        for number, detail in _fields(data):
            if number != 3:
                continue
            parts = dict(_fields(detail))
            if parts.get(1, b"").endswith(b"/google.rpc.ErrorInfo"):
                reason, domain, metadata = "", "", {}
                for number, value in _fields(parts.get(2, b"")):
                    if number == 1:
                        reason = value.decode()
                    elif number == 2:
                        domain = value.decode()
                    elif number == 3:
                        entry = dict(_fields(value))
                        metadata[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
                if domain == "outrigger.host":
                    return reason, metadata
        return "host-call-failed", {}


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message; numbers are skipped."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("not a number")

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            varint()
        elif key & 7 == 2:
            length = varint()
            if at + length > len(data):
                raise ValueError("cut off")
            yield key >> 3, data[at : at + length]
            at += length
        else:
            raise ValueError("an unexpected kind of field")


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
            self._descriptors = _Descriptors(self._about.descriptors)
            # Whoever waits for somebody on the network does not keep files waiting.
            self._dialling = _Descriptors(self._about.descriptors)

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
            raise _failed(service, method, error) from error

    def stream(self, service: str, method: str, request) -> "Replies":
        """One call with a stream of replies, which lasts until it is closed."""
        replies = self._method(service, method, self._channel.unary_stream)(request)
        return Replies(service, method, replies)

    def send(self, service: str, method: str, requests: Iterable):
        """One call with a stream of requests and one reply."""
        try:
            return self._method(service, method, self._channel.stream_unary)(iter(requests))
        except grpc.RpcError as error:
            raise _failed(service, method, error) from error

    def exchange(self, service: str, method: str, requests: Iterable) -> "Replies":
        """One call with streams both ways."""
        replies = self._method(service, method, self._channel.stream_stream)(iter(requests))
        return Replies(service, method, replies)

    def _method(self, service: str, method: str, kind):
        found = _POOL.FindServiceByName(f"{PACKAGE}.{service}").methods_by_name[method]
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


def _failed(service: str, method: str, error: grpc.RpcError) -> HostError:
    code, details = _ErrorDetails.read(error)
    operation = details.get("operation") or _operation(service, method)
    return HostError(operation, error.details() or "", code=code, grpc_code=error.code(), details=details)


def _told(operation: str, failure) -> HostError:
    """A failure as a message says it."""
    codes = {code.value[0]: code for code in grpc.StatusCode}
    return HostError(
        operation,
        failure.message,
        code=failure.reason,
        grpc_code=codes.get(failure.status, grpc.StatusCode.UNKNOWN),
        details=dict(failure.metadata),
    )


def _operation(service: str, method: str) -> str:
    """The name of a call in the host's records, such as filesystem.read_file."""
    return f"{service}.{re.sub(r'(?<!^)(?=[A-Z])', '_', method)}".lower()


def _unexpected(operation: str) -> HostError:
    text = f"{operation}: the host's answer is not what was asked for"
    return HostError(operation, text, code="unexpected-answer", grpc_code=grpc.StatusCode.INTERNAL)


class _Closing:
    """What ends with close(), or with the block that it is for."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Replies(_Closing):
    """A stream of replies; closing it ends the call."""

    def __init__(self, service: str, method: str, replies) -> None:
        self._service, self._method, self._replies = service, method, replies

    def __iter__(self) -> "Replies":
        return self

    def __next__(self):
        try:
            return next(self._replies)
        except grpc.RpcError as error:
            raise _failed(self._service, self._method, error) from error

    def settled(self) -> None:
        """Raise HostError where the call was refused."""
        ended = threading.Event()
        self.on_end(ended.set)
        self._replies.initial_metadata()
        # A refusal comes as an empty beginning and, right behind it, the end.
        if ended.wait(SETTLE_SECONDS) and self._replies.code() != grpc.StatusCode.OK:
            raise _failed(self._service, self._method, self._replies)

    def on_end(self, call) -> None:
        """Call back when the call has ended, or now."""
        if not self._replies.add_callback(call):
            call()

    def close(self) -> None:
        self._replies.cancel()


class _Descriptors:
    """The descriptor socket: one connection, one request at a time."""

    def __init__(self, offer) -> None:
        self._offer = offer
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._gone = False
        self._next = 0

    def ask(self, operation: str, *, wait: bool = True, **request):
        """A reply and its descriptors; None where the same must be asked by a call.

        That is known before anything was done: the host wants it so, the request is too long for
        the socket, or, without wait, somebody else is asking.
        """
        if message("DescriptorRequest", id=(1 << 64) - 1, **request).ByteSize() > LONGEST_FRAME:
            return None
        if not self._lock.acquire(blocking=wait):
            return None
        try:
            if self._gone or not self._open():
                return None
            self._next += 1
            try:
                self._send(message("DescriptorRequest", id=self._next, **request))
                reply, descriptors = self._receive()
                if reply.id != self._next or reply.descriptors != len(descriptors):
                    _close(descriptors)
                    raise OSError("not the answer to what was asked")
            except OSError as error:
                self._shut()
                text = f"{operation}: the host's descriptor socket is gone: {error}"
                unreachable = grpc.StatusCode.UNAVAILABLE
                raise HostError(operation, text, code="descriptors-gone", grpc_code=unreachable) from error
        finally:
            self._lock.release()
        if reply.WhichOneof("reply") != "failure":
            return reply, descriptors
        _close(descriptors)
        if reply.failure.reason == "use-rpc":
            return None
        raise _told(operation, reply.failure)

    def _open(self) -> bool:
        if self._socket is not None:
            return True
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(CALL_SECONDS)
            self._socket.connect(self._offer.path)
            self._send(message("DescriptorHello", token=self._offer.token))
            greeting, _ = self._receive()
            if greeting.id != 0:
                raise OSError("no greeting")
        except OSError:
            self._shut()
            self._gone = True
        return not self._gone

    def _shut(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, sent) -> None:
        data = sent.SerializeToString()
        if len(data) > LONGEST_FRAME:
            raise OSError("the request is too long")
        self._socket.sendall(struct.pack(">I", len(data)) + data)

    def _receive(self):
        data, descriptors, wanted = b"", [], 4
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * struct.calcsize("i"))
        try:
            while len(data) < wanted:
                # socket.recv_fds leaves descriptors open in programs that this one starts.
                received = self._socket.recvmsg(wanted - len(data), room, socket.MSG_CMSG_CLOEXEC)
                part, controls, flags, _ = received
                for level, kind, content in controls:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                        whole = len(content) - len(content) % struct.calcsize("i")
                        descriptors += [number for (number,) in struct.iter_unpack("i", content[:whole])]
                if flags & socket.MSG_CTRUNC:
                    raise OSError("more descriptors than were asked for")
                if not part:
                    raise OSError("the host closed the descriptor socket")
                data += part
                if len(data) == 4 and wanted == 4:
                    wanted += struct.unpack(">I", data)[0]
                    if wanted > 4 + LONGEST_FRAME:
                        raise OSError("the reply is too long")
            return _class("DescriptorReply").FromString(data[4:]), descriptors
        except BaseException:
            _close(descriptors)
            raise


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)



# What the host says of the system's errors, and so what is said here of those of a descriptor: the
# status and the reason of each name; the rest are _OTHER.
_SYSTEM_ERRORS = {
    name: (status, reason)
    for names, status, reason in (
        ("ENOENT ESRCH", grpc.StatusCode.NOT_FOUND, "not-found"),
        ("EEXIST", grpc.StatusCode.ALREADY_EXISTS, "already-exists"),
        ("EINVAL ENAMETOOLONG EILSEQ", grpc.StatusCode.INVALID_ARGUMENT, "invalid-argument"),
        ("ENOSPC EDQUOT EFBIG EMFILE ENFILE ENOMEM EMLINK", grpc.StatusCode.RESOURCE_EXHAUSTED, "host-resources"),
        ("EACCES EPERM EROFS", grpc.StatusCode.PERMISSION_DENIED, "host-permission"),
        ("ETIMEDOUT", grpc.StatusCode.DEADLINE_EXCEEDED, "call-timeout"),
        ("EAGAIN EBUSY ECONNREFUSED EHOSTUNREACH ENETUNREACH", grpc.StatusCode.UNAVAILABLE, "unavailable"),
        ("EIO", grpc.StatusCode.INTERNAL, "system-error"),
        ("ENOSYS EOPNOTSUPP", grpc.StatusCode.UNIMPLEMENTED, "unsupported"),
    )
    for name in names.split()
}
_OTHER = (grpc.StatusCode.FAILED_PRECONDITION, "system-error")
# Of two numbers with two names, Python says the other one; one it does not know.
_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK", 133: "EHWPOISON"}


def _system_error(operation: str, number: int) -> HostError:
    """What the system says of a descriptor, as the host says it of a lease."""
    name = _NAMES.get(number) or errno.errorcode.get(number) or str(number)
    status, reason = _SYSTEM_ERRORS.get(name, _OTHER)
    words = os.strerror(number)
    text = f"{operation}: {words[:1].lower()}{words[1:]}"
    return HostError(operation, text, code=reason, grpc_code=status, details={"errno": name})


@contextlib.contextmanager
def _system(operation: str) -> Iterator[None]:
    """Tell of what the system refuses, and of numbers that it cannot take, as the host would."""
    try:
        yield
    except OSError as error:
        late = errno.ETIMEDOUT if isinstance(error, TimeoutError) else errno.EIO
        raise _system_error(operation, error.errno or late) from error
    except (OverflowError, ValueError) as error:
        raise _system_error(operation, errno.EINVAL) from error


def _milliseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(0, round(seconds * 1000))


def _seconds(owner, field: str) -> float | None:
    if not owner.HasField(field):
        return None
    stamp = getattr(owner, field)
    return stamp.seconds + stamp.nanos / 1e9


def _stamp(seconds: float):
    whole, rest = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return message("google.protobuf.Timestamp", seconds=whole, nanos=rest)


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
        return _seconds(self._info, "modified")

    def accessed(self) -> float | None:
        return _seconds(self._info, "accessed")

    def uid(self) -> int:
        return self._info.uid

    def gid(self) -> int:
        return self._info.gid

    def links(self) -> int:
        return self._info.links


class _Lease(_Closing):
    """A name at the host, given back when it is closed."""

    def __init__(self, host: Host, lease: str) -> None:
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

    def __init__(self, host: Host, options, *, descriptor: int = -1, lease: str = "") -> None:
        super().__init__()
        self._host, self._options = host, options
        self._descriptor, self._lease = descriptor, _Lease(host, lease)
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
        with _system(operation):
            return os.pread(self._descriptor, length, offset)

    def _pwrite(self, operation: str, part, offset: int) -> None:
        while part:
            with _system(operation):
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
        for part in _parts(data, self._host._payload()):
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
        for part in _parts(data, self._host._payload()):
            while part and self._descriptor >= 0:
                with _system("filesystem.write_next"):
                    part = part[os.write(self._descriptor, part) :]
            if part:
                self._call("WriteNext", "WriteNextRequest", data=bytes(part))
        self._position = self.metadata().len()
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        target = offset + (self.metadata().len() if start is None else start)
        with _system("filesystem.seek"):
            if target < 0:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = target
        return target

    def tell(self) -> int:
        return self._position

    def stream(self, offset: int, length: int = 0) -> Iterator[bytes]:
        """The contents from offset on, length bytes or, for 0, up to the end, in parts."""
        if self._descriptor < 0:
            with _system("filesystem.read_stream"):
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
            with _system("filesystem.write_stream"):
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
            for data in _parts(part, self._host._payload()):
                yield message("WriteStreamRequest", data=bytes(data))

    def metadata(self) -> Metadata:
        """What the file is now."""
        if self._descriptor < 0:
            return Metadata(self._call("FileStat", "FileStatRequest").info)
        with _system("filesystem.file_stat"):
            found = os.fstat(self._descriptor)
        kind = FileKind.FILE if (found.st_mode & 0o170000) == 0o100000 else FileKind.OTHER
        return Metadata(
            message(
                "FileInfo",
                kind=kind.value,
                size=found.st_size,
                mode=found.st_mode & 0o7777,
                modified=_stamp(found.st_mtime_ns / 1e9),
                accessed=_stamp(found.st_atime_ns / 1e9),
                uid=found.st_uid,
                gid=found.st_gid,
                links=found.st_nlink,
            )
        )

    def set_len(self, size: int) -> None:
        """Cut the file, or grow it with zeros."""
        if self._descriptor >= 0:
            with _system("filesystem.truncate"):
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
            with _system("filesystem.sync"):
                os.fsync(self._descriptor)
        else:
            self._call("Sync", "SyncRequest")

    def sync_data(self) -> None:
        """Wait until the contents are on storage."""
        if self._descriptor >= 0:
            with _system("filesystem.sync"):
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
        with _system(_operation("Filesystem", method)):
            request = message(kind, lease=self._lease.id, **fields)
        return self._host.call("Filesystem", method, request)

    def _refuse_appending(self) -> None:
        if self._options.append:
            text = "filesystem.write: the file is open for appending"
            status = grpc.StatusCode.FAILED_PRECONDITION
            raise HostError("filesystem.write", text, code="failed", grpc_code=status)


def _parts(data, size: int) -> Iterator[memoryview]:
    data = memoryview(data).cast("B")
    for start in range(0, len(data), size):
        yield data[start : start + size]


class Fs:
    """Files beneath what was granted."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def _call(self, method: str, kind: str, /, **fields):
        return self._host.call("Filesystem", method, message(kind, **fields))

    def open(self, path: str) -> File:
        """Open a file for reading."""
        return self.options().read(True).open(path)

    def create(self, path: str) -> File:
        """Open a file for writing: made if needed, emptied if there."""
        return self.options().write(True).create(True).truncate(True).open(path)

    def options(self) -> "OpenOptions":
        """To open a file in another way."""
        return OpenOptions(self._host)

    def open_dir(self, path: str) -> "Dir":
        """Open a directory, from which files can be opened."""
        return Dir(self._host, self._call("OpenDir", "OpenDirRequest", path=path).lease)

    def read(self, path: str) -> bytes:
        """A whole file, however large."""
        with self.open(path) as file:
            return file.readall()

    def read_to_string(self, path: str) -> str:
        """A whole file as text; raises UnicodeDecodeError where it is not UTF-8."""
        return self.read(path).decode()

    def write(self, path: str, contents: bytes) -> None:
        """Write a whole file: made if needed, replaced if there."""
        if len(contents) <= self._host._payload():
            self._call("WriteFile", "WriteFileRequest", path=path, data=bytes(contents))
            return
        with self.create(path) as file:
            file.write(contents)

    def append(self, path: str, data: bytes) -> int:
        """Write at the end of a file, made if needed; how large it is then."""
        return self._call("Append", "AppendRequest", path=path, data=bytes(data)).size

    def copy(self, source: str, target: str) -> int:
        """Copy a file; how large it is. What is at target is replaced."""
        return self._call("Copy", "CopyRequest", **{"from": source, "to": target, "replace": True}).copied

    def metadata(self, path: str) -> Metadata:
        """What is at a path, following links."""
        return Metadata(self._call("Stat", "StatRequest", path=path).info)

    def symlink_metadata(self, path: str) -> Metadata:
        """What is at a path, a link standing for itself."""
        return Metadata(self._call("Lstat", "LstatRequest", path=path).info)

    def exists(self, path: str) -> bool:
        """Whether something is at a path."""
        return self._call("Exists", "ExistsRequest", path=path).exists

    def read_dir(self, path: str) -> "ReadDir":
        """The entries of a directory, fetched page by page as they are taken."""
        return ReadDir(self._host, path)

    def read_link(self, path: str) -> str:
        """The target of a link."""
        return self._call("Readlink", "ReadlinkRequest", path=path).target

    def create_dir(self, path: str) -> None:
        """Make a directory."""
        self._call("Mkdir", "MkdirRequest", path=path)

    def create_dir_all(self, path: str) -> None:
        """Make a directory and those above it."""
        self._call("Mkdir", "MkdirRequest", path=path, parents=True)

    def rename(self, source: str, target: str) -> None:
        """Move what is at source to target, replacing what is there."""
        self._call("Rename", "RenameRequest", **{"from": source, "to": target, "replace": True})

    def remove(self, path: str) -> None:
        """Remove a file, a link or an empty directory."""
        self._call("Remove", "RemoveRequest", path=path)

    def remove_all(self, path: str) -> None:
        """Remove whatever is at a path, with all that is in it; nothing there is fine too."""
        self._call("RemoveAll", "RemoveAllRequest", path=path)

    def hard_link(self, existing: str, new: str) -> None:
        """Give a file a second name."""
        self._call("Link", "LinkRequest", existing=existing, new=new)

    def symlink(self, target: str, new: str) -> None:
        """Make a link at new that leads to target."""
        self._call("Symlink", "SymlinkRequest", target=target, new=new)

    def set_permissions(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        self._call("Chmod", "ChmodRequest", path=path, mode=mode)

    def set_owner(self, path: str, uid: int | None, gid: int | None) -> None:
        """Set owner and group, where they are given."""
        self._call("Chown", "ChownRequest", path=path, uid=uid, gid=gid)

    def set_times(self, path: str, accessed: float | None, modified: float | None) -> None:
        """Set the times of the last access and change, where they are given."""
        times = {"accessed": accessed, "modified": modified}
        times = {name: _stamp(time) for name, time in times.items() if time is not None}
        self._call("Chtimes", "ChtimesRequest", path=path, **times)

    def truncate(self, path: str, size: int) -> None:
        """Cut a file, or grow it with zeros."""
        self._call("Truncate", "TruncateRequest", path=path, size=size)

    def temp_file(self, pattern: str = "") -> tuple[File, str]:
        """A new file to read and write, and its path; the host removes it with the plugin.

        The last * of the pattern becomes random.
        """
        request = message("TempFileRequest", pattern=pattern)
        options = message("OpenOptions", read=True, write=True)
        asked = self._host._hand_over("filesystem.temp_file", writes=True, temp_file=request)
        if asked is not None:
            (descriptor,) = asked[1]
            return File(self._host, options, descriptor=descriptor), asked[0].temp_file.path
        made = self._host.call("Filesystem", "TempFile", request)
        return File(self._host, options, lease=made.lease), made.path

    def temp_dir(self, pattern: str = "") -> str:
        """A new directory, which the host removes when the plugin is gone."""
        return self._call("TempDir", "TempDirRequest", pattern=pattern).path

    def watch(self, path: str, recursive: bool = False) -> "Watch":
        """Report changes beneath a path from now on: when this returns, the host watches."""
        watch = Watch(self._host, path, recursive)
        try:
            if watch._message() != Watch.READY:
                raise _unexpected("filesystem.watch")
        except BaseException:
            watch.close()
            raise
        return watch


class OpenOptions:
    """How a file is opened."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._options = message("OpenOptions")

    def _set(self, **values) -> "OpenOptions":
        for name, value in values.items():
            setattr(self._options, name, value)
        return self

    def read(self, read: bool) -> "OpenOptions":
        """To read."""
        return self._set(read=read)

    def write(self, write: bool) -> "OpenOptions":
        """To write."""
        return self._set(write=write)

    def append(self, append: bool) -> "OpenOptions":
        """To write at its end, whatever the position is."""
        return self._set(append=append)

    def truncate(self, truncate: bool) -> "OpenOptions":
        """Emptied."""
        return self._set(truncate=truncate)

    def create(self, create: bool) -> "OpenOptions":
        """Made when it is not there."""
        return self._set(create=create)

    def create_new(self, create_new: bool) -> "OpenOptions":
        """Made, and an error when it is there."""
        return self._set(create_new=create_new)

    def mode(self, mode: int) -> "OpenOptions":
        """Unix permission bits of a file that is made; 0600 without."""
        return self._set(mode=mode)

    def open(self, path: str) -> File:
        """Open the file."""
        request = message("OpenRequest", path=path, options=self._options)
        return self._open("filesystem.open", "Open", request, open=request)

    def open_at(self, folder: "Dir", path: str) -> File:
        """Open a file beneath a directory."""
        request = message("OpenAtRequest", lease=folder._lease.id, path=path, options=self._options)
        return self._open("filesystem.open_at", "OpenAt", request, open_at=request)

    def _open(self, operation: str, method: str, request, **by_descriptor) -> File:
        options = message("OpenOptions")
        options.CopyFrom(self._options)
        writes = options.write or options.append
        asked = self._host._hand_over(operation, writes=writes, **by_descriptor)
        if asked is not None:
            (descriptor,) = asked[1]
            return File(self._host, options, descriptor=descriptor)
        return File(self._host, options, lease=self._host.call("Filesystem", method, request).lease)


class Dir(_Closing):
    """An open directory: files are opened beneath it, whatever happens to its path."""

    def __init__(self, host: Host, lease: str) -> None:
        self._host, self._lease = host, _Lease(host, lease)

    def open(self, path: str) -> File:
        """Open a file beneath it for reading."""
        return OpenOptions(self._host).read(True).open_at(self, path)

    def close(self) -> None:
        self._lease.close()


@dataclass(frozen=True)
class DirEntry:
    """One entry of a directory; a link stands for itself."""

    name: str
    kind: FileKind


class ReadDir:
    """The entries of a directory."""

    def __init__(self, host: Host, path: str) -> None:
        self._unreadable = 0
        self._entries = self._read(host, path)

    def _read(self, host: Host, path: str) -> Iterator[DirEntry]:
        cookie = None
        while cookie != "":
            request = message("ListRequest", path=path, cookie=cookie or "")
            page = host.call("Filesystem", "List", request)
            self._unreadable += page.unreadable
            for entry in page.entries:
                yield DirEntry(entry.name, FileKind(entry.kind))
            cookie = page.next

    def __iter__(self) -> "ReadDir":
        return self

    def __next__(self) -> DirEntry:
        return next(self._entries)

    def unreadable(self) -> int:
        """Names so far that are no UTF-8 and were left out."""
        return self._unreadable


class ChangeKind(enum.Enum):
    """What happened to something that is watched; OVERFLOW: changes were lost, look again."""

    CREATED = 1
    MODIFIED = 2
    REMOVED = 3
    OVERFLOW = 4


@dataclass(frozen=True)
class Change:
    """A change of something that is watched."""

    path: str
    kind: ChangeKind


class Watch(_Closing):
    """Changes beneath a path, until it is closed."""

    READY = Change("", ChangeKind.OVERFLOW)

    def __init__(self, host: Host, path: str, recursive: bool) -> None:
        request = message("WatchRequest", path=path, recursive=recursive)
        self._changes = host.stream("Filesystem", "Watch", request)

    def _message(self) -> Change | None:
        for change in self._changes:
            if change.kind == 5:
                return self.READY
            if change.kind in (1, 2, 3, 4):
                return Change(change.path, ChangeKind(change.kind))
        return None

    def __iter__(self) -> "Watch":
        return self

    def __next__(self) -> Change:
        """The next change; the end when the host watches no longer."""
        change = self._message()
        if change is None:
            raise StopIteration
        return change

    def close(self) -> None:
        self._changes.close()


class Env:
    """Variables that were granted, and facts about the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def _call(self, method: str, kind: str, /, **fields):
        return self._host.call("Environment", method, message(kind, **fields))

    def var(self, name: str) -> str | None:
        """The value, or None where it is granted and not set."""
        reply = self._call("Get", "GetRequest", name=name)
        return reply.value if reply.set else None

    def vars(self) -> dict[str, str]:
        """All granted variables that are set."""
        return dict(self._call("List", "ListVariablesRequest").variables)

    def names(self) -> list[str]:
        """The granted names, set or not."""
        return list(self._call("Names", "NamesRequest").names)

    def ids(self):
        """The user, group and process ids of the host: an IdsResponse."""
        return self._call("Ids", "IdsRequest")

    def dirs(self):
        """The directories of the host's user, names and not grants: a DirsResponse."""
        return self._call("Dirs", "DirsRequest")

    def host_info(self):
        """What machine the host runs on: a HostInfoResponse."""
        return self._call("HostInfo", "HostInfoRequest")


class Processes:
    """Commands of the whitelist, run by the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def command(self, path: str) -> "Command":
        """A command by its absolute path."""
        return Command(self._host, path)

    def list(self) -> list:
        """The processes that this plugin has started: ProcessInfo values."""
        return list(self._host.call("Process", "List", message("ListProcessesRequest")).processes)


class Command:
    """A command to run."""

    def __init__(self, host: Host, path: str) -> None:
        self._host = host
        self._command = message("Command", command=path)
        self._input, self._timeout = b"", None

    def arg(self, argument: str) -> "Command":
        """Add an argument."""
        self._command.args.append(argument)
        return self

    def args(self, arguments: Iterable[str]) -> "Command":
        """Add arguments."""
        self._command.args.extend(arguments)
        return self

    def env(self, name: str, value: str) -> "Command":
        """Set a variable. The name must be granted, and the value be the one Env.var() tells."""
        self._command.environment[name] = value
        return self

    def current_dir(self, directory: str) -> "Command":
        """Run it in a granted directory."""
        self._command.directory = directory
        return self

    def input(self, data: bytes) -> "Command":
        """What output() gives it to read."""
        self._input = bytes(data)
        return self

    def timeout(self, seconds: float) -> "Command":
        """How long output() lets it run, and never longer than the host's call_timeout."""
        self._timeout = seconds
        return self

    def output(self) -> "Output":
        """Run it to its end and collect what it prints. A command that fails is no error."""
        timeout = _milliseconds(self._timeout)
        request = message("RunRequest", command=self._command, input=self._input, timeout_ms=timeout)
        ran = self._host.call("Process", "Run", request, timeout=None)
        status = ExitStatus._from_wire(ran.status, "process.run")
        return Output(status, ran.output, ran.error_output, ran.dropped)

    def spawn(self) -> "Child":
        """Start it. Its input and output are streams."""
        asked = self._host._hand_over("process.start", exec=self._command)
        if asked is not None:
            reply, pipes = asked
            for pipe in pipes:
                os.set_blocking(pipe, True)
            stdin, stdout, stderr = pipes
            streams = (_Pipe(stdin, "wb"), _Pipe(stdout, "rb"), _Pipe(stderr, "rb"))
            return Child(self._host, reply.started, *streams)
        started = self._host.call("Process", "Start", message("StartRequest", command=self._command))
        printed = self._host.stream("Process", "Output", message("OutputRequest", process=started.process))
        stdout, stderr = ChildOutput(), ChildOutput()
        sorting = threading.Thread(target=_sort, args=(printed, stdout, stderr), daemon=True)
        sorting.start()
        return Child(self._host, started, ChildInput(self._host, started.process), stdout, stderr)


@dataclass(frozen=True)
class ExitStatus:
    """How a command ended: by itself with a code, or by a signal."""

    code: int | None = None
    signal: int | None = None

    def success(self) -> bool:
        """Whether it ended by itself with 0."""
        return self.code == 0

    @classmethod
    def _from_wire(cls, status, operation: str) -> "ExitStatus":
        end = status.WhichOneof("end")
        if end is None:
            raise _unexpected(operation)
        return cls(**{end: getattr(status, end)})


@dataclass(frozen=True)
class Output:
    """What a command did; dropped counts bytes that it printed and that did not fit."""

    status: ExitStatus
    stdout: bytes
    stderr: bytes
    dropped: int


class Child(_Closing):
    """A command that runs. It ends when this is closed or forgotten.

    stdin, stdout and stderr are raw streams; closing stdin ends it. While nobody reads what the
    command prints it waits: read both.
    """

    def __init__(self, host: Host, started, stdin, stdout, stderr) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._host, self._pid, self._process = host, started.pid, started.process
        self._status: ExitStatus | None = None

    def pid(self) -> int:
        """Its process id at the host."""
        return self._pid

    def wait(self) -> ExitStatus:
        """Close its input and wait until it ends."""
        self.stdin.close()
        # A wait lasts no longer than any call of the host.
        while self._status is None:
            try:
                waited = self._host.call("Process", "Wait", message("WaitRequest", process=self._process))
                self._status = ExitStatus._from_wire(waited.status, "process.wait")
            except HostError as error:
                if error.grpc_code != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
        return self._status

    def kill(self) -> None:
        """Kill it and what it started."""
        self._host.call("Process", "Kill", message("KillRequest", process=self._process))

    def signal(self, number: int) -> None:
        """Send it a signal by number, where that is granted."""
        self._host.call("Process", "Signal", message("SignalRequest", process=self._process, signal=number))

    def detach(self) -> None:
        """Let it run on without this value, until the plugin is gone."""
        self._process = ""

    def close(self) -> None:
        process, self._process = self._process, ""
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()
        # What has ended the host forgets by itself.
        if process and self._status is None:
            _end(self._host, process)

    def __del__(self) -> None:
        # Nothing is asked of the host in the middle of something else.
        process = getattr(self, "_process", "")
        if process and self._status is None and not sys.is_finalizing():
            threading.Thread(target=_end, args=(self._host, process), daemon=True).start()


def _end(host: Host, process: str) -> None:
    """Give a process back, which ends one that runs."""
    # The host may be gone already, and all processes with it.
    with contextlib.suppress(HostError, ValueError):
        host.call("Process", "Close", message("CloseProcessRequest", process=process))


class _Pipe(io.FileIO):
    """A pipe that was handed over; writes all that it is given."""

    def write(self, data) -> int:
        if self.closed:
            raise ValueError("the input is closed")
        data = memoryview(data).cast("B")
        done = 0
        while done < len(data):
            with _system("process.write_input"):
                done += super().write(data[done:])
        return done


class ChildInput(io.RawIOBase):
    """A command's input, by calls."""

    def __init__(self, host: Host, process: str) -> None:
        super().__init__()
        self._host, self._process = host, process

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        if self.closed:
            raise ValueError("the input is closed")
        for part in _parts(data, SENT):
            self._write(data=bytes(part))
        return memoryview(data).nbytes

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        # The command may be gone already.
        with contextlib.suppress(HostError, ValueError):
            self._write(close=True)

    def _write(self, **fields) -> None:
        request = message("WriteInputRequest", process=self._process, **fields)
        self._host.call("Process", "WriteInput", request)


class _Parts(io.RawIOBase):
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


class ChildOutput(_Parts):
    """What a command prints, by calls."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._waiting: list = []
        self._ended = False

    def _next(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or self.closed)
            if not self._waiting:
                return b""
            part = self._waiting.pop(0)
            self._changed.notify_all()
        if isinstance(part, HostError):
            raise part
        return part

    def _put(self, part) -> None:
        """Wait until there is room for a part, or nobody reads."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < WAITING or self.closed)
            if not self.closed and part:
                self._waiting.append(part)
            self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        super().close()
        with self._changed:
            self._changed.notify_all()


def _sort(printed: Replies, stdout: ChildOutput, stderr: ChildOutput) -> None:
    """Give each stream its parts until the command ends, or until nobody reads any of it."""
    try:
        for part in printed:
            stream = stdout if part.WhichOneof("part") == "output" else stderr
            stream._put(part.output or part.error_output)
            if stdout.closed and stderr.closed:
                return
    except HostError as error:
        stdout._put(error)
        stderr._put(error)
    finally:
        printed.close()
        stdout._end()
        stderr._end()


class NetworkAccess:
    """Connections that the host makes for the plugin."""

    def __init__(self, host: Host) -> None:
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
        if dialling is not None and _is_address(host):
            asked = dialling.ask("network.connect", wait=False, connect=target)
            if asked is not None:
                (descriptor,) = asked[1]
                stream = socket.socket(fileno=descriptor)
                # The host's sockets do not block.
                stream.setblocking(True)
                return _Socket(stream, asked[0].connected)
        sending = _Sending("ConnectRequest", target=target)
        replies = self._host.exchange("Network", "Connect", sending)
        try:
            first = next(replies, None)
            if first is None or first.WhichOneof("part") != "connected":
                raise _unexpected("network.connect")
        except BaseException:
            sending.end()
            replies.close()
            raise
        return _Calls(sending, replies, first.connected)

    def listen(self, address: str | None, port: int) -> "Listener":
        """Listen on a granted port, at 127.0.0.1 unless another address of the host is named."""
        request = message("ListenRequest", port=port, address=str(address or ""))
        incoming = self._host.stream("Network", "Listen", request)
        try:
            first = next(incoming, None)
            if first is None or first.WhichOneof("part") != "listening":
                raise _unexpected("network.listen")
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
            asked = dialling.ask(_UDP, wait=False, open_udp=message("OpenUdpRequest", **wanted))
            if asked is not None:
                (descriptor,) = asked[1]
                return _UdpPackets(socket.socket(fileno=descriptor), asked[0].connected)
        sending = _Sending("OpenUdpRequest", **wanted)
        replies = self._host.exchange("Network", "OpenUdp", sending)
        try:
            first = next(replies, None)
            if first is None or first.WhichOneof("part") != "opened":
                raise _unexpected(_UDP)
        except BaseException:
            sending.end()
            replies.close()
            raise
        return _UdpCalls(sending, replies, first.opened)

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
                raise _unexpected("network.http_stream")
        except BaseException:
            replies.close()
            raise

        def body() -> Iterator[bytes]:
            with replies:
                for part in replies:
                    yield part.data

        return HttpResponse(first.head), body()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _socket_address(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdecimal() else None


class TcpStream(_Parts):
    """A connection: a raw stream to read and write.

    As with a socket, what was written goes out after close(): for LINGER_SECONDS, while the plugin
    runs, and unless the peer goes on sending: what comes is not wanted.

    One to an address may be a socket that the host carries. When its peer breaks off, its time is
    up, or the host ends, it ends as if the peer had finished: a protocol that does not mark its
    own end cannot tell. Any other raises HostError then.
    """

    def __init__(self, connected) -> None:
        super().__init__()
        self._remote = _socket_address(connected.remote_address)
        self._local = _socket_address(connected.local_address)

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


class _Socket(TcpStream):
    """A connection that was handed over."""

    def __init__(self, stream: socket.socket, connected) -> None:
        super().__init__(connected)
        self._socket = stream

    def readinto(self, buffer) -> int:
        with _system("network.connect"):
            return self._socket.recv_into(buffer)

    def write(self, data) -> int:
        with _system("network.connect"):
            self._socket.sendall(data)
        return memoryview(data).nbytes

    def shutdown(self) -> None:
        with _system("network.connect"):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        super().close()
        self._socket.close()


def _broken() -> HostError:
    return _system_error("network.connect", errno.EPIPE)


class _Sending:
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
        raise _broken()

    def end(self) -> None:
        """Nobody takes what is sent any more."""
        self._over.set()
        with contextlib.suppress(queue.Full):
            self._messages.put_nowait(None)

    def __iter__(self) -> Iterator:
        yield from iter(self._messages.get, None)
        self.taken.set()


class _Calls(TcpStream):
    """A connection by calls."""

    def __init__(self, sending: _Sending, replies: Replies, connected) -> None:
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
            raise _broken()
        for part in _parts(data, SENT):
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


class Listener(_Closing):
    """A port on which the host listens for the plugin, until this is closed."""

    def __init__(self, host: Host, local: str, incoming: Replies) -> None:
        self._host, self._local, self._incoming = host, local, incoming

    def local_addr(self) -> tuple[str, int] | None:
        """Where the host listens."""
        return _socket_address(self._local)

    def accept(self) -> tuple[TcpStream, tuple[str, int] | None]:
        """The next connection from a granted origin, and where it comes from.

        One that the host gave up meanwhile, because nobody took it in time, is passed over.
        """
        for reply in self._incoming:
            if reply.WhichOneof("part") != "incoming":
                continue
            incoming = reply.incoming
            sending = _Sending("AcceptRequest", connection=incoming.connection)
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
            return _Calls(sending, replies, connected), _socket_address(remote)
        raise _unexpected("network.listen")

    def close(self) -> None:
        self._incoming.close()


_UDP = "network.open_udp"


def _udp_gone() -> HostError:
    unreachable = grpc.StatusCode.UNAVAILABLE
    return HostError(_UDP, f"{_UDP}: the host has ended the socket", code="socket-gone", grpc_code=unreachable)


class UdpSocket(_Closing):
    """A UDP socket of the host. One thread may receive while others send.

    Datagrams keep their bounds and may get lost: on the network, and at the host while the plugin
    takes none, which dropped() counts. What became of a datagram that was sent is raised, if at
    all, by a later recv(): the socket goes on. When the host ends it, recv() says once why.
    """

    def __init__(self, connected) -> None:
        self._remote = _socket_address(connected.remote_address)
        self._local = _socket_address(connected.local_address)
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
            raise _system_error(_UDP, errno.EDESTADDRREQ)
        return self._send_datagram(data, "")

    def send_to(self, data: bytes, target: tuple[str, int]) -> int:
        """Send a datagram: at a port, to one of those from whom something came."""
        host, port = ipaddress.ip_address(target[0]), target[1]
        if self._remote is None:
            return self._send_datagram(data, f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}")
        if (host, port) != (ipaddress.ip_address(self._remote[0]), self._remote[1]):
            raise _system_error(_UDP, errno.EISCONN)
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
                raise _told(_UDP, getattr(reply, part))
            if part == "datagram":
                break
        data, address = reply.datagram.data, reply.datagram.address
        if len(data) > size:
            text = f"{_UDP}: a datagram of {len(data)} bytes is longer than the {size} that were asked for"
            out_of_range = grpc.StatusCode.OUT_OF_RANGE
            raise HostError(_UDP, text, code="datagram-truncated", grpc_code=out_of_range)
        return data, self._remote or _socket_address(address)

    def _send_datagram(self, data: bytes, address: str) -> int:
        if len(data) > LONGEST_DATAGRAM:
            raise _system_error(_UDP, errno.EMSGSIZE)
        self._send({"datagram": message("Datagram", data=bytes(data), address=address)})
        return len(data)

    def _send(self, part: dict) -> None:
        raise NotImplementedError

    def _message(self, timeout: float | None):
        """The next message of the host; raises what ended the socket."""
        raise NotImplementedError


class _UdpPackets(UdpSocket):
    """A UDP socket that was handed over: one end of a pair of sockets of packets."""

    def __init__(self, pair: socket.socket, connected) -> None:
        super().__init__(connected)
        pair.setblocking(True)
        self._pair = pair

    def _send(self, part: dict) -> None:
        packet = message("OpenUdpRequest", **part).SerializeToString()
        self._check_open()
        with _system(_UDP):
            try:
                self._pair.send(packet)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise _udp_gone() from error

    def _check_open(self) -> None:
        if self._pair.fileno() < 0:
            raise _udp_gone()

    def _message(self, timeout: float | None):
        self._check_open()
        if timeout is not None:
            poller = select.poll()
            poller.register(self._pair, select.POLLIN)
            if not poller.poll(_milliseconds(timeout)):
                raise TimeoutError(f"{_UDP}: nothing came in {timeout} s")
        with _system(_UDP):
            while True:
                # The host did not take everything; what it sent is there.
                with contextlib.suppress(ConnectionResetError):
                    packet = self._pair.recv(LONGEST_PACKET)
                    break
        if not packet:
            raise _udp_gone()
        return _class("OpenUdpResponse").FromString(packet)

    def close(self) -> None:
        # Wakes who receives.
        with contextlib.suppress(OSError):
            self._pair.shutdown(socket.SHUT_RDWR)
        self._pair.close()


class _UdpCalls(UdpSocket):
    """A UDP socket by a call."""

    def __init__(self, sending: _Sending, replies: Replies, connected) -> None:
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
            raise _udp_gone()
        self._wrote = True
        try:
            self._sending.send(part)
        except HostError as error:
            raise _udp_gone() from error

    def _message(self, timeout: float | None):
        if self._closed.is_set():
            raise _udp_gone()
        try:
            reply = self._arrived.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"{_UDP}: nothing came in {timeout} s") from None
        if isinstance(reply, HostError):
            raise reply
        if reply is None:
            # For whoever asks again.
            self._arrived.put(None)
            raise _udp_gone()
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


class HttpRequest:
    """One HTTP request."""

    def __init__(self, method: str, url: str) -> None:
        self._request = message("HttpRequest", method=method, url=url)

    def header(self, name: str, value: str | bytes) -> "HttpRequest":
        """Add a header."""
        self._request.headers.add(name=name, value=value.encode() if isinstance(value, str) else value)
        return self

    def body(self, body: bytes) -> "HttpRequest":
        """Set the body."""
        self._request.body = bytes(body)
        return self

    def timeout(self, seconds: float) -> "HttpRequest":
        """Bound how long it takes, all redirects together."""
        self._request.timeout_ms = _milliseconds(seconds)
        return self

    def follow_redirects(self, most: int) -> "HttpRequest":
        """Follow so many redirects, each judged as a request of its own."""
        self._request.follow_redirects = most
        return self


class HttpResponse:
    """The reply to an HTTP request."""

    def __init__(self, reply) -> None:
        self._reply = reply

    def status(self) -> int:
        """The status, such as 200."""
        return self._reply.status

    def header(self, name: str) -> bytes | None:
        """The first header of that name, whatever its case."""
        return next((value for found, value in self.headers() if found.lower() == name.lower()), None)

    def headers(self) -> list[tuple[str, bytes]]:
        """All headers."""
        return [(header.name, header.value) for header in self._reply.headers]

    def body(self) -> bytes:
        """The body; empty where it comes in parts."""
        return self._reply.body

    def url(self) -> str:
        """Where it came from, after redirects."""
        return self._reply.url


class Clock:
    """Time and randomness of the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> float:
        """The time of day, in seconds since 1970."""
        reply = self._host.call("Clock", "Now", message("NowRequest"))
        now = _seconds(reply, "time")
        if now is None:
            raise _unexpected("clock.now")
        return now

    def monotonic(self) -> float:
        """Seconds since a moment that stays the same while the host runs."""
        return self._host.call("Clock", "Monotonic", message("MonotonicRequest")).nanoseconds / 1e9

    def sleep(self, seconds: float) -> None:
        """Wait at the host, for at most its call_timeout."""
        request = message("SleepRequest", milliseconds=_milliseconds(seconds))
        self._host.call("Clock", "Sleep", request, timeout=None)

    def ticks(self, period: float) -> "Ticks":
        """Tick with a period of at least a millisecond, until it is closed."""
        return Ticks(self._host.stream("Clock", "Ticks", message("TicksRequest", period_ms=_milliseconds(period))))

    def random(self, length: int) -> bytes:
        """Random bytes from the host's kernel, at most 64 KiB."""
        return self._host.call("Clock", "Random", message("RandomRequest", length=length)).data

    def uuid(self) -> str:
        """A UUID of version 7, which sorts by time."""
        return self._host.call("Clock", "Uuid", message("UuidRequest", version=7)).uuid


class Ticks(_Closing):
    """Ticks of the host's clock: for each one, how many went by unseen before it."""

    def __init__(self, ticks: Replies) -> None:
        self._ticks = ticks

    def __iter__(self) -> "Ticks":
        return self

    def __next__(self) -> int:
        return next(self._ticks).missed

    def close(self) -> None:
        self._ticks.close()


class LogLevel(enum.IntEnum):
    """How severe a record is."""

    TRACE = 1
    DEBUG = 2
    INFO = 3
    WARN = 4
    ERROR = 5


class Log:
    """The host's log, under the plugin's name.

    What the plugin logs by itself goes to the host in any case; this is for records that must not
    get lost.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def write(self, level: LogLevel, text: str, fields: dict[str, str] | None = None) -> bool:
        """Write one record; whether the host keeps its level."""
        record = message("LogRecord", level=int(level), message=text, fields=fields or {})
        return self._host.call("Log", "Write", message("WriteLogRequest", records=[record])).written > 0

    def level(self) -> LogLevel | None:
        """The least severe level that the host keeps; None when it keeps none."""
        level = self._host.call("Log", "Level", message("LevelRequest")).level
        return LogLevel(level) if level else None


class Session:
    """What this plugin is to the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def plugin(self) -> str:
        """The name that the host gave this plugin."""
        return self._host._about.plugin

    def instance(self) -> str:
        """What tells this run of the plugin from every other one."""
        return self._host._about.instance

    def services(self) -> list[str]:
        """The services that are granted, by short name."""
        return list(self._host._about.services)

    def limits(self):
        """What the host bounds, if it said: a Limits."""
        return self._host._about.limits if self._host._about.HasField("limits") else None

    def grants(self):
        """The grants in force: a GrantsResponse."""
        return self._host.call("Session", "Grants", message("GrantsRequest"))

    def usage(self):
        """What was used up so far: a UsageResponse."""
        return self._host.call("Session", "Usage", message("UsageRequest"))
