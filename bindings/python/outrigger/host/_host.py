"""Where the host is, and the services that it has."""

from __future__ import annotations

import contextlib
import os
import threading

import grpc

from ._clock import Clock
from ._connection import Connection
from ._environment import Env
from ._errors import HostError
from ._fs import Fs
from ._log import Log
from ._network import NetworkAccess
from ._process import Processes
from ._session import Session

# Where the host says on which broker id it serves.
VARIABLE = "OUTRIGGER_HOST_SERVICES"


class Context:
    """A plugin's way to its host. It connects at once: an announcement is kept for 5 s only."""

    def __init__(self, broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._host: Host | None = None
        if os.environ.get(VARIABLE):
            threading.Thread(target=self._look, daemon=True).start()

    def host(self) -> "Host":
        """The host's services; raises HostError where it offers none."""
        with self._lock:
            if self._host is None:
                text = os.environ.get(VARIABLE, "")
                if not text.isdecimal():
                    raise HostError(
                        "host.connect",
                        f"this host offers no services: it sets no {VARIABLE}",
                        code="no-host-services",
                        grpc_code=grpc.StatusCode.UNAVAILABLE,
                    )
                self._host = Host.connect(self._broker, int(text))
            return self._host

    def _look(self) -> None:
        # Who needs the host is told what is wrong.
        with contextlib.suppress(Exception):
            self.host()


class Host(Connection):
    """The services of the host."""

    @classmethod
    def connect(cls, broker, broker_id: int) -> "Host":
        """The services that the host serves under a broker id."""
        try:
            return cls(broker.dial(broker_id))
        except HostError:
            raise
        except Exception as error:
            unreachable = grpc.StatusCode.UNAVAILABLE
            raise HostError("host.connect", str(error), code="broker", grpc_code=unreachable) from error

    def without_descriptors(self) -> "Host":
        """The same services, asked by calls only."""
        other = object.__new__(Host)
        other.__dict__.update(self.__dict__, _descriptors=None, _dialling=None)
        return other

    def fs(self) -> "Fs":
        """Files beneath what was granted."""
        return Fs(self)

    def env(self) -> "Env":
        """Variables that were granted, and facts about the host."""
        return Env(self)

    def process(self) -> "Processes":
        """Commands that were granted."""
        return Processes(self)

    def network(self) -> "NetworkAccess":
        """Connections to granted places."""
        return NetworkAccess(self)

    def clock(self) -> "Clock":
        """Time and randomness of the host."""
        return Clock(self)

    def log(self) -> "Log":
        """The host's log."""
        return Log(self)

    def session(self) -> "Session":
        """What this plugin is to the host."""
        return Session(self)
