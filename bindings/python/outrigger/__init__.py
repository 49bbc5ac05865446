"""Plugins for hosts of go-plugin's protocols.

`outrigger.plugin` serves a plugin; `outrigger.host` gives it the services of its host.
"""
