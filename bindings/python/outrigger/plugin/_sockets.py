"""Where a plugin listens, and the gRPC servers that listen there."""

import grp
import os
import random
import socket
import tempfile
from concurrent import futures
from dataclasses import dataclass

import grpc

from .. import _trace

# A server thread is taken by every open stream, among them stdio and the broker's control stream.
MAX_THREADS = 32

_SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", -1),
]


@dataclass(frozen=True)
class Address:
    """A listener's address as it stands on the wire."""

    network: str
    text: str


@dataclass(frozen=True)
class Listener:
    """A gRPC server that is bound but not started yet."""

    server: grpc.Server
    address: Address

    def remove(self) -> None:
        """Remove the socket file, if it is still there."""
        if self.address.network == "unix":
            try:
                os.unlink(self.address.text)
            except FileNotFoundError:
                pass


def bind(transport: str) -> Listener:
    """Bind a new server to a unique unix socket, or to a free port in the host's range.

    Raises OSError or RuntimeError when that fails.
    """
    threads = futures.ThreadPoolExecutor(max_workers=MAX_THREADS)
    server = grpc.server(threads, interceptors=(_trace.Incoming(),), options=_SERVER_OPTIONS)
    if transport == "unix":
        path = _unique_path()
        # The library raises when it cannot bind; older releases return 0 instead.
        if server.add_insecure_port("unix:" + path) == 0:
            raise RuntimeError(f"cannot bind {path}")
        _give_to_group(path)
        return Listener(server, Address("unix", path))
    if transport == "tcp":
        return Listener(server, Address("tcp", f"127.0.0.1:{_bind_port(server)}"))
    raise ValueError(f"unknown transport {transport!r}")


def _unique_path() -> str:
    folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.gettempdir()
    for _ in range(100):
        path = os.path.join(folder, f"plugin{random.SystemRandom().randrange(10**10)}")
        if not os.path.lexists(path):
            return path
    raise OSError("no unused socket name was found in " + folder)


def _give_to_group(path: str) -> None:
    group = os.environ.get("PLUGIN_UNIX_SOCKET_GROUP", "")
    if not group:
        return
    gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    os.chown(path, -1, gid)
    os.chmod(path, 0o660)


def _bind_port(server: grpc.Server) -> int:
    low = int(os.environ.get("PLUGIN_MIN_PORT") or 0)
    high = int(os.environ.get("PLUGIN_MAX_PORT") or 0)
    if low > high:
        raise ValueError(f"PLUGIN_MIN_PORT {low} is above PLUGIN_MAX_PORT {high}")
    for port in range(low, high + 1):
        if port and not _is_free(port):
            continue
        try:
            bound = server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError:
            continue
        if bound:
            return bound
    raise RuntimeError(f"no free port between {low} and {high}")


def _is_free(port: int) -> bool:
    """A look before binding: the library logs every failed attempt at length."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def unary(handler, request_type) -> grpc.RpcMethodHandler:
    """The handler of a call with one request and one response."""
    return grpc.unary_unary_rpc_method_handler(
        handler,
        request_deserializer=request_type.FromString,
        response_serializer=_serialize,
    )


def server_stream(handler, request_type) -> grpc.RpcMethodHandler:
    """The handler of a call that is answered with a stream."""
    return grpc.unary_stream_rpc_method_handler(
        handler,
        request_deserializer=request_type.FromString,
        response_serializer=_serialize,
    )


def both_streams(handler, request_type) -> grpc.RpcMethodHandler:
    """The handler of a call with streams in both directions."""
    return grpc.stream_stream_rpc_method_handler(
        handler,
        request_deserializer=request_type.FromString,
        response_serializer=_serialize,
    )


def add_service(server: grpc.Server, name: str, methods: dict[str, grpc.RpcMethodHandler]) -> None:
    """Serve the methods under a full service name."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))


def _serialize(message) -> bytes:
    return message.SerializeToString()
