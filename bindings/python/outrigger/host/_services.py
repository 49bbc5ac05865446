"""Services of the application's own, by the names under which the manifest asks for them."""

from __future__ import annotations

import os
import threading

import grpc

from ._errors import HostError

# Where the host says what it offers: each name with its address.
VARIABLE = "OUTRIGGER_SERVICES"

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]

_lock = threading.Lock()
_channels: dict[str, grpc.Channel] = {}


def services() -> dict[str, str]:
    """What the host offers to this plugin of the application's own: names, each with its address."""
    entries = (entry.partition("=") for entry in os.environ.get(VARIABLE, "").split("|"))
    return {name: address for name, _, address in entries if address}


def service(name: str) -> grpc.Channel:
    """The connection to one of them, made by the first call that needs it and shared from then on.

    Raises HostError where the host does not offer it to this plugin.
    """
    with _lock:
        if name not in _channels:
            offered = services()
            if name not in offered:
                raise HostError(
                    "services.connect",
                    f"the host offers no service {name!r} to this plugin, but "
                    f"{', '.join(sorted(offered)) or 'no services of its own'}. The manifest asks for it by "
                    "its name among `services`, and the host's log says why it was not granted",
                    code="service-not-offered",
                    grpc_code=grpc.StatusCode.UNAVAILABLE,
                )
            _channels[name] = grpc.insecure_channel(offered[name], options=_CHANNEL_OPTIONS)
        return _channels[name]
