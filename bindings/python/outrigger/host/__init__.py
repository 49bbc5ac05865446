"""The host's services (outrigger.host.v1) as if they were local, under what the host has granted.

    import outrigger.host

    def register(server, broker):
        ctx = outrigger.host.Context(broker)    # looks for the host from now on
        ...
        with ctx.host().fs().open("/data/report.csv") as file:
            start = file.read(512)

The names are those of the Rust SDK. What is a builder there is one here; what waits there blocks
here; times are seconds; what holds something at the host has close() and is a context manager;
files, connections, input and output of commands are raw streams of `io` that write all they are
given.

What the application offers of its own has names: `outrigger.host.service("cache")` is a channel for
any stub, made when it is first used.

Where the host hands over descriptors, opened files, connections to addresses, UDP sockets and
commands' pipes come as such; elsewhere, and for what a descriptor cannot do, the same methods are calls. Needs
grpcio and protobuf.
"""

from ._calls import Replies
from ._clock import Clock, Ticks
from ._environment import Env
from ._errors import HostError
from ._file import File, FileKind, Metadata
from ._fs import Change, ChangeKind, Dir, DirEntry, Fs, OpenOptions, ReadDir, Watch
from ._host import Context, Host
from ._http import HttpRequest, HttpResponse
from ._log import Log, LogLevel
from ._network import NetworkAccess
from ._process import Child, ChildInput, ChildOutput, Command, ExitStatus, Output, Processes
from ._services import service, services
from ._session import Session
from ._tcp import Listener, TcpStream
from ._udp import UdpSocket

__all__ = [
    "Change",
    "ChangeKind",
    "Child",
    "ChildInput",
    "ChildOutput",
    "Clock",
    "Command",
    "Context",
    "Dir",
    "DirEntry",
    "Env",
    "ExitStatus",
    "File",
    "FileKind",
    "Fs",
    "Host",
    "HostError",
    "HttpRequest",
    "HttpResponse",
    "Listener",
    "Log",
    "LogLevel",
    "Metadata",
    "NetworkAccess",
    "OpenOptions",
    "Output",
    "Processes",
    "ReadDir",
    "Replies",
    "Session",
    "TcpStream",
    "Ticks",
    "UdpSocket",
    "Watch",
    "service",
    "services",
]
