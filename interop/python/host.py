#!/usr/bin/env python3
"""Drives a plugin with grpcio and reports what happened as one JSON object on stdout.

The counterpart of the hosts in Go and Rust, for what a host in Python does: the handshake in plain
text, the plain broker, kv, counter and the test service. No channel and no server has an option.

    host.py --service kv|counter|grpctest [--aio] -- PROGRAM [ARGUMENTS]
"""

import argparse
import asyncio
import collections
import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from concurrent import futures
from pathlib import Path

import grpc
import grpc.aio

sys.path.append(str(Path(__file__).resolve().parents[2] / "bindings/python"))

from outrigger._generated import grpc_broker_pb2, grpc_controller_pb2, health_pb2

BASIC_COOKIE = ("BASIC_PLUGIN", "hello")
COOKIES = {"kv": BASIC_COOKIE, "counter": BASIC_COOKIE, "grpctest": ("TEST_MAGIC_COOKIE", "test")}
STEP_SECONDS = 20
# Go's host gives a plugin so long to end after it was asked.
END_SECONDS = 2


class Blocking:
    """grpcio's blocking interface."""

    def channel(self, target):
        return grpc.insecure_channel(target)

    def unary(self, channel, method, request, reply):
        call = channel.unary_unary(method, type(request).SerializeToString, reply.FromString)
        return call(request, timeout=STEP_SECONDS)

    def exchange(self, channel, method, requests, reply, received):
        """Send what comes out of the queue until None, and pass on each reply."""
        call = channel.stream_stream(method, lambda message: message.SerializeToString(), reply.FromString)
        replies = call(iter(requests.get, None))

        def receive():
            with contextlib.suppress(grpc.RpcError):
                for message in replies:
                    received(message)

        threading.Thread(target=receive, daemon=True).start()

    def serve(self, address, service, methods):
        server = grpc.server(futures.ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers(methods)),))
        port = server.add_insecure_port(address)
        server.start()
        return server, port

    def stop(self, server):
        server.stop(0).wait()

    def close(self, channel):
        channel.close()


class Asyncio:
    """grpcio's asyncio interface, on a loop in a thread of its own."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(STEP_SECONDS)

    def channel(self, target):
        async def open_channel():
            return grpc.aio.insecure_channel(target)

        return self._do(open_channel())

    def unary(self, channel, method, request, reply):
        async def call():
            made = channel.unary_unary(method, type(request).SerializeToString, reply.FromString)
            return await made(request, timeout=STEP_SECONDS)

        return self._do(call())

    def exchange(self, channel, method, requests, reply, received):
        async def outgoing():
            while (message := await self._loop.run_in_executor(None, requests.get)) is not None:
                yield message

        async def receive():
            call = channel.stream_stream(method, lambda message: message.SerializeToString(), reply.FromString)
            with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
                async for message in call(outgoing()):
                    received(message)

        asyncio.run_coroutine_threadsafe(receive(), self._loop)

    def serve(self, address, service, methods):
        async def start():
            server = grpc.aio.server()
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers(methods)),))
            port = server.add_insecure_port(address)
            await server.start()
            return server, port

        return self._do(start())

    def stop(self, server):
        self._do(server.stop(0))

    def close(self, channel):
        self._do(channel.close())


def handlers(methods):
    """Handlers of unary methods, each given as its function and its request's type."""
    return {
        name: grpc.unary_unary_rpc_method_handler(
            lambda request, _context, answer=answer: answer(request),
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name, (answer, request) in methods.items()
    }


class Broker:
    """The host's end of the plain broker."""

    def __init__(self, wire, channel, network, folder):
        self._wire, self._network, self._folder = wire, network, folder
        self._outgoing = queue.Queue()
        self._announced = collections.defaultdict(queue.Queue)
        self._last_id = 0
        wire.exchange(
            channel,
            "/plugin.GRPCBroker/StartStream",
            self._outgoing,
            grpc_broker_pb2.ConnInfo,
            lambda info: self._announced[info.service_id].put(info),
        )

    def serve(self, service, methods):
        """Serve on a new id, and say which."""
        self._last_id += 1
        if self._network == "unix":
            address = f"{self._folder}/{self._last_id}"
            server, _ = self._wire.serve(f"unix:{address}", service, methods)
        else:
            server, port = self._wire.serve("127.0.0.1:0", service, methods)
            address = f"127.0.0.1:{port}"
        info = grpc_broker_pb2.ConnInfo(service_id=self._last_id, network=self._network, address=address)
        self._outgoing.put(info)
        return self._last_id, server

    def dial(self, broker_id):
        """A channel to what the plugin serves under the id."""
        info = self._announced[broker_id].get(timeout=STEP_SECONDS)
        return self._wire.channel(target(info.network, info.address))

    def close(self):
        self._outgoing.put(None)


def target(network, address):
    return f"unix:{address}" if network == "unix" else address


class Plugin:
    """A running plugin and the host's calls."""

    def __init__(self, wire, process, folder):
        self._wire, self._process, self._folder = wire, process, folder
        fields = process.stdout.readline().strip().split("|")
        _, self.version, self.network, self.address, self.protocol = fields[:5]
        self._channel = wire.channel(target(self.network, self.address))
        self.broker = Broker(wire, self._channel, self.network, folder)

    def call(self, method, request, reply):
        return self._wire.unary(self._channel, method, request, reply)

    def kv(self):
        pb = messages("kv")
        for value in [b"hello", b"\x00\xff\n"]:
            self.call("/proto.KV/Put", pb.PutRequest(key="greeting", value=value), pb.Empty)
            got = self.call("/proto.KV/Get", pb.GetRequest(key="greeting"), pb.GetResponse).value
            expect(got.startswith(value), f"stored {value!r}, read {got!r}")

    def counter(self):
        pb = messages("counter")
        adder = {"Sum": (lambda request: pb.SumResponse(r=request.a + request.b), pb.SumRequest)}
        for value, total in [(3, 3), (-5, -2)]:
            broker_id, server = self.broker.serve("proto.AddHelper", adder)
            put = pb.PutRequest(add_server=broker_id, key="apples", value=value)
            self.call("/proto.Counter/Put", put, pb.Empty)
            self._wire.stop(server)
            got = self.call("/proto.Counter/Get", pb.GetRequest(key="apples"), pb.GetResponse).value
            expect(got == total, f"{total} apples, not {got}")

    def grpctest(self):
        pb = messages("grpctest")
        twice = self.call("/grpctest.Test/Double", pb.TestRequest(Input=21), pb.TestResponse).Output
        expect(twice == 42, f"twice 21 is {twice}")
        self.stream(pb)
        pong = {"Ping": (lambda _: pb.PongResponse(msg="pong"), pb.PingRequest)}
        broker_id, server = self.broker.serve("grpctest.PingPong", pong)
        request = pb.BidirectionalRequest(id=broker_id)
        reply = self.call("/grpctest.Test/Bidirectional", request, pb.BidirectionalResponse)
        self._wire.stop(server)
        channel = self.broker.dial(reply.id)
        said = self._wire.unary(channel, "/grpctest.PingPong/Ping", pb.PingRequest(), pb.PongResponse).msg
        self._wire.close(channel)
        expect(said == "pong", f"the plugin answered {said!r}")

    def stream(self, pb):
        requests, echoes = queue.Queue(), queue.Queue()
        self._wire.exchange(self._channel, "/grpctest.Test/Stream", requests, pb.TestResponse, echoes.put)
        for number in range(6):
            requests.put(pb.TestRequest(Input=number))
            echo = echoes.get(timeout=STEP_SECONDS).Output
            expect(echo == number, f"sent {number}, got {echo}")
        requests.put(None)

    def ping(self):
        request = health_pb2.HealthCheckRequest(service="plugin")
        status = self.call("/grpc.health.v1.Health/Check", request, health_pb2.HealthCheckResponse).status
        expect(status == health_pb2.HealthCheckResponse.SERVING, f"the plugin's health is {status}")

    def stop(self):
        """Ask the plugin to end, and say whether it has to be killed."""
        # The reply may be lost, because the plugin ends at once.
        with contextlib.suppress(grpc.RpcError):
            self.call("/plugin.GRPCController/Shutdown", grpc_controller_pb2.Empty(), grpc_controller_pb2.Empty)
        try:
            self._process.wait(END_SECONDS)
            return False
        except subprocess.TimeoutExpired:
            return True

    def close(self):
        self.broker.close()
        self._wire.close(self._channel)


def messages(name):
    # kv and counter have messages of the same names, so a process loads one of them.
    return importlib.import_module(f"generated.{name}_pb2")


def expect(holds, otherwise):
    if not holds:
        raise AssertionError(otherwise)


def start(program, cookie, folder):
    key, value = cookie
    known = {
        "PLUGIN_MIN_PORT": "10000",
        "PLUGIN_MAX_PORT": "25000",
        "PLUGIN_PROTOCOL_VERSIONS": "1",
        # Go plugins may leave the sockets of brokered servers behind.
        "PLUGIN_UNIX_SOCKET_DIR": folder,
    }
    return subprocess.Popen(
        [str(Path(program[0]).absolute()), *program[1:]],
        env={**os.environ, **known, key: value},
        # The stores of kv and counter are files in their current directory.
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def read_logs(stderr, lines, problems):
    """Keep what the plugin says, and what it says as a warning or an error."""
    for line in stderr:
        lines.append(line)
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if json.loads(line)["@level"] in ("warn", "error"):
                problems.append(line)


def run(arguments, report, folder):
    lines = collections.deque(maxlen=200)
    process = start(arguments.program, COOKIES[arguments.service], folder)
    logs = threading.Thread(target=read_logs, args=(process.stderr, lines, report["problems"]))
    logs.start()
    try:
        plugin = Plugin(Asyncio() if arguments.aio else Blocking(), process, folder)
        with contextlib.closing(plugin):
            report["negotiated_version"], report["protocol"] = int(plugin.version), plugin.protocol
            report["address_network"], report["address"] = plugin.network, plugin.address
            getattr(plugin, arguments.service)()
            plugin.ping()
            report["forced"] = plugin.stop()
        left = [path.name for path in Path(folder).glob("plugin*")]
        expect(not (arguments.forbid_leftovers and left), f"the plugin left {left} behind")
        report["ok"] = True
    except Exception as error:
        report["error"] = f"{type(error).__name__}: {error}"
    finally:
        process.kill()
        process.wait()
        logs.join()
        report["stderr"] = "".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--service", choices=["kv", "counter", "grpctest"], required=True)
    parser.add_argument("--aio", action="store_true", help="use grpcio's asyncio interface")
    parser.add_argument("--forbid-leftovers", action="store_true", help="fail when the plugin leaves sockets behind")
    parser.add_argument("program", nargs="+")
    report = {"ok": False, "error": "", "forced": False, "quit_error": "", "problems": []}
    with tempfile.TemporaryDirectory() as folder:
        run(parser.parse_args(), report, folder)
    print(json.dumps(report))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
