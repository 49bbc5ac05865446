"""Logging in the form that go-plugin hosts parse: one hclog JSON object per line, on descriptor 2."""

import datetime
import json
import logging
import sys
import traceback
from typing import TextIO

from .. import _trace


def install(stream: TextIO, level: int) -> None:
    """Send the root logger's records, and uncaught exceptions, to the stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HclogFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)

    def crashed(kind, error, trace) -> None:
        # Hosts raise everything after a line that begins like this to their error level.
        stream.write(f"panic: {kind.__name__}: {error}\n\n")
        stream.write("".join(traceback.format_exception(kind, error, trace)))
        stream.flush()

    sys.excepthook = crashed


class HclogFormatter(logging.Formatter):
    """Formats a record; the dictionary given as extra={"fields": …} becomes fields of its own."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line = {}
        for key, value in getattr(record, "fields", {}).items():
            if not key.startswith("@"):
                line[key] = value
        if _trace.trace_id():
            line["trace_id"] = _trace.trace_id()
        line["@level"] = _level(record.levelno)
        line["@message"] = record.getMessage()
        # Exactly six digits: hosts take any other form for plain text.
        line["@timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if record.name != "root":
            line["@module"] = record.name
        if record.exc_info:
            line["stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    if number >= logging.INFO:
        return "info"
    if number >= logging.DEBUG:
        return "debug"
    return "trace"
