"""The disk of the gateway: what it holds, and what is left of that by a crash or a power failure.

Files are real ones in memory. SQLite's flushes are noticed in its VFS, whose function for that is
replaced in the library that Python has loaded; those of Python in `os`. A flush takes time, in
which others run and the process may be killed. SQLite's waits for a lock pass in simulated time,
too.

A killed process leaves its files as they are. A power failure leaves of each file the content of
its last flush, and of what was written since nothing, all, or some of the blocks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from greenlet import GreenletExit

from tests.simulation.simulated_threads import current_thread

PowerLoss = Literal["all", "none", "torn"]

_BLOCK = 512
# What a dead process's lock or shared memory is made anew of.
_TRANSIENT = ("-shm", "-lock", "-reserve")


class SimulatedDisk:
    """The directory of a gateway, one for each of its processes.

    `delay` returns the seconds that a flush takes. Without `keeps_flushes` there can be no power
    failure.
    """

    def __init__(
        self, root: Path, delay: Callable[[], float], rng: random.Random, *, keeps_flushes: bool
    ) -> None:
        self._root = root
        self._delay = delay
        self._rng = rng
        self._keeps_flushes = keeps_flushes
        self._count = 0
        self._flushed: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        self.flushes = 0
        self.directory = self._new_directory()

    def on_flush(self, path: Path) -> None:
        """Take the time of a flush, then note what is on the disk."""
        thread = current_thread()
        if thread is not None:
            thread.pause(self._delay())
        self.flushes += 1
        if not self._keeps_flushes:
            return
        has_changed_length = False
        if path.parent == self.directory and path.exists():
            inode, content = path.stat().st_ino, path.read_bytes()
            has_changed_length = len(self._flushed.get(inode, b"")) != len(content)
            self._flushed[inode] = content
            self._names.setdefault(path.name, inode)
        # File systems keep the order of such changes: with a length all names before are written.
        if path == self.directory or has_changed_length:
            self._names = {each.name: each.stat().st_ino for each in self._files()}

    def restart(self, loss: PowerLoss | None) -> None:
        """Continue with a copy for the next process; None: without a power failure."""
        left = self._left(loss)
        self.directory = self._new_directory()
        self._flushed.clear()
        self._names.clear()
        for name, content in left.items():
            path = self.directory / name
            path.write_bytes(content)
            path.chmod(0o600)
            self._flushed[path.stat().st_ino] = content
            self._names[name] = path.stat().st_ino

    def _left(self, loss: PowerLoss | None) -> dict[str, bytes]:
        present = {
            each.name: (each.stat().st_ino, each.read_bytes())
            for each in self._files()
            if not each.name.endswith(_TRANSIENT)
        }
        if loss is None or loss == "none":
            return {name: content for name, (_, content) in present.items()}
        names = {name: inode for name, (inode, _) in present.items()}
        # The change of the directory itself is made as a whole or not at all.
        if loss == "all" or self._rng.random() < 0.5:
            names = {
                name: inode for name, inode in self._names.items() if not name.endswith(_TRANSIENT)
            }
        contents = dict(present.values())
        return {
            name: self._content_left(inode, contents.get(inode), loss)
            for name, inode in sorted(names.items())
        }

    def _content_left(self, inode: int, written: bytes | None, loss: PowerLoss) -> bytes:
        flushed = self._flushed.get(inode, b"")
        if loss == "all" or written is None:
            return flushed
        length = self._rng.choice((len(flushed), len(written)))
        blocks = []
        for start in range(0, length, _BLOCK):
            old = flushed[start : start + _BLOCK].ljust(_BLOCK, b"\0")
            new = written[start : start + _BLOCK].ljust(_BLOCK, b"\0")
            blocks.append(new if old != new and self._rng.random() < 0.5 else old)
        return b"".join(blocks)[:length]

    def _files(self) -> list[Path]:
        return sorted(each for each in self.directory.iterdir() if each.is_file())

    def _new_directory(self) -> Path:
        self._count += 1
        directory = self._root / str(self._count)
        directory.mkdir()
        return directory


class _Hooks:
    disk: SimulatedDisk | None = None


HOOKS = _Hooks()


class UnsupportedSqliteError(Exception):
    """SQLite is built into this Python, so that its functions cannot be reached."""


class _VfsStruct(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
        ("delete", ctypes.c_void_p),
        ("access", ctypes.c_void_p),
        ("full_path", ctypes.c_void_p),
        ("dl_open", ctypes.c_void_p),
        ("dl_error", ctypes.c_void_p),
        ("dl_sym", ctypes.c_void_p),
        ("dl_close", ctypes.c_void_p),
        ("randomness", ctypes.c_void_p),
        ("sleep", ctypes.c_void_p),
    ]


# xClose, xRead, xWrite, xTruncate, xSync and those behind, of version 3.
_METHODS = 18
_SYNC = 4


class _MethodsStruct(ctypes.Structure):
    _fields_ = [("version", ctypes.c_int), ("functions", ctypes.c_void_p * _METHODS)]


_Open = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    # Of the name SQLite keeps the address.
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_int),
)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_Sleep = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_IO_ERROR = 10


def _library() -> ctypes.CDLL:
    """Return the library of SQLite that the module `sqlite3` uses."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.rpartition(" ")[2]
        if "libsqlite3" in path:
            return ctypes.CDLL(path)
    raise UnsupportedSqliteError


class _Vfs:
    """SQLite's access to files, with flushes and waits of ours."""

    def __init__(self) -> None:
        library = _library()
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_VfsStruct)
        vfs = library.sqlite3_vfs_find(None).contents
        self._open = _Open(vfs.open)
        self._methods: dict[int, _MethodsStruct] = {}
        self._paths: dict[int, Path] = {}
        # Kept: the library calls them as long as it is loaded.
        self._callbacks = (_Open(self._on_open), _Sync(self._on_sync), _Sleep(self._on_sleep))
        vfs.open = ctypes.cast(self._callbacks[0], ctypes.c_void_p).value
        vfs.sleep = ctypes.cast(self._callbacks[2], ctypes.c_void_p).value

    def _on_open(self, vfs: Any, name: int | None, file: int, flags: int, out: Any) -> int:
        result: int = self._open(vfs, name, file, flags, out)
        methods = ctypes.cast(file, ctypes.POINTER(ctypes.c_void_p))
        if result == 0 and name is not None and methods[0]:
            self._paths[file] = Path(os.fsdecode(ctypes.string_at(name)))
            methods[0] = ctypes.addressof(self._with_sync(methods[0]))
        return result

    def _with_sync(self, address: int) -> _MethodsStruct:
        changed = self._methods.get(address)
        if changed is None:
            changed = _MethodsStruct()
            ctypes.memmove(ctypes.byref(changed), address, ctypes.sizeof(changed))
            changed.functions[_SYNC] = ctypes.cast(self._callbacks[1], ctypes.c_void_p).value
            self._methods[address] = changed
        return changed

    def _on_sync(self, file: int, flags: int) -> int:
        if HOOKS.disk is None:
            return 0
        try:
            HOOKS.disk.on_flush(self._paths[file])
        except GreenletExit:
            return _IO_ERROR
        return 0

    def _on_sleep(self, vfs: Any, microseconds: int) -> int:
        thread = current_thread()
        if thread is not None:
            with contextlib.suppress(GreenletExit):
                thread.pause(microseconds / 1e6)
        return microseconds


def _flush(descriptor: int) -> None:
    disk = HOOKS.disk
    if disk is None:
        _real_fsync(descriptor)
    else:
        disk.on_flush(Path(os.readlink(f"/proc/self/fd/{descriptor}")))


_real_fsync = os.fsync
_vfs: _Vfs | None = None


def install() -> None:
    """Notice all flushes of this process from now on. Raises `UnsupportedSqliteError`."""
    global _vfs
    if _vfs is None:
        # Loads the library.
        sqlite3.connect(":memory:").close()
        _vfs = _Vfs()
        os.fsync = _flush
        os.fdatasync = _flush
