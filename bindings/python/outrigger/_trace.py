"""Which trace a call belongs to, and that the calls it leads to belong to it, too.

The headers traceparent and tracestate of W3C Trace Context, passed on as they came: a plugin needs no
OpenTelemetry for its host's trace to go on through it. A thread that a handler starts does not inherit them;
contextvars.copy_context().run(...) takes them along.
"""

import contextvars
import re
from collections import namedtuple

import grpc

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
# The longest tracestate that is passed on.
MAX_STATE = 512
_FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

Headers = tuple[tuple[str, str], ...]

_current: contextvars.ContextVar[Headers] = contextvars.ContextVar("outrigger-trace", default=())


def current() -> Headers:
    """The headers of the trace of the call that is answered here; none where there is no trace."""
    return _current.get()


def traceparent() -> str:
    """The traceparent among them, or an empty text."""
    return dict(current()).get(TRACEPARENT, "")


def trace_id() -> str:
    """The id of the trace, or an empty text."""
    return traceparent()[3:35]


def read(metadata) -> Headers:
    """What the metadata of a call says, checked."""
    parents = [value for key, value in metadata or () if key == TRACEPARENT]
    if len(parents) != 1 or not _FORM.fullmatch(parents[0]):
        return ()
    state = ",".join(value for key, value in metadata if key == TRACESTATE)
    if state and len(state) <= MAX_STATE:
        return ((TRACEPARENT, parents[0]), (TRACESTATE, state))
    return ((TRACEPARENT, parents[0]),)


class Incoming(grpc.ServerInterceptor):
    """Runs the handlers of calls that belong to a trace within it."""

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        headers = read(details.invocation_metadata)
        if handler is None or not headers:
            return handler
        scope = contextvars.copy_context()
        scope.run(_current.set, headers)

        def once(behaviour):
            return lambda request, context: scope.run(behaviour, request, context)

        def many(behaviour):
            def replies(request, context):
                left = iter(scope.run(behaviour, request, context))
                while True:
                    try:
                        reply = scope.run(next, left)
                    except StopIteration:
                        return
                    yield reply

            return replies

        forms = {
            "unary_unary": (grpc.unary_unary_rpc_method_handler, once),
            "stream_unary": (grpc.stream_unary_rpc_method_handler, once),
            "unary_stream": (grpc.unary_stream_rpc_method_handler, many),
            "stream_stream": (grpc.stream_stream_rpc_method_handler, many),
        }
        for form, (make, within) in forms.items():
            behaviour = getattr(handler, form)
            if behaviour is not None:
                return make(within(behaviour), handler.request_deserializer, handler.response_serializer)
        return handler


_Details = namedtuple("_Details", ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"))


class _CallDetails(_Details, grpc.ClientCallDetails):
    pass


class _Outgoing(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the headers to calls that have none of their own."""

    def _intercept(self, continuation, details, request):
        headers, metadata = current(), tuple(details.metadata or ())
        if headers and all(key != TRACEPARENT for key, _ in metadata):
            metadata = tuple(pair for pair in metadata if pair[0] != TRACESTATE) + headers
            details = _CallDetails(
                details.method,
                details.timeout,
                metadata,
                details.credentials,
                getattr(details, "wait_for_ready", None),
                getattr(details, "compression", None),
            )
        return continuation(details, request)

    intercept_unary_unary = _intercept
    intercept_unary_stream = _intercept
    intercept_stream_unary = _intercept
    intercept_stream_stream = _intercept


def carried(channel: grpc.Channel) -> grpc.Channel:
    """The channel, over which calls go on with the trace of the one that is answered."""
    return grpc.intercept_channel(channel, _Outgoing())
