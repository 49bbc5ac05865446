#!/usr/bin/env python3
"""The test service on gRPC's C core, as a plugin and as a client, for long texts and metadata.

    large.py plugin          serves grpctest.Test as a plugin
    large.py call ADDRESS    calls it there: reads lines "NAME LENGTH", prints a line of JSON for each

A call's metadata says what is to be done to it, as in the Go peers: `fail-text` and `fail-details`
are the lengths of an error's text and details, `reply-head` and `reply-trailer` those of metadata
in the reply. The reply's head always tells how much came as `much`.
"""

import json
import os
import sys

# The C core reports every dropped connection on stderr otherwise.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "bindings", "python"))

import grpc

from outrigger import plugin

CALL_SECONDS = 20


def double(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Answer a request for twice zero, which is empty in both directions, as its metadata asks."""
    asked = dict(context.invocation_metadata())

    def length(name: str) -> int:
        return int(asked.get(name, "0"))

    head = [("heard", str(len(asked.get("much", ""))))]
    if length("reply-head"):
        head.append(("large", "m" * length("reply-head")))
    context.send_initial_metadata(head)
    if length("reply-trailer"):
        context.set_trailing_metadata([("large", "m" * length("reply-trailer"))])
    if length("fail-details"):
        context.set_trailing_metadata([("grpc-status-details-bin", b"\7" * length("fail-details"))])
    if length("fail-text") or length("fail-details"):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "x" * length("fail-text"))
    return b""


def register(server: grpc.Server, _broker: plugin.Broker) -> None:
    """Add grpctest.Test to the server; its messages stay bytes."""
    methods = {"Double": grpc.unary_unary_rpc_method_handler(double)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpctest.Test", methods),))


def call(address: str) -> int:
    """Make the calls that stdin asks for, one after another on one connection."""
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary("/grpctest.Test/Double")
        for line in sys.stdin:
            name, _, length = line.strip().partition(" ")
            value = "m" * int(length) if name == "much" else length
            try:
                _, done = method.with_call(b"", timeout=CALL_SECONDS, metadata=((name, value),))
                answer = {"code": "OK", "heard": dict(done.initial_metadata()).get("heard")}
            except grpc.RpcError as error:
                answer = {"code": error.code().name, "text": error.details()}
            print(json.dumps(answer), flush=True)
    return 0


def main() -> int:
    match sys.argv[1:]:
        case ["plugin"]:
            plugin.serve(cookie=("TEST_MAGIC_COOKIE", "test"), versions={1: register})
            return 0
        case ["call", address]:
            return call(address)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
