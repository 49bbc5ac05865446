"""The host's log."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ._messages import message

if TYPE_CHECKING:
    from ._connection import Connection


class LogLevel(enum.IntEnum):
    """How severe a record is."""

    TRACE = 1
    DEBUG = 2
    INFO = 3
    WARN = 4
    ERROR = 5


class Log:
    """The host's log, under the plugin's name.

    What the plugin logs by itself goes to the host in any case; this is for records that must not
    get lost.
    """

    def __init__(self, host: Connection) -> None:
        self._host = host

    def write(self, level: LogLevel, text: str, fields: dict[str, str] | None = None) -> bool:
        """Write one record; whether the host keeps its level."""
        record = message("LogRecord", level=int(level), message=text, fields=fields or {})
        return self._host.call("Log", "Write", message("WriteLogRequest", records=[record])).written > 0

    def level(self) -> LogLevel | None:
        """The least severe level that the host keeps; None when it keeps none."""
        level = self._host.call("Log", "Level", message("LevelRequest")).level
        return LogLevel(level) if level else None
