"""One error for whatever failed: what the host told, and what the system says of a descriptor."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

import grpc


class HostError(Exception):
    """The host did not do something, or could not be asked.

    code is the host's own, such as "not-granted"; operation is what was asked for, such as
    "filesystem.open"; grpc_code is the kind of failure; missing is the grant that would have been
    needed, errno the name of the system's error and retry_after the seconds after which to try
    again, where there are such.
    """

    def __init__(
        self,
        operation: str,
        text: str,
        *,
        code: str,
        grpc_code: grpc.StatusCode,
        details: dict[str, str] | None = None,
    ):
        details = details or {}
        missing = details.get("missing")
        super().__init__(f"{text}; it takes {missing}" if missing else text)
        self.operation = operation
        self.code = code
        self.grpc_code = grpc_code
        self.missing = missing or None
        self.errno = details.get("errno") or None
        after = details.get("retry_after_ms", "")
        self.retry_after = int(after) / 1000 if after.isdecimal() else None

    def is_refusal(self) -> bool:
        """Whether the host refused it, rather than failed at it."""
        return self.grpc_code == grpc.StatusCode.PERMISSION_DENIED

    def is_not_found(self) -> bool:
        """Whether what was named is not there."""
        return self.grpc_code == grpc.StatusCode.NOT_FOUND


class ErrorDetails:
    """google.rpc.Status and ErrorInfo, as far as they are needed, without their modules."""

    @staticmethod
    def read(error: grpc.RpcError) -> tuple[str, dict[str, str]]:
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                with contextlib.suppress(ValueError, IndexError, UnicodeDecodeError):
                    return ErrorDetails._status(value)
        return "host-call-failed", {}

    @staticmethod
    def _status(data: bytes) -> tuple[str, dict[str, str]]:
        for number, detail in wire_fields(data):
            if number != 3:
                continue
            parts = dict(wire_fields(detail))
            if parts.get(1, b"").endswith(b"/google.rpc.ErrorInfo"):
                reason, domain, metadata = "", "", {}
                for number, value in wire_fields(parts.get(2, b"")):
                    if number == 1:
                        reason = value.decode()
                    elif number == 2:
                        domain = value.decode()
                    elif number == 3:
                        entry = dict(wire_fields(value))
                        metadata[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
                if domain == "outrigger.host":
                    return reason, metadata
        return "host-call-failed", {}


def wire_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message; numbers are skipped."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("not a number")

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            varint()
        elif key & 7 == 2:
            length = varint()
            if at + length > len(data):
                raise ValueError("cut off")
            yield key >> 3, data[at : at + length]
            at += length
        else:
            raise ValueError("an unexpected kind of field")


def call_failed(service: str, method: str, error: grpc.RpcError) -> HostError:
    code, details = ErrorDetails.read(error)
    operation = details.get("operation") or operation_name(service, method)
    return HostError(operation, error.details() or "", code=code, grpc_code=error.code(), details=details)


def told_failure(operation: str, failure) -> HostError:
    """A failure as a message says it."""
    codes = {code.value[0]: code for code in grpc.StatusCode}
    return HostError(
        operation,
        failure.message,
        code=failure.reason,
        grpc_code=codes.get(failure.status, grpc.StatusCode.UNKNOWN),
        details=dict(failure.metadata),
    )


def operation_name(service: str, method: str) -> str:
    """The name of a call in the host's records, such as filesystem.read_file."""
    return f"{service}.{re.sub(r'(?<!^)(?=[A-Z])', '_', method)}".lower()


def unexpected(operation: str) -> HostError:
    text = f"{operation}: the host's answer is not what was asked for"
    return HostError(operation, text, code="unexpected-answer", grpc_code=grpc.StatusCode.INTERNAL)

# What the host says of the system's errors, and so what is said here of those of a descriptor: the
# status and the reason of each name; the rest are _OTHER.
_SYSTEM_ERRORS = {
    name: (status, reason)
    for names, status, reason in (
        ("ENOENT ESRCH", grpc.StatusCode.NOT_FOUND, "not-found"),
        ("EEXIST", grpc.StatusCode.ALREADY_EXISTS, "already-exists"),
        ("EINVAL ENAMETOOLONG EILSEQ", grpc.StatusCode.INVALID_ARGUMENT, "invalid-argument"),
        ("ENOSPC EDQUOT EFBIG EMFILE ENFILE ENOMEM EMLINK", grpc.StatusCode.RESOURCE_EXHAUSTED, "host-resources"),
        ("EACCES EPERM EROFS", grpc.StatusCode.PERMISSION_DENIED, "host-permission"),
        ("ETIMEDOUT", grpc.StatusCode.DEADLINE_EXCEEDED, "call-timeout"),
        ("EAGAIN EBUSY ECONNREFUSED EHOSTUNREACH ENETUNREACH", grpc.StatusCode.UNAVAILABLE, "unavailable"),
        ("EIO", grpc.StatusCode.INTERNAL, "system-error"),
        ("ENOSYS EOPNOTSUPP", grpc.StatusCode.UNIMPLEMENTED, "unsupported"),
    )
    for name in names.split()
}

_OTHER = (grpc.StatusCode.FAILED_PRECONDITION, "system-error")

# Of two numbers with two names, Python says the other one; one it does not know.
_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK", 133: "EHWPOISON"}


def system_error(operation: str, number: int) -> HostError:
    """What the system says of a descriptor, as the host says it of a lease."""
    name = _NAMES.get(number) or errno.errorcode.get(number) or str(number)
    status, reason = _SYSTEM_ERRORS.get(name, _OTHER)
    words = os.strerror(number)
    text = f"{operation}: {words[:1].lower()}{words[1:]}"
    return HostError(operation, text, code=reason, grpc_code=status, details={"errno": name})


@contextlib.contextmanager
def as_host_error(operation: str) -> Iterator[None]:
    """Tell of what the system refuses, and of numbers that it cannot take, as the host would."""
    try:
        yield
    except OSError as error:
        late = errno.ETIMEDOUT if isinstance(error, TimeoutError) else errno.EIO
        raise system_error(operation, error.errno or late) from error
    except (OverflowError, ValueError) as error:
        raise system_error(operation, errno.EINVAL) from error
