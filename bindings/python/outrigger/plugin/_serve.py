"""The handshake and the life of a plugin process."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping

import grpc

from .._generated import grpc_controller_pb2, health_pb2
from . import _logs, _sockets
from ._broker import Broker
from ._stdio import Stdio

CORE_PROTOCOL_VERSION = 1
# Time for calls that are still running when the host asks for shutdown; hosts kill after two seconds.
SHUTDOWN_SECONDS = 0.5

Register = Callable[[grpc.Server, Broker], None]

_log = logging.getLogger("outrigger.plugin")


def serve(
    *,
    cookie: tuple[str, str],
    versions: Mapping[int, Register],
    transport: str = "unix",
    log_level: int = logging.DEBUG,
) -> None:
    """Serve until the host asks for shutdown.

    cookie is the environment variable and value by which a plugin knows that a host started it.
    versions maps each application version to a function that adds the services of that version.
    transport is "unix" or "tcp".

    Leaves the process with status 1 when it was not started by a host, or by one that asks for
    TLS, and with status 0 and no handshake when it cannot listen.
    """
    _check_cookie(*cookie)
    if os.environ.get("PLUGIN_CLIENT_CERT"):
        _refuse("This plugin speaks plain text only. Start it without AutoMTLS.")
    logs = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    _logs.install(logs, log_level)

    version = _negotiate(versions)
    try:
        listener = _sockets.bind(transport)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        _log.error("the plugin cannot listen", extra={"fields": {"error": str(error)}})
        sys.exit(0)

    finished = threading.Event()
    stdio, broker = Stdio(), Broker(transport)
    _add_health(listener.server)
    broker.add_to(listener.server)
    _add_controller(listener.server, finished)
    stdio.add_to(listener.server)
    versions[version](listener.server, broker)
    listener.server.start()
    try:
        _print_handshake(version, listener.address)
        # An interrupt from the terminal reaches host and plugins alike; the host decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stdio.redirect()
        _log.debug("serving", extra={"fields": {"address": listener.address.text, "version": version}})
        finished.wait()
    finally:
        # The two permanent streams end first: the server waits for open calls.
        stdio.close()
        broker.close()
        listener.server.stop(SHUTDOWN_SECONDS).wait()
        listener.remove()


def _check_cookie(key: str, value: str) -> None:
    if not key or not value:
        _refuse("This plugin was built without a magic cookie. Please report this to its author.")
    if os.environ.get(key) != value:
        _refuse("This program is a plugin. It is started by its host and does nothing on its own.")


def _refuse(text: str) -> None:
    print(text, file=sys.stderr)
    sys.exit(1)


def _negotiate(versions: Mapping[int, Register]) -> int:
    """The highest version that both sides know, or else the lowest of ours."""
    offered = set()
    for item in os.environ.get("PLUGIN_PROTOCOL_VERSIONS", "").split(","):
        try:
            offered.add(int(item))
        except ValueError:
            if item:
                _log.warning("ignored a version that is no number", extra={"fields": {"version": item[:120]}})
    common = offered & set(versions)
    return max(common) if common else min(versions)


def _print_handshake(version: int, address: _sockets.Address) -> None:
    fields = [str(CORE_PROTOCOL_VERSION), str(version), address.network, address.text, "grpc", ""]
    if os.environ.get("PLUGIN_MULTIPLEX_GRPC"):
        fields.append("false")
    sys.stdout.write("|".join(fields) + "\n")
    sys.stdout.flush()


def _add_health(server: grpc.Server) -> None:
    def check(request, context: grpc.ServicerContext) -> health_pb2.HealthCheckResponse:
        if request.service not in ("", "plugin"):
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    methods = {"Check": _sockets.unary(check, health_pb2.HealthCheckRequest)}
    _sockets.add_service(server, "grpc.health.v1.Health", methods)


def _add_controller(server: grpc.Server, finished: threading.Event) -> None:
    def shutdown(_request, context: grpc.ServicerContext) -> grpc_controller_pb2.Empty:
        # The reply goes out before the server stops.
        if not context.add_callback(finished.set):
            finished.set()
        return grpc_controller_pb2.Empty()

    methods = {"Shutdown": _sockets.unary(shutdown, grpc_controller_pb2.Empty)}
    _sockets.add_service(server, "plugin.GRPCController", methods)
