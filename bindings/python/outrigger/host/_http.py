"""HTTP requests that the host makes."""

from __future__ import annotations

from ._messages import as_milliseconds, message


class HttpRequest:
    """One HTTP request."""

    def __init__(self, method: str, url: str) -> None:
        self._request = message("HttpRequest", method=method, url=url)

    def header(self, name: str, value: str | bytes) -> "HttpRequest":
        """Add a header."""
        self._request.headers.add(name=name, value=value.encode() if isinstance(value, str) else value)
        return self

    def body(self, body: bytes) -> "HttpRequest":
        """Set the body."""
        self._request.body = bytes(body)
        return self

    def timeout(self, seconds: float) -> "HttpRequest":
        """Bound how long it takes, all redirects together."""
        self._request.timeout_ms = as_milliseconds(seconds)
        return self

    def follow_redirects(self, most: int) -> "HttpRequest":
        """Follow so many redirects, each judged as a request of its own."""
        self._request.follow_redirects = most
        return self


class HttpResponse:
    """The reply to an HTTP request."""

    def __init__(self, reply) -> None:
        self._reply = reply

    def status(self) -> int:
        """The status, such as 200."""
        return self._reply.status

    def header(self, name: str) -> bytes | None:
        """The first header of that name, whatever its case."""
        return next((value for found, value in self.headers() if found.lower() == name.lower()), None)

    def headers(self) -> list[tuple[str, bytes]]:
        """All headers."""
        return [(header.name, header.value) for header in self._reply.headers]

    def body(self) -> bytes:
        """The body; empty where it comes in parts."""
        return self._reply.body

    def url(self) -> str:
        """Where it came from, after redirects."""
        return self._reply.url
