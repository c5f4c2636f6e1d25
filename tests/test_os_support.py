"""Functions of the operating system; tests/deploy/test_windows.py has those without POSIX."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import resource
import signal
import socket
import subprocess
import sys

import pytest
import uvloop

from gateway import os_support

_PAGES = 1024  # of 4 KiB, in 16 pieces


def test_the_loop_is_uvloop_where_it_is_installed() -> None:
    loop = os_support.new_event_loop()()
    loop.close()
    assert isinstance(loop, uvloop.Loop)


def test_the_limit_of_open_files_is_raised_to_the_hard_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        assert os_support.open_file_limit() == min(soft, 512)
        os_support.raise_open_file_limit()
        assert os_support.open_file_limit() == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


ENDED = """
import resource
from gateway.__main__ import main
try:
    main()
except SystemExit:
    print("cores", *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_no_command_leaves_a_core_dump() -> None:
    """Nor do its child processes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("core dumps are forbidden here already")
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        for command in (["--version"], ["run", "--config", "/none"], ["check"]):
            line = [sys.executable, "-c", ENDED, *command]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            assert "cores 0 0\n" in done.stdout
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_an_address_has_one_listener() -> None:
    with socket.socket() as ours, socket.socket() as theirs:
        for each in (ours, theirs):
            os_support.set_address_reuse(each)
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        with pytest.raises(OSError, match="in use"):
            theirs.bind(ours.getsockname())


def test_octets_in_flight_are_unacknowledged() -> None:
    """Until the peer's system has them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as ours:
            theirs, _ = listener.accept()
            with theirs:
                assert os_support.unacknowledged_bytes(ours) == 0
                ours.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while ours.send(bytes(65536)):
                        pass
                assert os_support.unacknowledged_bytes(ours) > 0
        with pytest.raises((OSError, ValueError)):
            os_support.unacknowledged_bytes(ours)


async def test_a_signal_calls_back_in_the_loop() -> None:
    """One that this system lacks is ignored."""
    heard = asyncio.Event()
    os_support.on_signals({"SIGUSR2": heard.set, "SIGBREAK": heard.clear})
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(heard.wait(), 30)
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back early")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    assert _faults_of_second_use("") > _PAGES / 2
    assert (
        _faults_of_second_use("os_support.set_heap_trim_threshold(8 * 1024 * 1024)") < _PAGES / 10
    )


def test_python_without_ctypes_is_sufficient() -> None:
    """As built without libffi."""
    program = "import sys; sys.modules['_ctypes'] = None; "
    program += "from gateway import os_support; os_support.set_heap_trim_threshold(8 * 1024 * 1024)"
    subprocess.run((sys.executable, "-c", program), check=True)


def _faults_of_second_use(before: str) -> int:
    """Return the page faults of memory that was used before, in a new process."""
    program = f"""
import resource
from gateway import os_support

def use():
    pieces = [bytes([1]) * ({_PAGES} * 4096 // 16) for _ in range(16)]

{before}
use()
first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first)
"""
    ran = subprocess.run((sys.executable, "-c", program), capture_output=True, check=True)
    return int(ran.stdout)
