"""The host's variables and folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._messages import message

if TYPE_CHECKING:
    from ._connection import Connection


class Env:
    """Variables that were granted, and facts about the host."""

    def __init__(self, host: Connection) -> None:
        self._host = host

    def _call(self, method: str, kind: str, /, **fields):
        return self._host.call("Environment", method, message(kind, **fields))

    def var(self, name: str) -> str | None:
        """The value, or None where it is granted and not set."""
        reply = self._call("Get", "GetRequest", name=name)
        return reply.value if reply.set else None

    def vars(self) -> dict[str, str]:
        """All granted variables that are set."""
        return dict(self._call("List", "ListVariablesRequest").variables)

    def names(self) -> list[str]:
        """The granted names, set or not."""
        return list(self._call("Names", "NamesRequest").names)

    def ids(self):
        """The user, group and process ids of the host: an IdsResponse."""
        return self._call("Ids", "IdsRequest")

    def dirs(self):
        """The directories of the host's user, names and not grants: a DirsResponse."""
        return self._call("Dirs", "DirsRequest")

    def host_info(self):
        """What machine the host runs on: a HostInfoResponse."""
        return self._call("HostInfo", "HostInfoRequest")
