"""A client of grpcio whose messages come from descriptors alone: greeted.py DESCRIPTORS SOCKET."""

import sys
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, message_factory

SECONDS = 20

files = descriptor_pb2.FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
messages = message_factory.GetMessages(files.file)
service = files.file[-1].service[0]


def call(make, method, **fields):
    method = next(known for known in service.method if known.name == method)
    request, reply = (messages[name.lstrip(".")] for name in (method.input_type, method.output_type))
    path = f"/{files.file[-1].package}.{service.name}/{method.name}"
    return make(path, request.SerializeToString, reply.FromString)(request(**fields), timeout=SECONDS)


with grpc.insecure_channel(f"unix:{sys.argv[2]}") as channel:
    print(call(channel.unary_unary, "SayHello", name="Ada").value)
    for greeting in call(channel.unary_stream, "SayHelloToAll", names=["Bo", "Cy"]):
        print(greeting.value)
    try:
        call(channel.unary_unary, "SayHello")
    except grpc.RpcError as error:
        print(error.code().name, error.details())
