"""Files and folders by name."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._calls import Closing
from ._errors import unexpected
from ._file import File, FileKind, Lease, Metadata
from ._messages import message, timestamp

if TYPE_CHECKING:
    from ._connection import Connection


class Fs:
    """Files beneath what was granted."""

    def __init__(self, host: Connection) -> None:
        self._host = host

    def _call(self, method: str, kind: str, /, **fields):
        return self._host.call("Filesystem", method, message(kind, **fields))

    def open(self, path: str) -> File:
        """Open a file for reading."""
        return self.options().read(True).open(path)

    def create(self, path: str) -> File:
        """Open a file for writing: made if needed, emptied if there."""
        return self.options().write(True).create(True).truncate(True).open(path)

    def options(self) -> "OpenOptions":
        """To open a file in another way."""
        return OpenOptions(self._host)

    def open_dir(self, path: str) -> "Dir":
        """Open a directory, from which files can be opened."""
        return Dir(self._host, self._call("OpenDir", "OpenDirRequest", path=path).lease)

    def read(self, path: str) -> bytes:
        """A whole file, however large."""
        with self.open(path) as file:
            return file.readall()

    def read_to_string(self, path: str) -> str:
        """A whole file as text; raises UnicodeDecodeError where it is not UTF-8."""
        return self.read(path).decode()

    def write(self, path: str, contents: bytes) -> None:
        """Write a whole file: made if needed, replaced if there."""
        if len(contents) <= self._host._payload():
            self._call("WriteFile", "WriteFileRequest", path=path, data=bytes(contents))
            return
        with self.create(path) as file:
            file.write(contents)

    def append(self, path: str, data: bytes) -> int:
        """Write at the end of a file, made if needed; how large it is then."""
        return self._call("Append", "AppendRequest", path=path, data=bytes(data)).size

    def copy(self, source: str, target: str) -> int:
        """Copy a file; how large it is. What is at target is replaced."""
        return self._call("Copy", "CopyRequest", **{"from": source, "to": target, "replace": True}).copied

    def metadata(self, path: str) -> Metadata:
        """What is at a path, following links."""
        return Metadata(self._call("Stat", "StatRequest", path=path).info)

    def symlink_metadata(self, path: str) -> Metadata:
        """What is at a path, a link standing for itself."""
        return Metadata(self._call("Lstat", "LstatRequest", path=path).info)

    def exists(self, path: str) -> bool:
        """Whether something is at a path."""
        return self._call("Exists", "ExistsRequest", path=path).exists

    def read_dir(self, path: str) -> "ReadDir":
        """The entries of a directory, fetched page by page as they are taken."""
        return ReadDir(self._host, path)

    def read_link(self, path: str) -> str:
        """The target of a link."""
        return self._call("Readlink", "ReadlinkRequest", path=path).target

    def create_dir(self, path: str) -> None:
        """Make a directory."""
        self._call("Mkdir", "MkdirRequest", path=path)

    def create_dir_all(self, path: str) -> None:
        """Make a directory and those above it."""
        self._call("Mkdir", "MkdirRequest", path=path, parents=True)

    def rename(self, source: str, target: str) -> None:
        """Move what is at source to target, replacing what is there."""
        self._call("Rename", "RenameRequest", **{"from": source, "to": target, "replace": True})

    def remove(self, path: str) -> None:
        """Remove a file, a link or an empty directory."""
        self._call("Remove", "RemoveRequest", path=path)

    def remove_all(self, path: str) -> None:
        """Remove whatever is at a path, with all that is in it; nothing there is fine too."""
        self._call("RemoveAll", "RemoveAllRequest", path=path)

    def hard_link(self, existing: str, new: str) -> None:
        """Give a file a second name."""
        self._call("Link", "LinkRequest", existing=existing, new=new)

    def symlink(self, target: str, new: str) -> None:
        """Make a link at new that leads to target."""
        self._call("Symlink", "SymlinkRequest", target=target, new=new)

    def set_permissions(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        self._call("Chmod", "ChmodRequest", path=path, mode=mode)

    def set_owner(self, path: str, uid: int | None, gid: int | None) -> None:
        """Set owner and group, where they are given."""
        self._call("Chown", "ChownRequest", path=path, uid=uid, gid=gid)

    def set_times(self, path: str, accessed: float | None, modified: float | None) -> None:
        """Set the times of the last access and change, where they are given."""
        times = {"accessed": accessed, "modified": modified}
        times = {name: timestamp(time) for name, time in times.items() if time is not None}
        self._call("Chtimes", "ChtimesRequest", path=path, **times)

    def truncate(self, path: str, size: int) -> None:
        """Cut a file, or grow it with zeros."""
        self._call("Truncate", "TruncateRequest", path=path, size=size)

    def temp_file(self, pattern: str = "") -> tuple[File, str]:
        """A new file to read and write, and its path; the host removes it with the plugin.

        The last * of the pattern becomes random.
        """
        request = message("TempFileRequest", pattern=pattern)
        options = message("OpenOptions", read=True, write=True)
        asked = self._host._hand_over("filesystem.temp_file", writes=True, temp_file=request)
        if asked is not None:
            (descriptor,) = asked[1]
            return File(self._host, options, descriptor=descriptor), asked[0].temp_file.path
        made = self._host.call("Filesystem", "TempFile", request)
        return File(self._host, options, lease=made.lease), made.path

    def temp_dir(self, pattern: str = "") -> str:
        """A new directory, which the host removes when the plugin is gone."""
        return self._call("TempDir", "TempDirRequest", pattern=pattern).path

    def watch(self, path: str, recursive: bool = False) -> "Watch":
        """Report changes beneath a path from now on: when this returns, the host watches."""
        watch = Watch(self._host, path, recursive)
        try:
            if watch._message() != Watch.READY:
                raise unexpected("filesystem.watch")
        except BaseException:
            watch.close()
            raise
        return watch


class OpenOptions:
    """How a file is opened."""

    def __init__(self, host: Connection) -> None:
        self._host = host
        self._options = message("OpenOptions")

    def _set(self, **values) -> "OpenOptions":
        for name, value in values.items():
            setattr(self._options, name, value)
        return self

    def read(self, read: bool) -> "OpenOptions":
        """To read."""
        return self._set(read=read)

    def write(self, write: bool) -> "OpenOptions":
        """To write."""
        return self._set(write=write)

    def append(self, append: bool) -> "OpenOptions":
        """To write at its end, whatever the position is."""
        return self._set(append=append)

    def truncate(self, truncate: bool) -> "OpenOptions":
        """Emptied."""
        return self._set(truncate=truncate)

    def create(self, create: bool) -> "OpenOptions":
        """Made when it is not there."""
        return self._set(create=create)

    def create_new(self, create_new: bool) -> "OpenOptions":
        """Made, and an error when it is there."""
        return self._set(create_new=create_new)

    def mode(self, mode: int) -> "OpenOptions":
        """Unix permission bits of a file that is made; 0600 without."""
        return self._set(mode=mode)

    def open(self, path: str) -> File:
        """Open the file."""
        request = message("OpenRequest", path=path, options=self._options)
        return self._open("filesystem.open", "Open", request, open=request)

    def open_at(self, folder: "Dir", path: str) -> File:
        """Open a file beneath a directory."""
        request = message("OpenAtRequest", lease=folder._lease.id, path=path, options=self._options)
        return self._open("filesystem.open_at", "OpenAt", request, open_at=request)

    def _open(self, operation: str, method: str, request, **by_descriptor) -> File:
        options = message("OpenOptions")
        options.CopyFrom(self._options)
        writes = options.write or options.append
        asked = self._host._hand_over(operation, writes=writes, **by_descriptor)
        if asked is not None:
            (descriptor,) = asked[1]
            return File(self._host, options, descriptor=descriptor)
        return File(self._host, options, lease=self._host.call("Filesystem", method, request).lease)


class Dir(Closing):
    """An open directory: files are opened beneath it, whatever happens to its path."""

    def __init__(self, host: Connection, lease: str) -> None:
        self._host, self._lease = host, Lease(host, lease)

    def open(self, path: str) -> File:
        """Open a file beneath it for reading."""
        return OpenOptions(self._host).read(True).open_at(self, path)

    def close(self) -> None:
        self._lease.close()


@dataclass(frozen=True)
class DirEntry:
    """One entry of a directory; a link stands for itself."""

    name: str
    kind: FileKind


class ReadDir:
    """The entries of a directory."""

    def __init__(self, host: Connection, path: str) -> None:
        self._unreadable = 0
        self._entries = self._read(host, path)

    def _read(self, host: Connection, path: str) -> Iterator[DirEntry]:
        cookie = None
        while cookie != "":
            request = message("ListRequest", path=path, cookie=cookie or "")
            page = host.call("Filesystem", "List", request)
            self._unreadable += page.unreadable
            for entry in page.entries:
                yield DirEntry(entry.name, FileKind(entry.kind))
            cookie = page.next

    def __iter__(self) -> "ReadDir":
        return self

    def __next__(self) -> DirEntry:
        return next(self._entries)

    def unreadable(self) -> int:
        """Names so far that are no UTF-8 and were left out."""
        return self._unreadable


class ChangeKind(enum.Enum):
    """What happened to something that is watched; OVERFLOW: changes were lost, look again."""

    CREATED = 1
    MODIFIED = 2
    REMOVED = 3
    OVERFLOW = 4


@dataclass(frozen=True)
class Change:
    """A change of something that is watched."""

    path: str
    kind: ChangeKind


class Watch(Closing):
    """Changes beneath a path, until it is closed."""

    READY = Change("", ChangeKind.OVERFLOW)

    def __init__(self, host: Connection, path: str, recursive: bool) -> None:
        request = message("WatchRequest", path=path, recursive=recursive)
        self._changes = host.stream("Filesystem", "Watch", request)

    def _message(self) -> Change | None:
        for change in self._changes:
            if change.kind == 5:
                return self.READY
            if change.kind in (1, 2, 3, 4):
                return Change(change.path, ChangeKind(change.kind))
        return None

    def __iter__(self) -> "Watch":
        return self

    def __next__(self) -> Change:
        """The next change; the end when the host watches no longer."""
        change = self._message()
        if change is None:
            raise StopIteration
        return change

    def close(self) -> None:
        self._changes.close()
