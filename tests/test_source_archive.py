"""The source archive of a release is the checkout: the README's two commands work in it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import aiohttp
import pytest

from gateway import __version__
from tests.deploy import tools
from tests.doubles.processes import GatewayProcess, free_port, start
from tests.tracked_files import tracked_files, unignored_files

pytestmark = pytest.mark.ci

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked archive of `make dist`."""
    folder = tmp_path_factory.mktemp("source")
    line = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    tools.unpack(folder / f"dhp_gateway-{__version__}.tar.gz", folder)
    return folder / f"dhp_gateway-{__version__}"


@pytest.fixture(scope="module")
def set_up(archive: Path) -> Path:
    """Return the archive with the environment that `make venv` makes."""
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
    options = ("--no-print-directory", f"--directory={folder}", f"PYTHON={sys.executable}")
    return ["make", *options, *arguments]


def source() -> Iterator[Path]:
    """Yield the files of the source, also new ones and those behind links to folders."""
    for each in unignored_files():
        for file in each.iterdir() if each.is_dir() else [each]:
            yield file.relative_to(ROOT)


def test_the_archive_has_the_complete_source(archive: Path) -> None:
    files = list(source())
    assert len(files) > 1000
    assert [str(each) for each in files if not (archive / each).is_file()] == []


def test_the_archive_has_nothing_else(archive: Path) -> None:
    """No environment or cache; hatchling adds the description, the build the translations."""
    with tarfile.open(f"{archive}.tar.gz") as packed:
        names = {each.removeprefix(f"{archive.name}/") for each in packed.getnames()}
    surplus = names - {str(each) for each in source()} - {"PKG-INFO"}
    assert {each for each in surplus if not each.endswith(".mo")} == set()


def catalogues(names: Iterable[str]) -> list[str]:
    return sorted(name[name.index("gateway/") :] for name in names if name.endswith(".mo"))


def test_the_packages_have_compiled_translations(archive: Path, tmp_path: Path) -> None:
    """Git has none."""
    sources = tracked_files("gateway/locale/*.po")
    meant = sorted(str(each.relative_to(ROOT).with_suffix(".mo")) for each in sources)
    with tarfile.open(f"{archive}.tar.gz") as packed:
        assert catalogues(packed.getnames()) == meant
    line = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    subprocess.run([*line, tmp_path], cwd=archive, check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as files:
        assert catalogues(files.namelist()) == meant


async def test_the_demo_runs_from_the_archive(set_up: Path, tmp_path: Path) -> None:
    listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    options = f"ARGS=--listen {listen} --admin {admin} --port {free_port()}"
    demo = start(make(set_up, "demo", options), tmp_path)
    try:
        gateway = GatewayProcess(demo, f"http://{listen}/fhir", f"http://{admin}")
        await gateway.wait_for_status(200)
        async with aiohttp.request("GET", f"{gateway.url}/metadata") as response:
            assert (await response.json())["resourceType"] == "CapabilityStatement"
    finally:
        demo.terminate()


def test_the_tests_run_from_the_archive(set_up: Path, tmp_path: Path) -> None:
    """One file stands for all."""
    tests = start(make(set_up, "test", "JOBS=1", "TESTS=tests/test_i18n.py"), tmp_path)
    assert tests.popen.wait() == 0, tests.failure("the tests do not run")
    assert str(set_up) in tests.stdout
