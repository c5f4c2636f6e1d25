"""What is asked of the operating system; tests/deploy/test_windows.py has the one without POSIX."""

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


def test_the_loop_is_uvloop_where_there_is_one() -> None:
    """The fast loop is taken without being asked for."""
    loop = os_support.new_event_loop()()
    loop.close()
    assert isinstance(loop, uvloop.Loop)


def test_the_limit_of_files_is_the_process_own() -> None:
    """What may be open follows the soft limit, which is raised to the hard one."""
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
    """Whatever is asked for, the process and those that it begins can write no core."""
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


def test_an_address_has_one_owner() -> None:
    """While one socket listens at a claimed address no other one can."""
    with socket.socket() as ours, socket.socket() as theirs:
        for each in (ours, theirs):
            os_support.set_address_reuse(each)
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        with pytest.raises(OSError, match="in use"):
            theirs.bind(ours.getsockname())


def test_what_nobody_has_taken_is_unacknowledged() -> None:
    """Bytes count until the other side's system has them."""
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
    """A signal is taken by its name; one that this system has not is passed over."""
    heard = asyncio.Event()
    os_support.on_signals({"SIGUSR2": heard.set, "SIGBREAK": heard.clear})
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(heard.wait(), 30)
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back early")
def test_memory_that_was_freed_is_used_again() -> None:
    """What is freed at the heap's end need not be cleared by the system before its next use."""
    assert _faults_of_second_use("") > _PAGES / 2
    assert (
        _faults_of_second_use("os_support.set_heap_trim_threshold(8 * 1024 * 1024)") < _PAGES / 10
    )


def test_python_without_ctypes_will_do() -> None:
    """Where Python was built without libffi nothing else is missing."""
    program = "import sys; sys.modules['_ctypes'] = None; "
    program += "from gateway import os_support; os_support.set_heap_trim_threshold(8 * 1024 * 1024)"
    subprocess.run((sys.executable, "-c", program), check=True)


def _faults_of_second_use(before: str) -> int:
    """Pages that the system had to bring in a new process for memory that had been used before."""
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
