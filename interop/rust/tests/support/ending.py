"""A plugin on grpcio alone that ends in the way that its first argument names; the second is a file to write last.

late        answers Shutdown after 2.1 s, and ends
graceful    answers Shutdown at once, and gives open calls up to 30 s
nothing     has no controller, no broker and no output
"""

import atexit
import os
import sys
import tempfile
import threading
import time
from concurrent import futures

import grpc

EMPTY = b""
SERVING = b"\x08\x01"


def unary(answer):
    return grpc.unary_unary_rpc_method_handler(lambda request, context: answer(context))


def main(kind: str, file: str) -> None:
    finished = threading.Event()

    def shutdown(_context):
        if kind == "late":
            time.sleep(2.1)
        finished.set()
        return EMPTY

    def output(_request, context):
        over = threading.Event()
        context.add_callback(over.set)
        over.wait()
        yield from ()

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    services = {"grpc.health.v1.Health": {"Check": unary(lambda _context: SERVING)}}
    if kind != "nothing":
        services["plugin.GRPCController"] = {"Shutdown": unary(shutdown)}
        services["plugin.GRPCStdio"] = {"StreamStdio": grpc.unary_stream_rpc_method_handler(output)}
    for name, methods in services.items():
        handler = grpc.method_handlers_generic_handler(name, methods)
        server.add_generic_rpc_handlers((handler,))

    # A directory of its own, as plugins make that know nothing of the host's variable.
    folder = tempfile.mkdtemp(prefix="own-")
    socket = os.path.join(folder, "socket")
    server.add_insecure_port("unix:" + socket)

    @atexit.register
    def remove() -> None:
        if os.path.lexists(socket):
            os.unlink(socket)
        os.rmdir(folder)

    server.start()
    print(f"1|1|unix|{socket}|grpc", flush=True)
    finished.wait()
    server.stop(30 if kind == "graceful" else None).wait()
    with open(file, "w", encoding="ascii") as ended:
        ended.write("ended\n")


main(*sys.argv[1:])
