"""Serve a go-plugin plugin from Python, over plain-text gRPC.

    from outrigger import plugin

    def register(server, broker):
        ...  # add the service's handlers to the server

    plugin.serve(
        cookie=("KEY", "VALUE"),
        versions={1: register},
    )

The module knows the handshake, health, controller, stdio and broker services. It deliberately
knows neither TLS nor broker multiplexing: a host that asks for them is told so.
"""

from ._broker import Broker, BrokerError
from ._config import config, config_changed
from ._serve import serve

__all__ = ["Broker", "BrokerError", "config", "config_changed", "serve"]
