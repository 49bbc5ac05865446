"""The host's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._calls import Closing
from ._errors import unexpected
from ._messages import as_milliseconds, message, seconds_of

if TYPE_CHECKING:
    from ._calls import Replies
    from ._connection import Connection


class Clock:
    """Time and randomness of the host."""

    def __init__(self, host: Connection) -> None:
        self._host = host

    def now(self) -> float:
        """The time of day, in seconds since 1970."""
        reply = self._host.call("Clock", "Now", message("NowRequest"))
        now = seconds_of(reply, "time")
        if now is None:
            raise unexpected("clock.now")
        return now

    def monotonic(self) -> float:
        """Seconds since a moment that stays the same while the host runs."""
        return self._host.call("Clock", "Monotonic", message("MonotonicRequest")).nanoseconds / 1e9

    def sleep(self, seconds: float) -> None:
        """Wait at the host, for at most its call_timeout."""
        request = message("SleepRequest", milliseconds=as_milliseconds(seconds))
        self._host.call("Clock", "Sleep", request, timeout=None)

    def ticks(self, period: float) -> "Ticks":
        """Tick with a period of at least a millisecond, until it is closed."""
        return Ticks(self._host.stream("Clock", "Ticks", message("TicksRequest", period_ms=as_milliseconds(period))))

    def random(self, length: int) -> bytes:
        """Random bytes from the host's kernel, at most 64 KiB."""
        return self._host.call("Clock", "Random", message("RandomRequest", length=length)).data

    def uuid(self) -> str:
        """A UUID of version 7, which sorts by time."""
        return self._host.call("Clock", "Uuid", message("UuidRequest", version=7)).uuid


class Ticks(Closing):
    """Ticks of the host's clock: for each one, how many went by unseen before it."""

    def __init__(self, ticks: Replies) -> None:
        self._ticks = ticks

    def __iter__(self) -> "Ticks":
        return self

    def __next__(self) -> int:
        return next(self._ticks).missed

    def close(self) -> None:
        self._ticks.close()
