"""What the product is made of, and what is known about that: `audit`, `licences`, `sbom`.

Run by make with the interpreter of .venv-tools. What is looked at are the lock files and, for
licences and for who needs whom, the packages of .venv.
"""

# ruff: noqa: T201, S603 - a command that prints, and runs programs of its own environment

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RUNTIME: Final = ROOT / "requirements.lock"
LOCKS: Final = (
    "requirements.lock",
    "requirements-dev.lock",
    "benchmarks/requirements.lock",
    "docs/requirements.lock",
    ".ci/tools.lock",
)
# Where known vulnerabilities are asked for, in turn.
SERVICES: Final = ("pypi", "osv")
# Terms under which the gateway may be handed on with its dependencies. MPL-2.0 asks for the source
# of its own files only, which the package index keeps.
PERMISSIVE: Final = (
    *("MIT", "MIT-0", "MIT License", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "0BSD"),
    "3-Clause BSD License",  # how protobuf writes BSD-3-Clause
    *("Apache-2.0", "Apache 2.0", "Apache Software License", "ISC", "ISC License"),
    *("PSF-2.0", "Python Software Foundation License", "Unlicense", "Zlib"),
    *("MPL-2.0", "Mozilla Public License 2.0"),
)


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment, in the project's folder."""
    command = [str(Path(sys.executable).parent / name), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def normal(name: str) -> str:
    """A package's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and SHA-256 sums of every package of a lock file, by name."""
    found: dict[str, tuple[str, list[str]]] = {}
    for entry in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8")):
        if named := re.match(r"([\w.-]+)==([^\s;\\]+)", entry):
            sums = re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
            found[normal(named[1])] = (named[2], sums)
    return found


# --- audit ---


def audit(_into: Path) -> int:
    """Known vulnerabilities of dependencies, suspicious code. 1: found some, 2: could not ask."""
    code = tool("bandit", "--quiet", "--recursive", "gateway", "-c", "pyproject.toml")
    print(code.stdout if code.returncode in {0, 1} else code.stderr, end="")
    print(f"bandit: {'nothing found' if code.returncode == 0 else 'see above'} in gateway/")
    verdicts = [_ask(lock) for lock in LOCKS if (ROOT / lock).exists()]
    worst = max(verdicts) if 1 not in verdicts else 1
    if worst == 2:
        print("NOT CHECKED: no database of vulnerabilities answers here. Run this with a network.")
    return 1 if code.returncode else worst


def _ask(lock: str) -> int:
    told = ""
    for service in SERVICES:
        asked = tool(
            *("pip-audit", "--disable-pip", "--require-hashes", "--requirement", lock),
            *("--format", "json", "--progress-spinner", "off", "--timeout", "10"),
            *("--vulnerability-service", service),
        )
        try:
            code, told = judge(lock, json.loads(asked.stdout))
        except ValueError:
            last = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
            code, told = 2, f"{lock}: not checked ({service}: {last[:120]})"
        if code != 2:
            break
    print(told)
    return code


def judge(lock: str, report: Mapping[str, Any]) -> tuple[int, str]:
    """What a report of pip-audit comes to: 0, 1: vulnerabilities, 2: something was not checked."""
    packages = report["dependencies"]
    bad = [
        f"{each['name']} {each['version']}: {known['id']}"
        f" (mended in {', '.join(known['fix_versions']) or 'no version yet'})"
        for each in packages
        for known in each.get("vulns", ())
    ]
    missing = [each["name"] for each in packages if "skip_reason" in each]
    if bad:
        return 1, "\n".join((f"{lock}: {len(bad)} known vulnerabilities", *bad))
    if missing or not packages:
        return 2, f"{lock}: {len(missing)} of {len(packages)} packages not checked"
    return 0, f"{lock}: {len(packages)} packages, no known vulnerability"


# --- licences ---


def licences(into: Path) -> int:
    """Write licences.md. 1: a licence that is not on the list, or none."""
    listed = _licences()
    rows = [f"| {each['Name']} | {each['Version']} | {each['License']} |" for each in listed]
    head = ("# Licences of what the gateway needs", "", "| package | version | licence |")
    text = "\n".join((*head, "| --- | --- | --- |", *rows, ""))
    (into / "licences.md").write_text(text, encoding="utf-8")
    wrong = [each for each in listed if not allowed(each["License"])]
    for each in wrong:
        print(f"{each['Name']}: {each['License']}: not among those that are allowed")
    print(f"{into.name}/licences.md: {len(listed)} packages")
    return 1 if wrong else 0


def _licences() -> list[dict[str, str]]:
    """What the installed packages of the runtime lock say of themselves."""
    asked = tool(
        *("pip-licenses", "--python", ".venv/bin/python", "--from", "mixed", "--format", "json"),
        *("--packages", *locked(RUNTIME)),
    )
    found: list[dict[str, str]] = json.loads(asked.stdout)
    return sorted(found, key=lambda each: normal(each["Name"]))


def allowed(licence: str) -> bool:
    """Whether an SPDX expression, or the names of trove classifiers, leave a permitted choice."""
    return all(
        any(part.strip() in PERMISSIVE for part in re.split(r"\bOR\b", term.strip(" ()")))
        for term in re.split(r"\bAND\b|;", licence.replace(" (ISCL)", "").replace(" (MPL 2.0)", ""))
    )


# --- SBOM ---


def sbom(into: Path) -> int:
    """Write sbom.cdx.json, a CycloneDX document of the runtime lock with sums and licences."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    document = _document()
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    with warnings.catch_warnings(action="ignore"):
        wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        print(f"the document would be invalid: {wrong}")
        return 1
    (into / "sbom.cdx.json").write_text(text, encoding="utf-8")
    print(f"{into.name}/sbom.cdx.json: {len(document['components'])} components")
    return 0


def _document() -> dict[str, Any]:
    """The environment's own document, with just what the lock names, and its sums."""
    asked = tool(
        *("cyclonedx-py", "environment", "--pyproject", "pyproject.toml", "--no-validate"),
        *("--output-reproducible", "--spec-version", "1.6", ".venv/bin/python"),
    )
    document: dict[str, Any] = json.loads(asked.stdout)
    document["metadata"]["component"]["version"] = _version()
    lock = locked(RUNTIME)
    installed = {normal(each["name"]): each for each in document["components"]}
    document["components"] = [
        _component(installed.get(name, {"name": name, "type": "library"}), *pinned)
        for name, pinned in sorted(lock.items())
    ]
    references = {normal(each["name"]): each["bom-ref"] for each in document["components"]}
    document["dependencies"] = list(_needs(document, set(references.values())))
    return document


def _component(found: Mapping[str, Any], version: str, sums: Iterable[str]) -> dict[str, Any]:
    purl = f"pkg:pypi/{normal(found['name'])}@{version}"
    files = {
        "type": "distribution",
        "comment": "sums of the files that the lock permits",
        "url": purl,
        "hashes": [{"alg": "SHA-256", "content": each} for each in sums],
    }
    kept = {key: found[key] for key in ("name", "type", "description", "licenses") if key in found}
    reference = found.get("bom-ref", purl)
    return kept | {
        "bom-ref": reference,
        "version": version,
        "purl": purl,
        "externalReferences": [files],
    }


def _needs(document: Mapping[str, Any], known: set[str]) -> Iterable[dict[str, Any]]:
    known = known | {document["metadata"]["component"]["bom-ref"]}
    for each in document["dependencies"]:
        if each["ref"] in known:
            needed = [other for other in each.get("dependsOn", ()) if other in known]
            yield {"ref": each["ref"]} | ({"dependsOn": needed} if needed else {})


def _version() -> str:
    text = (ROOT / "gateway" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'__version__ = "([^"]+)"', text)
    return found[1] if found else "0"


def main(arguments: list[str]) -> int:
    """Do what is named, into a folder (`--into FOLDER` first); the worst exit code counts."""
    into = ROOT / "dist"
    if arguments[:1] == ["--into"]:
        into, arguments = Path(arguments[1]), arguments[2:]
    into.mkdir(exist_ok=True)
    commands = {"audit": audit, "licences": licences, "sbom": sbom}
    return max([commands[each](into) for each in arguments], default=2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
