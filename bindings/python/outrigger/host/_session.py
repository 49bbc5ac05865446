"""What this plugin was granted, and what it has used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._messages import message

if TYPE_CHECKING:
    from ._connection import Connection


class Session:
    """What this plugin is to the host."""

    def __init__(self, host: Connection) -> None:
        self._host = host

    def plugin(self) -> str:
        """The name that the host gave this plugin."""
        return self._host._about.plugin

    def instance(self) -> str:
        """What tells this run of the plugin from every other one."""
        return self._host._about.instance

    def services(self) -> list[str]:
        """The services that are granted, by short name."""
        return list(self._host._about.services)

    def limits(self):
        """What the host bounds, if it said: a Limits."""
        return self._host._about.limits if self._host._about.HasField("limits") else None

    def grants(self):
        """The grants in force: a GrantsResponse."""
        return self._host.call("Session", "Grants", message("GrantsRequest"))

    def usage(self):
        """What was used up so far: a UsageResponse."""
        return self._host.call("Session", "Usage", message("UsageRequest"))
