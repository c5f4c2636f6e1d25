"""The installation without a network: packed from the lock, checked file by file, installed."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway import __version__
from tests.deploy import tools

Change = Callable[[Path], None]
PREFIX = "/srv/health/gateway"


def compiled_twin(folder: Path) -> None:
    """A wheel as `make dist` compiles it for this Python, but with a mark in it, not machine code.

    For an old C library, so that it would run here.
    """
    line = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    tools.output_of([*line, "--directory", folder / "pure"])
    (pure,) = (folder / "pure").iterdir()
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    tag = f"{python}-{python}-manylinux_2_17_{platform.machine()}"
    twin = folder / pure.name.replace("py3-none-any", tag)
    with zipfile.ZipFile(pure) as origin, zipfile.ZipFile(twin, "w") as made:
        for each in origin.infolist():
            made.writestr(each, origin.read(each))
        made.writestr("gateway/compiled.mark", "")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive of `make wheelhouse`, made from the checkout."""
    folder, wheels = tmp_path_factory.mktemp("wheelhouse"), tmp_path_factory.mktemp("wheels")
    compiled_twin(wheels)
    tools.make_wheelhouse(folder, PYTHON=sys.executable, WHEELS=str(wheels))
    (archive,) = folder.glob("*.tar.gz")
    assert (folder / f"{archive.name}.sha256").read_text().split()[1] == archive.name
    tools.unpack(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


def install(bundle: Path, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs install.sh below another root, with no network at all where we may take it away."""
    alone = ["unshare", "--net"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*alone, "sh", bundle / "install.sh", "--python", sys.executable, *options],
        env={"PATH": os.environ["PATH"], "DESTDIR": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root below which everything was installed, the service included."""
    root = tmp_path_factory.mktemp("root")
    done = install(bundle, root, "--service", "--prefix", PREFIX)
    assert done.returncode == 0, done.stderr
    return root


def gateway(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs the installed command, with nothing of this checkout in reach."""
    command = f"{root}{PREFIX}/bin/dhp-gateway"
    return subprocess.run(
        [command, *arguments],
        env=environ,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


def test_installs_without_a_network(installed: Path) -> None:
    """What was installed is this version, in an environment of its own."""
    assert gateway(installed, "--version").stdout.strip() == f"dhp-gateway {__version__}"
    libraries = Path(f"{installed}{PREFIX}-{__version__}/lib")
    assert list(libraries.glob("python*/site-packages/aiohttp"))
    assert not list(libraries.glob("python*/site-packages/pip"))


def test_no_link_of_a_page_leads_out_of_the_archive(bundle: Path) -> None:
    """Pages and pictures are there; files of the sources are named only."""
    pages = list((bundle / "docs").glob("*.md"))
    links = {
        page.parent / link
        for page in pages
        for link in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", page.read_text("utf-8"))
    }
    assert len(links) > len(pages)
    assert [str(link) for link in sorted(links) if not link.exists()] == []


def test_it_speaks_the_readers_language(installed: Path) -> None:
    """The catalogues were packed; LANG decides, as everywhere."""
    done = gateway(installed, "check", LANG="ru_RU.UTF-8")
    assert (done.returncode, done.stdout[:18]) == (2, "нет файла настроек")


def test_the_compiled_gateway_is_taken_where_it_runs(installed: Path, bundle: Path) -> None:
    """Of both wheels pip takes the compiled one; on an older system than its own, the plain one."""
    libraries = Path(f"{installed}{PREFIX}-{__version__}/lib")
    assert list(libraries.glob("python*/site-packages/gateway/compiled.mark"))
    assert taken(bundle, "2_17").endswith(f"_{platform.machine()}.whl")
    assert taken(bundle, "2_99").endswith("-py3-none-any.whl")


def test_every_patch_release_gets_what_it_needs(bundle: Path, tmp_path: Path) -> None:
    """What only an older or newer patch release of this Python needs is packed, too."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    old, new = (f"python_full_version {one} '{minor}.50'" for one in ("<", ">="))
    markers = {"old": old, "new": new, "windows": "sys_platform == 'win32'"}
    lock = tmp_path / "lock"
    lock.write_text("".join(f"{name}==1 ; {marker}\n" for name, marker in markers.items()))
    script = tools.PROJECT / "deploy/offline/for_target.py"
    assert tools.output_of([sys.executable, script, lock]) == "old==1\nnew==1\n"
    lock = tools.PROJECT / "requirements.lock"
    wanted = re.findall(r"^([\w-]+)==", tools.output_of([sys.executable, script, lock]), re.M)
    packed = {each.name.partition("-")[0].lower() for each in (bundle / "wheels").iterdir()}
    assert packed - {"dhp_gateway"} == {name.replace("-", "_") for name in wanted}


def taken(bundle: Path, library: str) -> str:
    """Which wheel of the gateway pip would install if the compiled one needed that C library."""
    with tempfile.TemporaryDirectory() as folder:
        for wheel in (bundle / "wheels").glob("dhp_gateway-*.whl"):
            shutil.copy(wheel, Path(folder, wheel.name.replace("2_17", library)))
        (line,) = re.findall(r"^dhp-gateway==.*", (bundle / "requirements.lock").read_text(), re.M)
        wanted, report = Path(folder, "wanted"), Path(folder, "report")
        wanted.write_text(line)
        options = ["--dry-run", "--quiet", "--ignore-installed", "--no-index", "--no-deps"]
        command = [sys.executable, bundle / "pip", "--isolated", "install", *options]
        where = ["--find-links", folder, "--require-hashes", "--requirement", wanted]
        tools.output_of([*command, *where, "--report", report])
        (chosen,) = json.loads(report.read_text())["install"]
        return str(chosen["download_info"]["url"])


def test_the_settings_that_were_put_there_are_complete(installed: Path) -> None:
    """The settings of the service lack nothing but client id and secret, as `check` says."""
    told = gateway(installed, "check", "--config", "etc/dhp-gateway/gateway.yaml").stdout
    first, second = told.splitlines()
    assert first.startswith("credentials.default.client_id: is still the example's placeholder")
    assert second.startswith("credentials.default.client_secret_file: ")
    environ = {"DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID": "a"}
    told = gateway(installed, "check", "--config", "etc/dhp-gateway/gateway.yaml", **environ).stdout
    assert told.count("\n") <= 2
    assert "dhp_client_secret" in told


def test_the_command_can_be_typed(installed: Path) -> None:
    """A link on the path leads to the version in use."""
    link = installed / "usr/local/bin/dhp-gateway"
    assert link.readlink() == Path(PREFIX, "bin", "dhp-gateway")


def test_the_sandbox_names_settings_that_are_there(installed: Path) -> None:
    """Its line for a gateway names a file of this installation, not one of a checkout."""
    command = [f"{installed}{PREFIX}/bin/dhp-gateway", "sandbox", "--port", "0", "--platform-only"]
    with subprocess.Popen(command, cwd=installed, env={}, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        line = next(line for line in run.stdout if "dhp-gateway run" in line)
        run.terminate()
    file = Path(line.split(" --config ")[1].strip())
    assert file.is_relative_to(f"{installed}{PREFIX}-{__version__}")
    assert file.is_file()


@pytest.mark.parametrize("page", ["", ".ru", ".uz"])
def test_the_documentation_names_this_version(page: str) -> None:
    """Commands of the page can be copied: files and images in them are this version's."""
    text = (tools.PROJECT / f"docs/installation{page}.md").read_text("utf-8")
    assert set(re.findall(r"dhp-gateway[-:](\d+\.\d+\.\d+)", text)) == {__version__}


def test_the_secret_is_for_root_only(installed: Path) -> None:
    """Folder and file of the client secret are root's alone; the settings may be read."""
    etc = installed / "etc/dhp-gateway"
    modes = {path.name: path.stat().st_mode & 0o777 for path in etc.rglob("*")}
    assert modes == {"secrets": 0o700, "dhp_client_secret": 0o600, "gateway.yaml": 0o644}


@pytest.mark.parametrize("name", ["dhp-gateway.service", "dhp-gateway@.service"])
def test_the_unit_starts_what_was_installed(installed: Path, name: str) -> None:
    """The unit knows where the gateway lies, also when that is not the usual place."""
    unit = (installed / "etc/systemd/system" / name).read_text()
    assert f"ExecStart={PREFIX}/bin/dhp-gateway run" in unit
    assert "/opt/" not in unit
    assert (installed / "usr/lib/sysusers.d/dhp-gateway.conf").exists()


# Installs a command that does nothing.
NO_PIP = """
import pathlib, sys
command = pathlib.Path(sys.prefix, "bin/dhp-gateway")
command.write_text("#!/bin/sh\\n")
command.chmod(0o755)
"""


@pytest.fixture
def quick(bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose packages are not installed: what else the script does is the question."""
    copy = tmp_path / "quick"
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("wheels", "pip"))
    (copy / "pip").mkdir()
    (copy / "pip/__main__.py").write_text(NO_PIP)
    leave_out(copy, "./wheels/", "./pip/")
    return copy


def leave_out(bundle: Path, *beginnings: str) -> None:
    """Take files out of those whose sums are checked."""
    sums = bundle / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(each for each in lines if not each.split()[1].startswith(beginnings)))


def test_an_upgrade_changes_no_settings(quick: Path, tmp_path: Path) -> None:
    """Settings and secret stay as they are, and the link leads from the old version to the new."""
    etc, opt = tmp_path / "etc/dhp-gateway", tmp_path / "opt"
    (etc / "secrets").mkdir(parents=True)
    (opt / "dhp-gateway-0.0.1").mkdir(parents=True)
    (opt / "dhp-gateway").symlink_to("dhp-gateway-0.0.1")
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "usr/local/bin/dhp-gateway").symlink_to("/opt/dhp-gateway/bin/dhp-gateway")
    settings, secret = etc / "gateway.yaml", etc / "secrets/dhp_client_secret"
    settings.write_text("environment: production\n")
    secret.write_text("kept")
    done = install(quick, tmp_path, "--service")
    assert done.returncode == 0, done.stderr
    assert (settings.read_text(), secret.read_text()) == ("environment: production\n", "kept")
    assert (opt / "dhp-gateway").readlink() == Path(f"dhp-gateway-{__version__}")
    assert (opt / "dhp-gateway-0.0.1").exists()
    assert "Installed: /opt/dhp-gateway, with the command" in done.stdout


def test_a_python_that_the_service_cannot_see_is_refused(bundle: Path, tmp_path: Path) -> None:
    """An interpreter in a user's home is refused for the service before anything is changed."""
    kind = (bundle / "KIND").read_text().strip()
    python = tmp_path / "python3"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *base_prefix*) echo /root/.pyenv ;; *) echo {kind} ;; esac\n'
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["sh", bundle / "install.sh", "--service", "--python", python, "--prefix", tmp_path / "x"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, list(tmp_path.iterdir())) == (3, [python])
    assert "the service sees no home" in done.stderr


@pytest.mark.parametrize(
    ("language", "says"),
    [
        ("ru_RU.UTF-8", "install.sh не знает --more"),
        ("uz_UZ.UTF-8", "install.sh --more ni bilmaydi"),
    ],
)
def test_the_script_speaks_the_readers_language(language: str, says: str) -> None:
    """It follows LANG, as the gateway's commands do."""
    done = subprocess.run(
        ["sh", "deploy/offline/install.sh", "--more"],
        cwd=tools.PROJECT,
        env={"PATH": os.environ["PATH"], "LANG": language},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr[: len(says)]) == (3, says)


def test_nothing_is_put_over_what_is_no_version(bundle: Path, tmp_path: Path) -> None:
    """A folder of another origin at the prefix is not touched."""
    (tmp_path / "opt/dhp-gateway").mkdir(parents=True)
    done = install(bundle, tmp_path)
    assert done.returncode == 3
    assert "move it away" in done.stderr


def append(path: Path) -> None:
    """Changes a file."""
    with path.open("ab") as file:
        file.write(b"\n")


def other_wheel(bundle: Path) -> None:
    """Replace a wheel, and its entry in SHA256SUMS too."""
    wheel = next((bundle / "wheels").glob("aiohttp-*.whl"))
    append(wheel)
    sums = bundle / "SHA256SUMS"
    rest = [line for line in sums.read_text().splitlines() if wheel.name not in line]
    digest = tools.output_of(["sha256sum", wheel]).split()[0]
    sums.write_text("\n".join([*rest, f"{digest}  ./wheels/{wheel.name}", ""]))


def other_kind(bundle: Path) -> None:
    """An archive for another machine."""
    (bundle / "KIND").write_text("cp399-linux-vax\n")
    leave_out(bundle, "./KIND")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda bundle: append(bundle / "pip" / "__main__.py"), "not what was packed"),
        (lambda bundle: (bundle / "config/production.yaml").unlink(), "not what was packed"),
        (other_wheel, "DO NOT MATCH THE HASHES"),
        (other_kind, "cp399-linux-vax"),
    ],
    ids=["a changed file", "a missing file", "a wheel and its sum", "another machine's"],
)
def test_nothing_else_is_installed(change: Change, says: str, bundle: Path, tmp_path: Path) -> None:
    """An archive that was changed, is incomplete or is for another machine is refused."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    change(copy)
    done = install(copy, tmp_path / "root")
    assert done.returncode != 0
    assert says in done.stderr
    assert not (tmp_path / "root/opt/dhp-gateway").exists()
