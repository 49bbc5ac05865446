#!/usr/bin/env python3
"""A plugin that asks its host for one operation, in the way that it is told, and says how that failed.

It takes filelister.v1.FileLister: the lines of a request's path are the way (descriptor or call), the
operation and its arguments; host_service is a broker id, for services of which the limits are to be
met. The reply has "ok", or the facts of the error in a fixed order. The table of system errors is what
the operation "system_errors" answers with.
"""

import os
import sys
from pathlib import Path

# The C core reports every dropped connection on stderr otherwise.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

HERE = Path(__file__).resolve().parent
# The package that is tested, and the messages of the examples.
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2] / "examples/python")]

import grpc

import outrigger.host
from generated import filelister_pb2
from outrigger import plugin
from outrigger.host import Host, HostError
from outrigger.host._errors import system_error


def number(arguments: list[str], index: int) -> int:
    return int(arguments[index]) if len(arguments) > index else 0


def opened(host: Host, arguments: list[str]):
    """A file, opened as letters say: read, write, append, truncate, create, new."""
    path, mode = arguments[:2]
    options = host.fs().options().read("r" in mode).write("w" in mode).append("a" in mode)
    return options.truncate("t" in mode).create("c" in mode).create_new("n" in mode).open(path)


def command(host: Host, arguments: list[str]):
    made = host.process().command(arguments[0]).args(arguments[2:])
    return made.current_dir(arguments[1]) if len(arguments) > 1 and arguments[1] else made


def spawned(host: Host, arguments: list[str], then) -> None:
    with command(host, arguments).spawn() as child:
        then(child)


def beneath(host: Host, arguments: list[str]) -> None:
    with host.fs().open_dir(arguments[0]) as folder:
        folder.open(arguments[1]).close()


def udp(host: Host, arguments: list[str]) -> None:
    """Connect, send a datagram of so many bytes, and one to another place."""
    with host.network().connect_udp(arguments[0], number(arguments, 1)) as socket:
        socket.send(bytes(number(arguments, 2)))
        socket.send_to(b"", ("127.0.0.1", 1))


def watched(host: Host, arguments: list[str]) -> None:
    host.fs().watch(arguments[0]).close()


HOST = {
    "open": lambda host, a: opened(host, a).close(),
    "create": lambda host, a: host.fs().create(a[0]).close(),
    "open_dir": lambda host, a: host.fs().open_dir(a[0]).close(),
    "open_at": beneath,
    "read": lambda host, a: host.fs().read(a[0]),
    "write": lambda host, a: host.fs().write(a[0], b"new"),
    "append": lambda host, a: host.fs().append(a[0], b"more"),
    "copy": lambda host, a: host.fs().copy(a[0], a[1]),
    "metadata": lambda host, a: host.fs().metadata(a[0]),
    "symlink_metadata": lambda host, a: host.fs().symlink_metadata(a[0]),
    "exists": lambda host, a: host.fs().exists(a[0]),
    "read_dir": lambda host, a: list(host.fs().read_dir(a[0])),
    "read_link": lambda host, a: host.fs().read_link(a[0]),
    "create_dir": lambda host, a: host.fs().create_dir(a[0]),
    "create_dir_all": lambda host, a: host.fs().create_dir_all(a[0]),
    "rename": lambda host, a: host.fs().rename(a[0], a[1]),
    "remove": lambda host, a: host.fs().remove(a[0]),
    "remove_all": lambda host, a: host.fs().remove_all(a[0]),
    "hard_link": lambda host, a: host.fs().hard_link(a[0], a[1]),
    "symlink": lambda host, a: host.fs().symlink(a[0], a[1]),
    "set_permissions": lambda host, a: host.fs().set_permissions(a[0], number(a, 1)),
    "set_owner": lambda host, a: host.fs().set_owner(a[0], number(a, 1), None),
    "set_times": lambda host, a: host.fs().set_times(a[0], None, number(a, 1)),
    "truncate": lambda host, a: host.fs().truncate(a[0], number(a, 1)),
    "temp_file": lambda host, a: host.fs().temp_file(a[0])[0].close(),
    "temp_dir": lambda host, a: host.fs().temp_dir(a[0]),
    "watch": watched,
    "run": lambda host, a: command(host, a).output(),
    "spawn": lambda host, a: spawned(host, a, lambda child: child.wait()),
    "signal": lambda host, a: spawned(host, a, lambda child: child.signal(0)),
    "resolve": lambda host, a: host.network().resolve(a[0], number(a, 1)),
    "connect": lambda host, a: host.network().connect(a[0], number(a, 1)).close(),
    "connect_udp": udp,
    "bind_udp": lambda host, a: host.network().bind_udp(None, number(a, 0)).close(),
    "listen": lambda host, a: host.network().listen(None, number(a, 0)).close(),
    "get": lambda host, a: host.network().get(a[0]),
    "var": lambda host, a: host.env().var(a[0]),
    "random": lambda host, a: host.clock().random(number(a, 0)),
    "sleep": lambda host, a: host.clock().sleep(number(a, 0) / 1000),
}

FILE = {
    "read_at": lambda file, at: file.read_at(8, at),
    "read_at_empty": lambda file, at: file.read_at(0, at),
    "read_exact_at": lambda file, at: file.read_exact_at(8, at),
    "read": lambda file, at: file.read(8),
    "write_at": lambda file, at: file.write_at(b"new", at),
    "write_at_empty": lambda file, at: file.write_at(b"", at),
    "write": lambda file, at: file.write(b"new"),
    "seek": lambda file, at: file.seek(at, os.SEEK_CUR),
    "set_len": lambda file, at: file.set_len(at),
    "sync_all": lambda file, at: file.sync_all(),
    "metadata": lambda file, at: file.metadata(),
    "stream": lambda file, at: list(file.stream(at)),
    "write_stream": lambda file, at: file.write_stream(at, iter([b"new"])),
}


def asked(host: Host, operation: str, arguments: list[str], limited: bool) -> list[str]:
    """Nothing where there is no such operation here.

    Where limits are to be met, one may make the host do itself what it is asked for.
    """
    kind, _, name = operation.rpartition(".")
    if name not in (FILE if kind else HOST):
        return []
    try:
        if kind:
            with opened(host, arguments) as file:
                if not limited and (file.descriptor() is not None) != host.has_descriptors():
                    raise RuntimeError("not in the way that was asked for")
                FILE[name](file, number(arguments, 2))
        else:
            HOST[name](host, arguments)
    except HostError as error:
        return facts(error)
    return ["ok"]


def facts(error: HostError) -> list[str]:
    return [str(error.grpc_code.value[0]), error.errno or "", error.code, error.operation, str(error)]


def system_errors() -> list[str]:
    """What is said of each number."""
    return ["\t".join(facts(system_error("read", number))) for number in range(1, 140)]


def register(server: grpc.Server, broker: plugin.Broker) -> None:
    """Add filelister.v1.FileLister to the server."""
    ctx, hosts = outrigger.host.Context(broker), {}

    def listing(request, _context) -> filelister_pb2.FileListResponse:
        way, operation, *arguments = request.path.split("\n")
        if operation == "system_errors":
            return filelister_pb2.FileListResponse(entry=system_errors())
        number = request.host_service
        if number not in hosts:
            hosts[number] = Host.connect(broker, number) if number else ctx.host()
        host = hosts[number] if way == "descriptor" else hosts[number].without_descriptors()
        if host.has_descriptors() != (way == "descriptor"):
            raise RuntimeError(f"no way by {way}")
        return filelister_pb2.FileListResponse(entry=asked(host, operation, arguments, number != 0))

    methods = {
        "List": grpc.unary_unary_rpc_method_handler(
            listing,
            request_deserializer=filelister_pb2.FileListRequest.FromString,
            response_serializer=filelister_pb2.FileListResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("filelister.v1.FileLister", methods),))


def main() -> int:
    plugin.serve(cookie=("TEST_KEY", "TEST_VALUE"), versions={1: register})
    return 0


if __name__ == "__main__":
    sys.exit(main())
