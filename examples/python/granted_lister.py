#!/usr/bin/env python3
"""A file lister that uses outrigger.host.v1: its host says what it may list, and it introduces nobody."""

import logging
import os
import sys
from pathlib import Path

# The C core reports every dropped connection on stderr otherwise.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# This repository's package, where none is installed.
sys.path.append(str(Path(__file__).resolve().parents[2] / "bindings/python"))

import grpc

import outrigger.host
from generated import filelister_pb2
from outrigger import plugin

log = logging.getLogger("granted-lister")


def lines(host: outrigger.host.Host, folder: str) -> list[str]:
    """One line per entry; a file's line shows how it begins."""
    found = []
    for entry in sorted(host.fs().read_dir(folder), key=lambda entry: entry.name):
        if entry.kind == outrigger.host.FileKind.FILE:
            with host.fs().open(f"{folder}/{entry.name}") as file:
                how = "call" if file.descriptor() is None else "descriptor"
                found.append(f"- {entry.name} {file.metadata().len()} {file.read(16)!r} by {how}")
        else:
            found.append(f"d {entry.name}/")
    return found


def register(server: grpc.Server, broker: plugin.Broker) -> None:
    """Add filelister.v1.FileLister to the server."""
    ctx = outrigger.host.Context(broker)

    def listing(request, _context) -> filelister_pb2.FileListResponse:
        try:
            host = ctx.host()
            folder = request.path or request.root_dir
            entries = lines(host, folder) + lines(host.without_descriptors(), folder)
            log.debug("listed", extra={"fields": {"path": folder, "entries": len(entries)}})
            return filelister_pb2.FileListResponse(entry=entries)
        except outrigger.host.HostError as error:
            return filelister_pb2.FileListResponse(error=f"{error.code}: {error}")

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
