#!/usr/bin/env python3
"""An animal in Python that says what the application taught it.

The phrases are in a service of the application's own, which the manifest asks for by its name.
What its own configuration has for a mood comes before that.
"""

import os
import sys
from pathlib import Path

# The C core reports every dropped connection on stderr otherwise.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# This repository's package, where none is installed.
sys.path.append(str(Path(__file__).resolve().parents[2] / "bindings/python"))

import grpc

import outrigger.host
from generated import animal_pb2, kv_pb2
from outrigger import plugin

CALL_SECONDS = 10


def speak(request, context: grpc.ServicerContext) -> animal_pb2.SpeakResponse:
    """Say what the application taught it for this mood."""
    mood = "loud" if request.isLoud else "quiet"
    configured = plugin.config() or {}
    if mood in configured:
        return animal_pb2.SpeakResponse(resp=configured[mood])
    try:
        phrases = outrigger.host.service("phrases")
    except outrigger.host.HostError as error:
        context.abort(error.grpc_code, str(error))
    get = phrases.unary_unary(
        "/proto.KV/Get",
        request_serializer=kv_pb2.GetRequest.SerializeToString,
        response_deserializer=kv_pb2.GetResponse.FromString,
    )
    try:
        phrase = get(kv_pb2.GetRequest(key=mood), timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        context.abort(error.code(), error.details())
    return animal_pb2.SpeakResponse(resp=phrase.value.decode())


def register(server: grpc.Server, _broker: plugin.Broker) -> None:
    """Add animal.v1.Animal to the server."""
    method = grpc.unary_unary_rpc_method_handler(
        speak,
        request_deserializer=animal_pb2.SpeakRequest.FromString,
        response_serializer=animal_pb2.SpeakResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("animal.v1.Animal", {"Speak": method}),))


if __name__ == "__main__":
    plugin.serve(cookie=("PARROT_PLUGIN", "outrigger-parrot-netrpc"), versions={1: register})
