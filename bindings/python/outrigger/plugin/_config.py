"""The plugin's own configuration: what the host's operator wrote for this plugin."""

from __future__ import annotations

import json
import os
import time
from typing import Any

# Where the host says in which file it is.
VARIABLE = "OUTRIGGER_PLUGIN_CONFIG"
# How often config_changed looks whether the host has replaced it.
LOOK_SECONDS = 1.0


def config() -> dict[str, Any] | None:
    """The configuration as it is now; None where the host hands over none."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def config_changed(known: dict[str, Any] | None, timeout: float | None = None) -> dict[str, Any] | None:
    """Wait until it is another one than known, and return it.

    Raises TimeoutError when that takes longer than timeout seconds.
    """
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        now = config()
        if now != known:
            return now
        if until is not None and time.monotonic() >= until:
            raise TimeoutError(f"the configuration did not change within {timeout:g} s")
        time.sleep(LOOK_SECONDS)
