"""The source archive of a release is the checkout: the README's two commands work from it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import aiohttp
import pytest

from gateway import __version__
from tests.deploy import tools
from tests.doubles.processes import GatewayProcess, free_port, start

ROOT = Path(__file__).parents[1]
# What work in a checkout leaves behind.
IGNORED = [each.rstrip("/") for each in (ROOT / ".gitignore").read_text("utf-8").split()] + [".git"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive that `make dist` builds, unpacked."""
    folder = tmp_path_factory.mktemp("source")
    line = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    tools.unpack(folder / f"dhp_gateway-{__version__}.tar.gz", folder)
    return folder / f"dhp_gateway-{__version__}"


@pytest.fixture(scope="module")
def set_up(archive: Path) -> Path:
    """The archive with the environment that `make venv` makes, of the packages that are here."""
    # As in a clone: git has no compiled catalogues, the installation makes them.
    for each in (archive / "gateway/locale").rglob("*.mo"):
        each.unlink()
    environment = archive / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "here.pth").write_text(sysconfig.get_path("purelib"))
    install = ("-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps")
    line = [environment / "bin" / "python", *install, "--ignore-installed", "--editable", "."]
    subprocess.run(line, cwd=archive, check=True)
    lock = (archive / "requirements-dev.lock").read_bytes()
    summed = subprocess.run(["cksum"], input=lock, capture_output=True, check=True).stdout
    python = f"Python {sys.version.split()[0]}"
    (environment / ".installed").write_text(f"{python} {summed.decode().strip()}")
    return archive


def make(folder: Path, *arguments: str) -> list[str]:
    """A command line that runs make there, with the interpreter that the environment is of."""
    options = ("--no-print-directory", f"--directory={folder}", f"PYTHON={sys.executable}")
    return ["make", *options, *arguments]


def is_ignored(path: Path) -> bool:
    """Whether a file of the checkout is no part of the source."""
    return any(fnmatch(path.name, each) or fnmatch(str(path), each) for each in IGNORED)


def source(folder: Path = ROOT) -> Iterator[Path]:
    """The files of the source, those behind links to folders too."""
    for each in folder.iterdir():
        path = each.relative_to(ROOT)
        if not is_ignored(path):
            yield from source(each) if each.is_dir() else [path]


def test_the_archive_holds_the_whole_source(archive: Path) -> None:
    """Nothing is left out: neither scripts of the make targets nor one of two links to a folder."""
    files = list(source())
    assert len(files) > 1000
    assert [str(each) for each in files if not (archive / each).is_file()] == []


def catalogues(names: Iterable[str]) -> list[str]:
    """The compiled catalogues among the files of a package."""
    return sorted(name[name.index("gateway/") :] for name in names if name.endswith(".mo"))


def test_the_packages_have_the_translations(archive: Path, tmp_path: Path) -> None:
    """Git has none compiled; the archive has, and so does a wheel that is built from it."""
    sources = ROOT.glob("gateway/locale/*/LC_MESSAGES/*.po")
    meant = sorted(str(each.relative_to(ROOT).with_suffix(".mo")) for each in sources)
    with tarfile.open(f"{archive}.tar.gz") as packed:
        assert catalogues(packed.getnames()) == meant
    line = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    subprocess.run([*line, tmp_path], cwd=archive, check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as files:
        assert catalogues(files.namelist()) == meant


async def test_the_demo_runs_from_the_archive(set_up: Path, tmp_path: Path) -> None:
    """The README's first command, on other ports: the platform answers through the gateway."""
    listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    options = f"ARGS=--listen {listen} --admin {admin} --port {free_port()}"
    demo = start(make(set_up, "demo", options), tmp_path)
    try:
        gateway = GatewayProcess(demo, f"http://{listen}/fhir", f"http://{admin}")
        await gateway.until_status(200)
        async with aiohttp.request("GET", f"{gateway.url}/metadata") as answer:
            assert (await answer.json())["resourceType"] == "CapabilityStatement"
    finally:
        demo.terminate()


def test_the_tests_run_from_the_archive(set_up: Path, tmp_path: Path) -> None:
    """The README's second command; one file stands for all."""
    tests = start(make(set_up, "test", "JOBS=1", "TESTS=tests/test_i18n.py"), tmp_path)
    assert tests.popen.wait() == 0, tests.failure("the tests do not run")
    assert str(set_up) in tests.stdout
