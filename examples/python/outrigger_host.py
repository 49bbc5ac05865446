"""The host's services (outrigger.host.v1) as if they were local, under what the host has granted.

    import outrigger_host

    def register(server, broker):
        ctx = outrigger_host.Context(broker)    # looks for the host from now on
        ...
        with ctx.host().fs().open("/data/report.csv") as file:
            start = file.read(512)

Where the host hands over descriptors, opened files come as such; elsewhere the same methods are
calls. Needs grpcio and protobuf, and `generated/host_services.bin`, the contract's descriptors.
"""

import contextlib
import io
import os
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Where the host says on which broker id it serves.
VARIABLE = "OUTRIGGER_HOST_SERVICES"
CALL_SECONDS = 60.0
PACKAGE = "outrigger.host.v1"
# Longest message on the descriptor socket, and most descriptors with one.
LONGEST_FRAME = 64 << 10
MOST_DESCRIPTORS = 3
PART = 256 << 10


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(
        (Path(__file__).parent / "generated" / "host_services.bin").read_bytes()
    )
    for file in files.file:
        pool.Add(file)
    return pool


_POOL = _pool()


def message(name: str, **fields):
    """A message of the contract by its short name."""
    return _class(name)(**fields)


def _class(name: str):
    full = name if "." in name else f"{PACKAGE}.{name}"
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full))


class HostError(Exception):
    """The host did not do something, or could not be asked.

    code is the host's own, such as "not-granted"; operation is what was asked for; status is the
    gRPC status code's name; missing is the grant that would have been needed, where one is.
    """

    def __init__(self, operation: str, text: str, *, code: str, status: str, details: dict[str, str] | None = None):
        super().__init__(text)
        self.operation = operation
        self.code = code
        self.status = status
        self.details = details or {}
        self.missing = self.details.get("missing") or None


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
                reason, metadata = "", {}
                for number, value in _fields(parts.get(2, b"")):
                    if number == 1:
                        reason = value.decode()
                    elif number == 3:
                        entry = dict(_fields(value))
                        metadata[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
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
                        status="UNAVAILABLE",
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
        self.about = self.call("Session", "Describe", message("DescribeRequest"))
        self._descriptors = None
        if self.about.HasField("descriptors"):
            self._descriptors = _Descriptors(self.about.descriptors)

    @classmethod
    def connect(cls, broker, broker_id: int) -> "Host":
        """The services that the host serves under a broker id."""
        try:
            return cls(broker.dial(broker_id))
        except HostError:
            raise
        except Exception as error:
            raise HostError("host.connect", str(error), code="broker", status="UNAVAILABLE") from error

    def without_descriptors(self) -> "Host":
        """The same services, asked by calls only."""
        other = object.__new__(Host)
        other.__dict__.update(self.__dict__, _descriptors=None)
        return other

    @property
    def has_descriptors(self) -> bool:
        return self._descriptors is not None

    def fs(self) -> "Fs":
        return Fs(self)

    def env(self) -> "Env":
        return Env(self)

    def process(self) -> "Processes":
        return Processes(self)

    def network(self) -> "Network":
        return Network(self)

    def clock(self) -> "Clock":
        return Clock(self)

    def log(self) -> "Log":
        return Log(self)

    def call(self, service: str, method: str, request):
        """One call with one reply."""
        return self._ask(service, method, request, self._channel.unary_unary)

    def stream(self, service: str, method: str, request) -> Iterator:
        """One call with a stream of replies."""
        replies = self._ask(service, method, request, self._channel.unary_stream)
        try:
            yield from replies
        except grpc.RpcError as error:
            raise _failed(service, method, error) from error
        finally:
            replies.cancel()

    def _ask(self, service: str, method: str, request, kind):
        found = _POOL.FindServiceByName(f"{PACKAGE}.{service}").methods_by_name[method]
        ask = kind(
            f"/{PACKAGE}.{service}/{method}",
            request_serializer=lambda asked: asked.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
        )
        self._calls += 1
        metadata = (("client", self._label), ("request", str(self._calls)))
        try:
            # A stream lasts as long as it is read.
            timeout = CALL_SECONDS if kind == self._channel.unary_unary else None
            return ask(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise _failed(service, method, error) from error


def _failed(service: str, method: str, error: grpc.RpcError) -> HostError:
    code, details = _ErrorDetails.read(error)
    operation = details.get("operation") or f"{service.lower()}.{method.lower()}"
    return HostError(operation, error.details() or "", code=code, status=error.code().name, details=details)


class _Descriptors:
    """The descriptor socket: one connection, one request at a time."""

    def __init__(self, offer) -> None:
        self._offer = offer
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._gone = False
        self._next = 0

    def ask(self, operation: str, **request):
        """A reply and its descriptors; nothing where the same must be asked by a call."""
        with self._lock:
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
                raise HostError(operation, str(error), code="descriptors-gone", status="UNAVAILABLE") from error
        if reply.WhichOneof("reply") != "failure":
            return reply, descriptors
        _close(descriptors)
        failure = reply.failure
        if failure.reason == "use-rpc":
            return None
        names = {code.value[0]: code.name for code in grpc.StatusCode}
        status = names.get(failure.status, "UNKNOWN")
        raise HostError(operation, failure.message, code=failure.reason, status=status, details=dict(failure.metadata))

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
        try:
            while len(data) < wanted:
                # Python closes received descriptors on exec.
                part, more, _, _ = socket.recv_fds(self._socket, wanted - len(data), MOST_DESCRIPTORS)
                descriptors += more
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


class File(io.RawIOBase):
    """A file that the host has opened. It behaves the same by descriptor and by call."""

    def __init__(self, host: Host, *, descriptor: int = -1, lease: str = "", options) -> None:
        super().__init__()
        self._host, self._descriptor, self._lease = host, descriptor, lease
        self._options, self._position = options, 0

    def descriptor(self) -> int | None:
        """The descriptor, where the host handed one over."""
        return self._descriptor if self._descriptor >= 0 else None

    def readable(self) -> bool:
        return self._options.read

    def writable(self) -> bool:
        return self._options.write or self._options.append

    def seekable(self) -> bool:
        return True

    def read_at(self, length: int, offset: int) -> bytes:
        """At most length bytes from offset; empty only at the end."""
        length = min(length, _payload(self._host))
        if self._descriptor >= 0:
            with _system("filesystem.read"):
                return os.pread(self._descriptor, length, offset)
        request = message("ReadRequest", lease=self._lease, offset=offset, length=length)
        return self._host.call("Filesystem", "Read", request).data

    def write_at(self, data: bytes, offset: int) -> None:
        """Write all of data at offset."""
        if self._options.append:
            raise HostError("filesystem.write", "open for appending", code="failed", status="FAILED_PRECONDITION")
        data = memoryview(data)
        while data:
            part = data[: _payload(self._host)]
            if self._descriptor >= 0:
                with _system("filesystem.write"):
                    written = os.pwrite(self._descriptor, part, offset)
            else:
                request = message("WriteRequest", lease=self._lease, offset=offset, data=bytes(part))
                written = self._host.call("Filesystem", "Write", request).written
            offset, data = offset + written, data[written:]

    def readinto(self, buffer) -> int:
        data = self.read_at(len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def write(self, data) -> int:
        data = bytes(data)
        if not self._options.append:
            self.write_at(data, self._position)
            self._position += len(data)
        elif self._descriptor >= 0:
            with _system("filesystem.write"), open(self._descriptor, "ab", buffering=0, closefd=False) as file:
                file.write(data)
        else:
            for at in range(0, len(data), _payload(self._host)):
                part = data[at : at + _payload(self._host)]
                self._host.call("Filesystem", "WriteNext", message("WriteNextRequest", lease=self._lease, data=part))
        if self._options.append:
            self._position = self.size()
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        target = offset + (self.size() if start is None else start)
        if target < 0:
            raise OSError("before the start of the file")
        self._position = target
        return target

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        """The file's size now."""
        if self._descriptor >= 0:
            return os.fstat(self._descriptor).st_size
        request = message("FileStatRequest", lease=self._lease)
        return self._host.call("Filesystem", "FileStat", request).info.size

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        if self._descriptor >= 0:
            with _system("filesystem.truncate"):
                os.ftruncate(self._descriptor, size)
        else:
            request = message("TruncateRequest", lease=self._lease, size=size)
            self._host.call("Filesystem", "Truncate", request)
        return size

    def sync(self) -> None:
        """Wait until everything is on storage."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
        else:
            self._host.call("Filesystem", "Sync", message("SyncRequest", lease=self._lease))

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        elif self._lease:
            # The host may be gone already, and all leases with it.
            with contextlib.suppress(HostError, ValueError):
                self._host.call("Filesystem", "Close", message("CloseRequest", lease=self._lease))


def _payload(host: Host) -> int:
    return max(1, (host.about.limits.message_bytes or 4 << 20) - 1024)


@contextlib.contextmanager
def _system(operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(operation, str(error), code="system-error", status="FAILED_PRECONDITION") from error


class Fs:
    """Files beneath what was granted."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def _call(self, method: str, kind: str, **fields):
        return self._host.call("Filesystem", method, message(kind, **fields))

    def open(self, path: str, *, read=True, write=False, append=False, truncate=False, create=False,
             create_new=False, mode=0) -> File:
        """Open a file: for reading unless something else is said."""
        options = message("OpenOptions", read=read, write=write, append=append, truncate=truncate, create=create,
                          create_new=create_new, mode=mode)
        request = message("OpenRequest", path=path, options=options)
        counted = (write or append) and self._host.about.limits.written_bytes
        if self._host._descriptors is not None and not counted:
            asked = self._host._descriptors.ask("filesystem.open", open=request)
            if asked is not None:
                _, (descriptor,) = asked
                return File(self._host, descriptor=descriptor, options=options)
        lease = self._host.call("Filesystem", "Open", request).lease
        return File(self._host, lease=lease, options=options)

    def create(self, path: str) -> File:
        """Open a file for writing: made if needed, emptied if there."""
        return self.open(path, read=False, write=True, create=True, truncate=True)

    def read(self, path: str) -> bytes:
        """A whole file."""
        with self.open(path) as file:
            return io.BufferedReader(file, PART).read()

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file."""
        with self.create(path) as file:
            file.write(data)

    def metadata(self, path: str):
        """What is at a path, following links: a FileInfo."""
        return self._call("Stat", "StatRequest", path=path).info

    def exists(self, path: str) -> bool:
        return self._call("Exists", "ExistsRequest", path=path).exists

    def read_dir(self, path: str) -> Iterator:
        """The entries of a directory, page by page: DirEntry values."""
        cookie = ""
        while True:
            page = self._call("List", "ListRequest", path=path, cookie=cookie)
            yield from page.entries
            cookie = page.next
            if not cookie:
                return

    def create_dir(self, path: str) -> None:
        self._call("Mkdir", "MkdirRequest", path=path)

    def create_dir_all(self, path: str) -> None:
        self._call("Mkdir", "MkdirRequest", path=path, parents=True)

    def rename(self, source: str, target: str) -> None:
        # "from" is a word of Python.
        self._call("Rename", "RenameRequest", **{"from": source, "to": target, "replace": True})

    def copy(self, source: str, target: str) -> int:
        return self._call("Copy", "CopyRequest", **{"from": source, "to": target, "replace": True}).copied

    def remove(self, path: str) -> None:
        self._call("Remove", "RemoveRequest", path=path)

    def remove_all(self, path: str) -> None:
        self._call("RemoveAll", "RemoveAllRequest", path=path)

    def temp_dir(self, pattern: str = "") -> str:
        return self._call("TempDir", "TempDirRequest", pattern=pattern).path


class Env:
    """Variables that were granted."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def var(self, name: str) -> str | None:
        """The value, or None where it is granted and not set."""
        reply = self._host.call("Environment", "Get", message("GetRequest", name=name))
        return reply.value if reply.set else None

    def vars(self) -> dict[str, str]:
        return dict(self._host.call("Environment", "List", message("ListVariablesRequest")).variables)


class Processes:
    """Commands that were granted."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def run(self, command: str, *args: str, input: bytes = b"", directory: str = ""):
        """Run a command to its end: a RunResponse with status, output and error_output."""
        wanted = message("Command", command=command, args=args, directory=directory)
        return self._host.call("Process", "Run", message("RunRequest", command=wanted, input=input))


class Network:
    """Connections to granted places."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, url: str, *, follow_redirects: int = 5):
        """An HttpResponse with status, headers and body."""
        request = message("HttpRequest", method="GET", url=url, follow_redirects=follow_redirects)
        return self._host.call("Network", "Http", request)

    def connect(self, address: str, port: int) -> socket.socket:
        """A connected socket, where the host hands one over: to an address, not to a name."""
        if self._host._descriptors is not None:
            target = message("Target", host=address, port=port)
            asked = self._host._descriptors.ask("network.connect", connect=target)
            if asked is not None:
                _, (descriptor,) = asked
                return socket.socket(fileno=descriptor)
        raise HostError("network.connect", "the host hands over no socket", code="use-rpc", status="UNIMPLEMENTED")


class Clock:
    """Time and randomness of the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> float:
        """Seconds since 1970."""
        time = self._host.call("Clock", "Now", message("NowRequest")).time
        return time.seconds + time.nanos / 1e9

    def random(self, length: int) -> bytes:
        return self._host.call("Clock", "Random", message("RandomRequest", length=length)).data


class Log:
    """The host's log, under the plugin's name."""

    LEVELS = {"trace": 1, "debug": 2, "info": 3, "warn": 4, "error": 5}

    def __init__(self, host: Host) -> None:
        self._host = host

    def write(self, level: str, text: str, **fields: str) -> bool:
        """Write a record; whether the host keeps its level."""
        record = message("LogRecord", level=self.LEVELS[level], message=text, fields=fields)
        return self._host.call("Log", "Write", message("WriteLogRequest", records=[record])).written > 0
