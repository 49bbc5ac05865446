"""The socket over which the host hands over descriptors."""

from __future__ import annotations

import os
import socket
import struct
import threading

import grpc

from ._calls import CALL_SECONDS
from ._errors import HostError, told_failure
from .. import _trace
from ._messages import message, message_class

# Longest message on the descriptor socket, and most descriptors with one.
LONGEST_FRAME = 64 << 10

MOST_DESCRIPTORS = 3


class Descriptors:
    """The descriptor socket: one connection, one request at a time."""

    def __init__(self, offer) -> None:
        self._offer = offer
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._gone = False
        self._next = 0

    def ask(self, operation: str, *, wait: bool = True, **request):
        """A reply and its descriptors; None where the same must be asked by a call.

        That is known before anything was done: the host wants it so, the request is too long for
        the socket, or, without wait, somebody else is asking.
        """
        request["traceparent"] = _trace.traceparent()
        if message("DescriptorRequest", id=(1 << 64) - 1, **request).ByteSize() > LONGEST_FRAME:
            return None
        if not self._lock.acquire(blocking=wait):
            return None
        try:
            if self._gone or not self._open():
                return None
            self._next += 1
            try:
                self._send(message("DescriptorRequest", id=self._next, **request))
                reply, descriptors = self._receive()
                if reply.id != self._next or reply.descriptors != len(descriptors):
                    close_all(descriptors)
                    raise OSError("not the answer to what was asked")
            except OSError as error:
                self._shut()
                text = f"{operation}: the host's descriptor socket is gone: {error}"
                unreachable = grpc.StatusCode.UNAVAILABLE
                raise HostError(operation, text, code="descriptors-gone", grpc_code=unreachable) from error
        finally:
            self._lock.release()
        if reply.WhichOneof("reply") != "failure":
            return reply, descriptors
        close_all(descriptors)
        if reply.failure.reason == "use-rpc":
            return None
        raise told_failure(operation, reply.failure)

    def _open(self) -> bool:
        if self._socket is not None:
            return True
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(CALL_SECONDS)
            self._socket.connect(self._offer.path)
            self._send(message("DescriptorHello", token=self._offer.token))
            greeting, _ = self._receive()
            if greeting.id != 0:
                raise OSError("no greeting")
        except OSError:
            self._shut()
            self._gone = True
        return not self._gone

    def _shut(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, sent) -> None:
        data = sent.SerializeToString()
        if len(data) > LONGEST_FRAME:
            raise OSError("the request is too long")
        self._socket.sendall(struct.pack(">I", len(data)) + data)

    def _receive(self):
        data, descriptors, wanted = b"", [], 4
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * struct.calcsize("i"))
        try:
            while len(data) < wanted:
                # socket.recv_fds leaves descriptors open in programs that this one starts.
                received = self._socket.recvmsg(wanted - len(data), room, socket.MSG_CMSG_CLOEXEC)
                part, controls, flags, _ = received
                for level, kind, content in controls:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                        whole = len(content) - len(content) % struct.calcsize("i")
                        descriptors += [number for (number,) in struct.iter_unpack("i", content[:whole])]
                if flags & socket.MSG_CTRUNC:
                    raise OSError("more descriptors than were asked for")
                if not part:
                    raise OSError("the host closed the descriptor socket")
                data += part
                if len(data) == 4 and wanted == 4:
                    wanted += struct.unpack(">I", data)[0]
                    if wanted > 4 + LONGEST_FRAME:
                        raise OSError("the reply is too long")
            return message_class("DescriptorReply").FromString(data[4:]), descriptors
        except BaseException:
            close_all(descriptors)
            raise


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
