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
from tests.environments import output_of, run

pytestmark = pytest.mark.ci

Change = Callable[[Path], None]
PREFIX = "/srv/health/gateway"


def compiled_twin(folder: Path) -> None:
    """A wheel as `make dist` compiles it for this Python, but with a mark in it, not machine code.

    For an old C library, so that it would run here.
    """
    line = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    output_of([*line, "--directory", folder / "pure"])
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
    """Run install.sh below another root, as root without a network."""
    alone = ["unshare", "--net"] if os.geteuid() == 0 else []
    line = [*alone, "sh", bundle / "install.sh", "--python", sys.executable, *options]
    return run(line, env={"PATH": os.environ["PATH"], "DESTDIR": str(root)})


@pytest.fixture(scope="module")
def installed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    done = install(bundle, root, "--service", "--prefix", PREFIX)
    assert done.returncode == 0, done.stderr
    return root


def gateway(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = f"{root}{PREFIX}/bin/dhp-gateway"
    return run([command, *arguments], folder=root, env=environ)


def test_installs_without_a_network(installed: Path) -> None:
    assert gateway(installed, "--version").stdout.strip() == f"dhp-gateway {__version__}"
    libraries = Path(f"{installed}{PREFIX}-{__version__}/lib")
    assert list(libraries.glob("python*/site-packages/aiohttp"))
    assert not list(libraries.glob("python*/site-packages/pip"))


def test_links_of_the_pages_resolve_in_the_archive(bundle: Path) -> None:
    pages = list((bundle / "docs").glob("*.md"))
    links = {
        page.parent / link
        for page in pages
        for link in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", page.read_text("utf-8"))
    }
    assert len(links) > len(pages)
    assert [str(link) for link in sorted(links) if not link.exists()] == []


def test_catalogues_are_installed(installed: Path) -> None:
    done = gateway(installed, "check", LANG="ru_RU.UTF-8")
    assert (done.returncode, done.stdout[:18]) == (2, "нет файла настроек")


def test_the_compiled_wheel_is_installed_where_it_runs(installed: Path, bundle: Path) -> None:
    libraries = Path(f"{installed}{PREFIX}-{__version__}/lib")
    assert list(libraries.glob("python*/site-packages/gateway/compiled.mark"))
    assert chosen_wheel(bundle, "2_17").endswith(f"_{platform.machine()}.whl")
    assert chosen_wheel(bundle, "2_99").endswith("-py3-none-any.whl")


def test_wheels_of_every_patch_release_are_packed(bundle: Path, tmp_path: Path) -> None:
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    old, new = (f"python_full_version {one} '{minor}.50'" for one in ("<", ">="))
    markers = {"old": old, "new": new, "windows": "sys_platform == 'win32'"}
    lock = tmp_path / "lock"
    lock.write_text("".join(f"{name}==1 ; {marker}\n" for name, marker in markers.items()))
    script = tools.PROJECT / "deploy/offline/for_target.py"
    assert output_of([sys.executable, script, lock]) == "old==1\nnew==1\n"
    lock = tools.PROJECT / "requirements.lock"
    wanted = re.findall(r"^([\w-]+)==", output_of([sys.executable, script, lock]), re.M)
    packed = {each.name.partition("-")[0].lower() for each in (bundle / "wheels").iterdir()}
    assert packed - {"dhp_gateway"} == {name.replace("-", "_") for name in wanted}


def chosen_wheel(bundle: Path, library: str) -> str:
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
        output_of([*command, *where, "--report", report])
        (chosen,) = json.loads(report.read_text())["install"]
        return str(chosen["download_info"]["url"])


def test_the_installed_settings_lack_client_id_and_secret_only(installed: Path) -> None:
    told = gateway(installed, "check", "--config", "etc/dhp-gateway/gateway.yaml").stdout
    first, second = told.splitlines()
    assert first.startswith("credentials.default.client_id: is still the example's placeholder")
    assert second.startswith("credentials.default.client_secret_file: ")
    environ = {"DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID": "a"}
    told = gateway(installed, "check", "--config", "etc/dhp-gateway/gateway.yaml", **environ).stdout
    assert told.count("\n") <= 2
    assert "dhp_client_secret" in told


def test_the_command_is_on_the_path(installed: Path) -> None:
    link = installed / "usr/local/bin/dhp-gateway"
    assert link.readlink() == Path(PREFIX, "bin", "dhp-gateway")


def test_the_sandbox_names_installed_settings(installed: Path) -> None:
    command = [f"{installed}{PREFIX}/bin/dhp-gateway", "sandbox", "--port", "0", "--platform-only"]
    with subprocess.Popen(
        command, cwd=installed, env={}, stdout=subprocess.PIPE, text=True
    ) as sandbox:
        assert sandbox.stdout is not None
        line = next(line for line in sandbox.stdout if "dhp-gateway run" in line)
        sandbox.terminate()
    file = Path(line.split(" --config ")[1].strip())
    assert file.is_relative_to(f"{installed}{PREFIX}-{__version__}")
    assert file.is_file()


def test_the_secret_is_readable_by_root_only(installed: Path) -> None:
    etc = installed / "etc/dhp-gateway"
    modes = {path.name: path.stat().st_mode & 0o777 for path in etc.rglob("*")}
    assert modes == {"secrets": 0o700, "dhp_client_secret": 0o600, "gateway.yaml": 0o644}


@pytest.mark.parametrize("name", ["dhp-gateway.service", "dhp-gateway@.service"])
def test_the_unit_starts_what_was_installed(installed: Path, name: str) -> None:
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
def quick_bundle(bundle: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "quick_bundle"
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("wheels", "pip"))
    (copy / "pip").mkdir()
    (copy / "pip/__main__.py").write_text(NO_PIP)
    remove_sums(copy, "./wheels/", "./pip/")
    return copy


def remove_sums(bundle: Path, *beginnings: str) -> None:
    sums = bundle / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(each for each in lines if not each.split()[1].startswith(beginnings)))


def test_an_upgrade_keeps_settings_and_secret(quick_bundle: Path, tmp_path: Path) -> None:
    etc, opt = tmp_path / "etc/dhp-gateway", tmp_path / "opt"
    (etc / "secrets").mkdir(parents=True)
    (opt / "dhp-gateway-0.0.1").mkdir(parents=True)
    (opt / "dhp-gateway").symlink_to("dhp-gateway-0.0.1")
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "usr/local/bin/dhp-gateway").symlink_to("/opt/dhp-gateway/bin/dhp-gateway")
    settings, secret = etc / "gateway.yaml", etc / "secrets/dhp_client_secret"
    settings.write_text("environment: production\n")
    secret.write_text("kept")
    done = install(quick_bundle, tmp_path, "--service")
    assert done.returncode == 0, done.stderr
    assert (settings.read_text(), secret.read_text()) == ("environment: production\n", "kept")
    assert (opt / "dhp-gateway").readlink() == Path(f"dhp-gateway-{__version__}")
    assert (opt / "dhp-gateway-0.0.1").exists()
    assert "Installed: /opt/dhp-gateway, with the command" in done.stdout


def test_a_python_in_a_home_directory_is_rejected(bundle: Path, tmp_path: Path) -> None:
    kind = (bundle / "KIND").read_text().strip()
    python = tmp_path / "python3"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *base_prefix*) echo /root/.pyenv ;; *) echo {kind} ;; esac\n'
    )
    python.chmod(0o755)
    line = ["sh", bundle / "install.sh", "--service", "--python", python]
    done = run([*line, "--prefix", tmp_path / "x"], env={"PATH": os.environ["PATH"]})
    assert (done.returncode, list(tmp_path.iterdir())) == (3, [python])
    assert "the service sees no home" in done.stderr


@pytest.mark.parametrize(
    ("language", "says"),
    [
        ("ru_RU.UTF-8", "install.sh не знает --more"),
        ("uz_UZ.UTF-8", "install.sh --more ni bilmaydi"),
    ],
)
def test_the_script_is_translated(language: str, says: str) -> None:
    line = ["sh", "deploy/offline/install.sh", "--more"]
    done = run(line, env={"PATH": os.environ["PATH"], "LANG": language})
    assert (done.returncode, done.stderr[: len(says)]) == (3, says)


def test_a_foreign_folder_at_the_prefix_is_not_changed(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "opt/dhp-gateway").mkdir(parents=True)
    done = install(bundle, tmp_path)
    assert done.returncode == 3
    assert "move it away" in done.stderr


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


def other_wheel(bundle: Path) -> None:
    wheel = next((bundle / "wheels").glob("aiohttp-*.whl"))
    append(wheel)
    sums = bundle / "SHA256SUMS"
    rest = [line for line in sums.read_text().splitlines() if wheel.name not in line]
    digest = output_of(["sha256sum", wheel]).split()[0]
    sums.write_text("\n".join([*rest, f"{digest}  ./wheels/{wheel.name}", ""]))


def other_kind(bundle: Path) -> None:
    """An archive for another machine."""
    (bundle / "KIND").write_text("cp399-linux-vax\n")
    remove_sums(bundle, "./KIND")


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
def test_a_modified_archive_is_rejected(
    change: Change, says: str, bundle: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    change(copy)
    done = install(copy, tmp_path / "root")
    assert done.returncode != 0
    assert says in done.stderr
    assert not (tmp_path / "root/opt/dhp-gateway").exists()
