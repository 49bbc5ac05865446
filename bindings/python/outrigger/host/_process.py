"""Programs that the host starts."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from ._calls import Closing
from ._errors import HostError, as_host_error, unexpected
from ._messages import as_milliseconds, message
from ._streams import SENT, WAITING, PartStream, parts_of

if TYPE_CHECKING:
    from ._calls import Replies
    from ._connection import Connection


class Processes:
    """Commands of the whitelist, run by the host."""

    def __init__(self, host: Connection) -> None:
        self._host = host

    def command(self, path: str) -> "Command":
        """A command by its absolute path."""
        return Command(self._host, path)

    def list(self) -> list:
        """The processes that this plugin has started: ProcessInfo values."""
        return list(self._host.call("Process", "List", message("ListProcessesRequest")).processes)


class Command:
    """A command to run."""

    def __init__(self, host: Connection, path: str) -> None:
        self._host = host
        self._command = message("Command", command=path)
        self._input, self._timeout = b"", None

    def arg(self, argument: str) -> "Command":
        """Add an argument."""
        self._command.args.append(argument)
        return self

    def args(self, arguments: Iterable[str]) -> "Command":
        """Add arguments."""
        self._command.args.extend(arguments)
        return self

    def env(self, name: str, value: str) -> "Command":
        """Set a variable. The name must be granted, and the value be the one Env.var() tells."""
        self._command.environment[name] = value
        return self

    def current_dir(self, directory: str) -> "Command":
        """Run it in a granted directory."""
        self._command.directory = directory
        return self

    def input(self, data: bytes) -> "Command":
        """What output() gives it to read."""
        self._input = bytes(data)
        return self

    def timeout(self, seconds: float) -> "Command":
        """How long output() lets it run, and never longer than the host's call_timeout."""
        self._timeout = seconds
        return self

    def output(self) -> "Output":
        """Run it to its end and collect what it prints. A command that fails is no error."""
        timeout = as_milliseconds(self._timeout)
        request = message("RunRequest", command=self._command, input=self._input, timeout_ms=timeout)
        ran = self._host.call("Process", "Run", request, timeout=None)
        status = ExitStatus._from_wire(ran.status, "process.run")
        return Output(status, ran.output, ran.error_output, ran.dropped)

    def spawn(self) -> "Child":
        """Start it. Its input and output are streams."""
        asked = self._host._hand_over("process.start", exec=self._command)
        if asked is not None:
            reply, pipes = asked
            for pipe in pipes:
                os.set_blocking(pipe, True)
            stdin, stdout, stderr = pipes
            streams = (Pipe(stdin, "wb"), Pipe(stdout, "rb"), Pipe(stderr, "rb"))
            return Child(self._host, reply.started, *streams)
        started = self._host.call("Process", "Start", message("StartRequest", command=self._command))
        printed = self._host.stream("Process", "Output", message("OutputRequest", process=started.process))
        stdout, stderr = ChildOutput(), ChildOutput()
        sorting = threading.Thread(target=sort_output, args=(printed, stdout, stderr), daemon=True)
        sorting.start()
        return Child(self._host, started, ChildInput(self._host, started.process), stdout, stderr)


@dataclass(frozen=True)
class ExitStatus:
    """How a command ended: by itself with a code, or by a signal."""

    code: int | None = None
    signal: int | None = None

    def success(self) -> bool:
        """Whether it ended by itself with 0."""
        return self.code == 0

    @classmethod
    def _from_wire(cls, status, operation: str) -> "ExitStatus":
        end = status.WhichOneof("end")
        if end is None:
            raise unexpected(operation)
        return cls(**{end: getattr(status, end)})


@dataclass(frozen=True)
class Output:
    """What a command did; dropped counts bytes that it printed and that did not fit."""

    status: ExitStatus
    stdout: bytes
    stderr: bytes
    dropped: int


class Child(Closing):
    """A command that runs. It ends when this is closed or forgotten.

    stdin, stdout and stderr are raw streams; closing stdin ends it. While nobody reads what the
    command prints it waits: read both.
    """

    def __init__(self, host: Connection, started, stdin, stdout, stderr) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._host, self._pid, self._process = host, started.pid, started.process
        self._status: ExitStatus | None = None

    def pid(self) -> int:
        """Its process id at the host."""
        return self._pid

    def wait(self) -> ExitStatus:
        """Close its input and wait until it ends."""
        self.stdin.close()
        # A wait lasts no longer than any call of the host.
        while self._status is None:
            try:
                waited = self._host.call("Process", "Wait", message("WaitRequest", process=self._process))
                self._status = ExitStatus._from_wire(waited.status, "process.wait")
            except HostError as error:
                if error.grpc_code != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
        return self._status

    def kill(self) -> None:
        """Kill it and what it started."""
        self._host.call("Process", "Kill", message("KillRequest", process=self._process))

    def signal(self, number: int) -> None:
        """Send it a signal by number, where that is granted."""
        self._host.call("Process", "Signal", message("SignalRequest", process=self._process, signal=number))

    def detach(self) -> None:
        """Let it run on without this value, until the plugin is gone."""
        self._process = ""

    def close(self) -> None:
        process, self._process = self._process, ""
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()
        # What has ended the host forgets by itself.
        if process and self._status is None:
            end_process(self._host, process)

    def __del__(self) -> None:
        # Nothing is asked of the host in the middle of something else.
        process = getattr(self, "_process", "")
        if process and self._status is None and not sys.is_finalizing():
            threading.Thread(target=end_process, args=(self._host, process), daemon=True).start()


def end_process(host: Connection, process: str) -> None:
    """Give a process back, which ends one that runs."""
    # The host may be gone already, and all processes with it.
    with contextlib.suppress(HostError, ValueError):
        host.call("Process", "Close", message("CloseProcessRequest", process=process))


class Pipe(io.FileIO):
    """A pipe that was handed over; writes all that it is given."""

    def write(self, data) -> int:
        if self.closed:
            raise ValueError("the input is closed")
        data = memoryview(data).cast("B")
        done = 0
        while done < len(data):
            with as_host_error("process.write_input"):
                done += super().write(data[done:])
        return done


class ChildInput(io.RawIOBase):
    """A command's input, by calls."""

    def __init__(self, host: Connection, process: str) -> None:
        super().__init__()
        self._host, self._process = host, process

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        if self.closed:
            raise ValueError("the input is closed")
        for part in parts_of(data, SENT):
            self._write(data=bytes(part))
        return memoryview(data).nbytes

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        # The command may be gone already.
        with contextlib.suppress(HostError, ValueError):
            self._write(close=True)

    def _write(self, **fields) -> None:
        request = message("WriteInputRequest", process=self._process, **fields)
        self._host.call("Process", "WriteInput", request)


class ChildOutput(PartStream):
    """What a command prints, by calls."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._waiting: list = []
        self._ended = False

    def _next(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or self.closed)
            if not self._waiting:
                return b""
            part = self._waiting.pop(0)
            self._changed.notify_all()
        if isinstance(part, HostError):
            raise part
        return part

    def _put(self, part) -> None:
        """Wait until there is room for a part, or nobody reads."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < WAITING or self.closed)
            if not self.closed and part:
                self._waiting.append(part)
            self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        super().close()
        with self._changed:
            self._changed.notify_all()


def sort_output(printed: Replies, stdout: ChildOutput, stderr: ChildOutput) -> None:
    """Give each stream its parts until the command ends, or until nobody reads any of it."""
    try:
        for part in printed:
            stream = stdout if part.WhichOneof("part") == "output" else stderr
            stream._put(part.output or part.error_output)
            if stdout.closed and stderr.closed:
                return
    except HostError as error:
        stdout._put(error)
        stderr._put(error)
    finally:
        printed.close()
        stdout._end()
        stderr._end()
