#!/usr/bin/env python3
"""A plugin that does its work through its host's services, and says whether they did what they should.

It takes filelister.v1.FileLister: the path of a request is what to try, an error is what went wrong.
HOSTCLIENT_DIR names a directory where everything is granted; an echo server is at 127.0.0.1 at
HOSTCLIENT_PORT, one that only takes at HOSTCLIENT_SINK, and HOSTCLIENT_LISTEN is a port to listen on.
HOSTCLIENT_UDP is a UDP server that echoes, HOSTCLIENT_FREE a port where nobody is, and
HOSTCLIENT_BIND one to bind, both for UDP.
"""

import os
import signal
import socket
import sys
import threading
import time
import traceback
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
from outrigger.host import ChangeKind, ExitStatus, FileKind, Host, HostError, HttpRequest, LogLevel

# Bytes that `dropped` sends on each connection.
SENT = 1 << 20


def same(found, wanted) -> None:
    """Fail with what was found where something else should be."""
    if found != wanted:
        raise AssertionError(f"{found!r:.200} where {wanted!r:.200} should be")


def fails(work, *arguments) -> HostError:
    """The error with which the host refuses."""
    try:
        work(*arguments)
    except HostError as error:
        return error
    raise AssertionError(f"{work.__qualname__}{arguments!r:.200} worked")


def place(name: str) -> str:
    return f"{os.environ['HOSTCLIENT_DIR']}/{name}"


def files(host: Host) -> None:
    fs, path = host.fs(), place("file")
    with fs.create(path) as file:
        same(file.descriptor() is not None, host.has_descriptors())
        if file.descriptor() is not None:
            same(os.get_inheritable(file.descriptor()), False)
        file.write(b"hello ")
        file.write(b"world")
        file.write_at(b"W", 6)
        same(file.metadata().len(), 11)
        same(file.metadata().is_file(), True)
        fails(file.read_at, 4, 0)
        file.sync_data()
        file.sync_all()
    with fs.open(path) as file:
        same(file.read(5), b"hello")
        same(file.seek(-5, os.SEEK_END), 6)
        same(file.read(5), b"World")
        same(file.read(5), b"")
        same(file.seek(-11, os.SEEK_CUR), 0)
        same(fails(file.seek, -1).errno, "EINVAL")
        same(file.read_to_end(), b"hello World")
        same(file.read_at(5, 9), b"ld")
        fails(file.read_exact_at, 5, 9)
        same(b"".join(file.stream(6, 3)), b"Wor")
        for refused in (fails(file.write_at, b"x", 0), fails(file.set_len, 0)):
            same(refused.errno is not None, True)
    same(fs.read_to_string(path), "hello World")
    with fs.options().append(True).open(path) as file:
        fails(file.write_at, b"!", 0)
        file.write(b"!")
        file.write(b"!")
        same(file.tell(), 13)
    same(fs.append(path, b"?"), 14)
    with fs.options().read(True).write(True).open(path) as file:
        file.set_len(5)
        file.seek(0, os.SEEK_END)
        file.write(b", all")
        same(file.read_at(100, 0), b"hello, all")
        same(file.write_stream(2, iter([b"LL", b"O"])), 3)
        same(file.read_exact_at(5, 0), b"heLLO")
    fs.truncate(path, 2)
    same(fs.read(path), b"he")
    exclusive = fs.options().write(True).create_new(True).mode(0o640)
    same(fails(exclusive.open, path).grpc_code, grpc.StatusCode.ALREADY_EXISTS)
    fs.remove(path)
    with exclusive.open(path) as file:
        same(file.metadata().mode() & 0o600, 0o600)
    fs.remove(path)
    gone = fails(fs.open, path)
    same((gone.is_not_found(), gone.errno, gone.operation), (True, "ENOENT", "filesystem.open"))
    temporary, path = fs.temp_file("note-*.txt")
    with temporary:
        temporary.write(b"note")
        same(fs.read(path), b"note")
    same(fs.metadata(fs.temp_dir("d-*")).is_dir(), True)


def tree(host: Host) -> None:
    fs, root = host.fs(), place("tree")
    fs.create_dir_all(f"{root}/a/b")
    fs.create_dir(f"{root}/a/c")
    for number in range(20):
        fs.write(f"{root}/a/{number:02}", str(number).encode())
    entries = fs.read_dir(f"{root}/a")
    found = {entry.name: entry.kind for entry in entries}
    same((len(found), found["b"], found["07"], entries.unreadable()), (22, FileKind.DIRECTORY, FileKind.FILE, 0))
    fs.rename(f"{root}/a", f"{root}/c")
    same(fs.copy(f"{root}/c/07", f"{root}/c/copy"), 1)
    fs.symlink("07", f"{root}/c/link")
    same(fs.read_link(f"{root}/c/link"), "07")
    same(fs.symlink_metadata(f"{root}/c/link").kind(), FileKind.SYMLINK)
    same(fs.metadata(f"{root}/c/link").is_file(), True)
    fs.hard_link(f"{root}/c/08", f"{root}/c/second")
    same(fs.metadata(f"{root}/c/second").links(), 2)
    fs.set_permissions(f"{root}/c/07", 0o600)
    fs.set_times(f"{root}/c/07", None, 1_000_000_000.5)
    known = fs.metadata(f"{root}/c/07")
    same((known.mode(), known.modified()), (0o600, 1_000_000_000.5))
    fs.set_owner(f"{root}/c/07", known.uid(), None)
    same(fs.exists(f"{root}/c/none"), False)
    with fs.open_dir(f"{root}/c") as folder:
        with folder.open("07") as file:
            same(file.read_to_end(), b"7")
        fails(folder.open, "../../file")
    with fs.watch(f"{root}/c") as changes:
        fs.write(f"{root}/c/new", b"new")
        change = next(changes)
        same((os.path.basename(change.path), change.kind), ("new", ChangeKind.CREATED))
    fs.remove_all(root)


def large(host: Host) -> None:
    fs, path = host.fs(), place("large")
    data = bytes(range(256)) * (9 << 12)
    fs.write(path, data)
    same(fs.read(path) == data, True)
    with fs.open(path) as file:
        same(b"".join(file.stream(1)) == data[1:], True)
    with fs.create(path) as file:
        same(file.write_stream(0, (data[at : at + 5000] for at in range(0, len(data), 5000))), len(data))
    same(fs.read(path) == data, True)
    fs.remove(path)


def refused(host: Host) -> None:
    for path in ("/etc/passwd", "/proc/self/environ", place("../outside"), "/"):
        same(fails(host.fs().open, path).is_refusal(), True)
    error = fails(host.env().var, "HOSTCLIENT_SECRET")
    same((error.code, error.missing is not None), ("not-granted", True))
    command = host.process().command("/bin/sh").args(["-c", "true"])
    fails(command.spawn)
    fails(command.output)
    fails(host.network().connect, "127.0.0.1", 1)
    fails(host.network().connect, "example.com", 443)
    fails(host.network().listen, None, 1)


def small(host: Host) -> None:
    same(host.env().var("HOSTCLIENT_SHOWN"), "shown")
    same(host.env().names(), ["HOSTCLIENT_SHOWN"])
    same(host.env().vars(), {"HOSTCLIENT_SHOWN": "shown"})
    same(host.env().host_info().os, "linux")
    same(host.env().ids().pid, os.getppid())
    host.env().dirs()
    clock = host.clock()
    same(abs(clock.now() - time.time()) < 5, True)
    before = clock.monotonic()
    clock.sleep(0.002)
    same(clock.monotonic() - before >= 0.002, True)
    same((len(clock.random(64)), len(clock.uuid())), (64, 36))
    with clock.ticks(0.001) as ticks:
        next(ticks)
    host.log().write(LogLevel.ERROR, "said", {"key": "value"})
    host.log().level()
    session = host.session()
    same(len(session.grants().filesystem) > 0, True)
    same(session.usage().operations > 0, True)
    same("filesystem" in session.services(), True)
    same(session.limits().leases > 0, True)
    same(bool(session.plugin() and session.instance()), True)


def commands(host: Host) -> None:
    process = host.process()
    echo = process.command("/bin/echo").arg("hello").timeout(10).output()
    same((echo.stdout, echo.stderr, echo.dropped, echo.status.success()), (b"hello\n", b"", 0, True))
    same(process.command("/bin/cat").input(b"through").output().stdout, b"through")
    with process.command("/bin/cat").spawn() as cat:
        cat.stdin.write(b"first")
        same(cat.stdout.read(5), b"first")

        # More than any pipe holds, both ways at once.
        def feed() -> None:
            cat.stdin.write(bytes(1 << 20))
            cat.stdin.close()

        feeding = threading.Thread(target=feed)
        feeding.start()
        same(len(cat.stdout.readall()), 1 << 20)
        feeding.join()
        same(cat.wait(), ExitStatus(code=0))
        same(cat.stderr.read(1), b"")
    with process.command("/bin/cat").spawn() as cat:
        same(cat.pid() in [known.pid for known in process.list()], True)
        cat.signal(signal.SIGTERM)
        same(cat.wait(), ExitStatus(signal=signal.SIGTERM))
    with process.command("/bin/cat").spawn() as cat:
        cat.kill()
        same(cat.wait(), ExitStatus(signal=signal.SIGKILL))
    cat = process.command("/bin/cat").spawn()
    pid = cat.pid()
    del cat

    def runs() -> bool:
        return any(known.pid == pid and not known.HasField("status") for known in process.list())

    until(lambda: not runs())
    # A request that does not fit into the descriptor socket.
    argument = "a" * (100 << 10)
    with process.command("/bin/echo").arg(argument).spawn() as echo:
        same(echo.stdout.readall().decode().strip() == argument, True)
        same(echo.wait().success(), True)


def until(holds) -> None:
    """Wait for a state."""
    deadline = time.monotonic() + 10
    while not holds():
        same(time.monotonic() < deadline, True)
        time.sleep(0.002)


def network(host: Host) -> None:
    port, access = int(os.environ["HOSTCLIENT_PORT"]), host.network()
    same([str(address) for address in access.resolve("127.0.0.1", port)], ["127.0.0.1"])
    # By its name the host stays in between, by its address it need not.
    for name in ("127.0.0.1", "localhost"):
        with access.connect(name, port) as stream:
            same(stream.peer_addr()[1], port)
            same(stream.local_addr() is not None, True)
            stream.write(b"hello")
            same(stream.read(5), b"hello")

            def feed(stream=stream) -> None:
                stream.write(bytes(1 << 20))
                stream.shutdown()

            feeding = threading.Thread(target=feed)
            feeding.start()
            same(len(stream.readall()), 1 << 20)
            feeding.join()


def slow(host: Host) -> None:
    """A peer that takes its time: the socket that was handed over waits for it."""
    port = int(os.environ["HOSTCLIENT_PORT"])
    with host.network().connect("127.0.0.1", port) as stream:
        # Nothing comes before something was sent.
        sending = threading.Timer(0.05, stream.write, [b"late"])
        sending.start()
        same(stream.read(4), b"late")
        sending.join()


def dropped(host: Host) -> None:
    for name in ("127.0.0.1", "localhost"):
        for shut in (True, False):
            stream = host.network().connect(name, int(os.environ["HOSTCLIENT_SINK"]))
            stream.write(bytes(SENT))
            if shut:
                stream.shutdown()
            stream.close()


def listen(host: Host) -> None:
    port = int(os.environ["HOSTCLIENT_LISTEN"])
    with host.network().listen(None, port) as listener:
        with socket.create_connection(listener.local_addr()) as late:
            # The host gives it up.
            try:
                same(late.recv(1), b"")
            except ConnectionResetError:
                pass
        with socket.create_connection(listener.local_addr()) as peer:
            stream, remote = listener.accept()
            same(remote, peer.getsockname())
            with stream:
                peer.sendall(b"in time")
                same(stream.read(7), b"in time")
                stream.write(b"back")
                stream.shutdown()
                same(peer.recv(4, socket.MSG_WAITALL), b"back")


def datagrams(host: Host) -> None:
    access, echo = host.network(), int(os.environ["HOSTCLIENT_UDP"])
    for name in ("127.0.0.1", "localhost"):
        with access.connect_udp(name, echo) as socket_there:
            there = ("127.0.0.1", echo)
            same((socket_there.peer_addr(), socket_there.local_addr()[0]), (there, "127.0.0.1"))
            for length in (0, 1, 1400, 65_507, 0):
                datagram = bytes(at % 256 for at in range(length))
                same(socket_there.send(datagram), length)
                same(socket_there.recv_from(timeout=10) == (datagram, there), True)
            same(fails(socket_there.send, bytes(65_508)).errno, "EMSGSIZE")
            same(fails(socket_there.send_to, b"x", ("127.0.0.1", 1)).errno, "EISCONN")
            # What does not fit is told, and the next one is whole.
            socket_there.send_to(b"0123456789", there)
            socket_there.send(b"next")
            same(fails(socket_there.recv, 4).code, "datagram-truncated")
            same(socket_there.recv(4), b"next")
            try:
                socket_there.recv(timeout=0.01)
                raise AssertionError("something came")
            except TimeoutError:
                pass

            def feed(socket_there=socket_there) -> None:
                for number in range(200):
                    socket_there.send(bytes([number] * 50))

            feeding = threading.Thread(target=feed)
            feeding.start()
            for number in range(200):
                same(socket_there.recv(timeout=10), bytes([number] * 50))
            feeding.join()
            same(socket_there.dropped(), 0)
        same(fails(socket_there.recv, 10, 10).operation, "network.open_udp")

    free = int(os.environ["HOSTCLIENT_FREE"])
    with access.connect_udp("127.0.0.1", free) as sending:
        sending.send(b"anybody?")
        same(fails(sending.recv, 10, 10).errno, "ECONNREFUSED")
        # What was sent to somebody arrives, although the socket is closed at once.
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", free))
        server.settimeout(10)
        for number in range(50):
            sending.send(bytes([number]))
    with server:
        same([server.recv(10)[0] for _ in range(50)], list(range(50)))

    same(fails(access.connect_udp, "127.0.0.1", 1).is_refusal(), True)
    same(fails(access.connect_udp, "example.com", 53).is_refusal(), True)
    same(fails(access.bind_udp, None, 1).is_refusal(), True)

    at = ("127.0.0.1", int(os.environ["HOSTCLIENT_BIND"]))
    bound: list = []

    def binds() -> bool:
        # The one before is being closed.
        try:
            bound.append(access.bind_udp(None, at[1]))
        except HostError as error:
            same(error.errno, "EADDRINUSE")
        return bool(bound)

    until(binds)
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with bound[0] as port, peer, stranger:
        same((port.local_addr(), port.peer_addr()), (at, None))
        peer.settimeout(10)
        peer.bind(("127.0.0.1", 0))
        stranger.bind(("127.0.0.2", 0))
        stranger.sendto(b"let me in", at)
        peer.sendto(b"hello", at)
        same(port.recv_from(timeout=10), (b"hello", peer.getsockname()))
        port.send_to(b"welcome", peer.getsockname())
        same(peer.recvfrom(100), (b"welcome", at))
        same(fails(port.send, b"x").errno, "EDESTADDRREQ")
        port.send_to(b"x", stranger.getsockname())
        same(fails(port.recv, 10, 10).is_refusal(), True)


def http(host: Host) -> None:
    port = int(os.environ["HOSTCLIENT_HTTP"])
    url = f"http://127.0.0.1:{port}/"
    reply = host.network().get(url)
    same((reply.status(), reply.body(), reply.header("X-Said"), reply.url()), (200, b"hello", b"yes", url))
    request = HttpRequest("POST", url).header("x-more", "1").body(b"sent").timeout(10)
    same(host.network().request(request).status(), 200)
    reply, body = host.network().request_stream(HttpRequest("GET", url))
    same((reply.status(), b"".join(body)), (200, b"hello"))


def leases(host: Host) -> None:
    """What is closed is given back: far more than leases."""
    path = place("leased")
    host.fs().write(path, b"x")
    for _ in range(200):
        host.fs().open(path).close()
        host.fs().open_dir(place(".")).close()


KINDS = [files, tree, large, refused, small, commands, network, slow, dropped, listen, datagrams, http, leases]


def run(host: Host, kind: str) -> None:
    ways = [host.without_descriptors()]
    if not kind.startswith("calls-"):
        same(host.has_descriptors(), True)
        ways.insert(0, host)
    work = {work.__name__: work for work in KINDS}[kind.removeprefix("calls-")]
    for way in ways:
        work(way)


def register(server: grpc.Server, broker: plugin.Broker) -> None:
    """Add filelister.v1.FileLister to the server."""
    ctx = outrigger.host.Context(broker)

    def listing(request, _context) -> filelister_pb2.FileListResponse:
        kind, _, broker_id = request.path.partition("@")
        try:
            run(Host.connect(broker, int(broker_id)) if broker_id else ctx.host(), kind)
            return filelister_pb2.FileListResponse(entry=[request.path])
        except Exception:
            return filelister_pb2.FileListResponse(error=f"{request.path}: {traceback.format_exc()}")

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
