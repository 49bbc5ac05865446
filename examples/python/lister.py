#!/usr/bin/env python3
"""A file lister in Python. It touches no file itself: it lists through the services of the host."""

import logging
import os
import sys
import threading
import time
from pathlib import Path

# The C core reports every dropped connection on stderr otherwise.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# This repository's package, where none is installed.
sys.path.append(str(Path(__file__).resolve().parents[2] / "bindings/python"))

import grpc

from generated import filelister_pb2, hostserve_pb2
from outrigger import plugin

CALL_SECONDS = 10

log = logging.getLogger("py-lister")


class Lister:
    """filelister.v1.FileLister on top of hostserve.v1.HostService."""

    def __init__(self, broker: plugin.Broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._client_id = ""

    def establish_host_services(self, request, _context) -> filelister_pb2.HostServiceResponse:
        """Dial the broker id on which the host serves, and name this client."""
        try:
            channel = self._broker.dial(request.host_service)
        except plugin.BrokerError as error:
            return filelister_pb2.HostServiceResponse(error=str(error))
        client_id = new_id()
        with self._lock:
            previous, self._channel, self._client_id = self._channel, channel, client_id
        if previous is not None:
            previous.close()
        log.debug("host services established", extra={"fields": {"client": client_id}})
        return filelister_pb2.HostServiceResponse(client_id=client_id)

    def list(self, request, context: grpc.ServicerContext) -> filelister_pb2.FileListResponse:
        """Read a folder through the host and give one readable line per entry."""
        with self._lock:
            channel, client_id = self._channel, self._client_id
        if channel is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "EstablishHostServices was not called")
        request_id = new_id()
        read_dir = channel.unary_unary(
            "/hostserve.v1.HostService/ReadDir",
            request_serializer=hostserve_pb2.ReadDirRequest.SerializeToString,
            response_deserializer=hostserve_pb2.ReadDirResponse.FromString,
        )
        try:
            reply = read_dir(
                hostserve_pb2.ReadDirRequest(root_dir=request.root_dir, path=request.path),
                timeout=CALL_SECONDS,
                metadata=(("client", client_id), ("request", request_id)),
            )
        except grpc.RpcError as error:
            return filelister_pb2.FileListResponse(error=f"calling the host: {error.code().name}: {error.details()}")
        if reply.HasField("error"):
            return filelister_pb2.FileListResponse(error=reply.error)
        lines = [f"d {entry.name}/" if entry.is_dir else f"- {entry.name}" for entry in reply.entries]
        log.debug("listed", extra={"fields": {"path": request.path, "entries": len(lines), "request": request_id}})
        return filelister_pb2.FileListResponse(entry=lines)


def register(server: grpc.Server, broker: plugin.Broker) -> None:
    """Add filelister.v1.FileLister to the server."""
    lister = Lister(broker)
    methods = {
        "EstablishHostServices": grpc.unary_unary_rpc_method_handler(
            lister.establish_host_services,
            request_deserializer=filelister_pb2.HostServiceRequest.FromString,
            response_serializer=filelister_pb2.HostServiceResponse.SerializeToString,
        ),
        "List": grpc.unary_unary_rpc_method_handler(
            lister.list,
            request_deserializer=filelister_pb2.FileListRequest.FromString,
            response_serializer=filelister_pb2.FileListResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("filelister.v1.FileLister", methods),))


def new_id() -> str:
    """A UUID of version 7: 48 bits of milliseconds, the rest random."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def main() -> int:
    transport = sys.argv[1] if len(sys.argv) > 1 else "unix"
    if transport not in ("unix", "tcp"):
        print(f"usage: {sys.argv[0]} [unix|tcp]", file=sys.stderr)
        return 2
    plugin.serve(cookie=("TEST_KEY", "TEST_VALUE"), versions={1: register}, transport=transport)
    return 0


if __name__ == "__main__":
    sys.exit(main())
