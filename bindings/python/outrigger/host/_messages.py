"""Messages of the contract (`outrigger.host.v1`), made from its descriptors."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "outrigger.host.v1"


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(
        (Path(__file__).parents[1] / "_generated" / "host_services.bin").read_bytes()
    )
    for file in files.file:
        pool.Add(file)
    return pool

POOL = _pool()


def message(name: str, /, **fields):
    """A message of the contract by its short name."""
    return message_class(name)(**fields)


def message_class(name: str):
    full = name if "." in name else f"{PACKAGE}.{name}"
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full))


def as_milliseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(0, round(seconds * 1000))


def seconds_of(owner, field: str) -> float | None:
    if not owner.HasField(field):
        return None
    stamp = getattr(owner, field)
    return stamp.seconds + stamp.nanos / 1e9


def timestamp(seconds: float):
    whole, rest = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return message("google.protobuf.Timestamp", seconds=whole, nanos=rest)
