"""What the actions of the workflow do on GitHub, done here as far as that is possible.

Each returns a note for the summary. One without an equivalent here is an error.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = "application/vnd.in-toto+json"
PROVENANCE = "https://slsa.dev/provenance/v1"
BILL = "https://cyclonedx.org/bom"
UPLOADED: set[Path] = set()


class StepError(Exception):
    """A step failed; the text says why."""


@dataclass
class Place:
    """Where a job works, and where jobs leave things for each other."""

    folder: Path
    artifacts: Path
    attestations: Path
    commit: str
    inputs: dict[str, str]
    interpreters: dict[str, str]
    python: Path | None = None

    def take(self, name: str, default: str | None = None) -> str:
        """Return an input once; without it and a default, the step fails."""
        value = self.inputs.pop(name, default)
        if value is None:
            raise StepError(f"`with` has no {name}")
        return value


def checkout(place: Place) -> str:
    place.take("persist-credentials")
    git = ["git", "-C", str(place.folder)]
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place.folder)], check=True)
    subprocess.run([*git, "checkout", "--quiet", "--detach", place.commit], check=True)
    return f"a clone of this checkout at {place.commit[:12]}"


def setup_python(place: Place) -> str:
    wanted = place.take("python-version")
    interpreter = place.interpreters.get(wanted) or next(iter(place.interpreters.values()))
    place.python = place.folder.with_name(f"{place.folder.name}-python")
    subprocess.run([interpreter, "-m", "venv", str(place.python)], check=True)
    return f"an environment of {interpreter}"


def upload(place: Place) -> str:
    place.take("if-no-files-found")
    source = place.folder / place.take("path")
    files = [each for each in source.iterdir() if each.is_file()] if source.is_dir() else []
    if not files:
        raise StepError(f"nothing in {source.name}/")
    target = place.artifacts / place.take("name")
    if target in UPLOADED:
        raise StepError(f"two jobs made {target.name}")
    UPLOADED.add(target)
    # What an earlier rehearsal has left.
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for each in files:
        shutil.copy2(each, target)
    return f"{len(files)} files kept beside the jobs"


def download(place: Place) -> str:
    pattern = place.inputs.pop("pattern", None) or place.take("name")
    place.take("merge-multiple", "false")
    target = place.folder / place.take("path")
    target.mkdir(exist_ok=True)
    found = [each for each in place.artifacts.iterdir() if fnmatch.fnmatch(each.name, pattern)]
    if not found:
        raise StepError(f"no artifact is called {pattern}")
    files = [file for each in found for file in each.iterdir()]
    for each in files:
        if (target / each.name).exists():
            raise StepError(f"two jobs made {each.name}")
        shutil.copy2(each, target)
    return f"{len(files)} files of {len(found)} jobs"


def attest(place: Place) -> str:
    """Sign what GitHub would, with a key that is thrown away: subjects and form are the same."""
    place.take("push-to-registry", "false")
    place.take("create-storage-record", "true")
    subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in _subjects(place)]
    bill = place.inputs.pop("sbom-path", None)
    predicate = json.loads((place.folder / bill).read_text()) if bill else _provenance(place.commit)
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": BILL if bill else PROVENANCE,
        "predicate": predicate,
    }
    place.attestations.mkdir(exist_ok=True)
    file = place.attestations / f"{len(list(place.attestations.iterdir()))}.intoto.jsonl"
    file.write_text(json.dumps(_signed(statement)) + "\n")
    return f"{len(subjects)} subjects, signed by a throw-away key instead of GitHub's"


def _subjects(place: Place) -> list[tuple[str, str]]:
    if name := place.inputs.pop("subject-name", None):
        algorithm, _, digest = place.take("subject-digest").partition(":")
        if algorithm != "sha256" or len(digest) != 64:
            raise StepError("subject-digest is none")
        return [(name, digest)]
    found = []
    for pattern in place.take("subject-path").split():
        files = sorted(place.folder.glob(pattern))
        if not files:
            raise StepError(f"no file is {pattern}")
        found += [(each.name, hashlib.sha256(each.read_bytes()).hexdigest()) for each in files]
    return found


def _provenance(commit: str) -> dict[str, object]:
    sources = [{"uri": "git+file:this-checkout", "digest": {"gitCommit": commit}}]
    definition = {"buildType": "urn:dhp-gateway:rehearsal", "resolvedDependencies": sources}
    return {"buildDefinition": definition, "runDetails": {"builder": {"id": platform.machine()}}}


def _signed(statement: object) -> dict[str, object]:
    """Return a DSSE envelope, whose signature has been verified."""
    payload = json.dumps(statement).encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)
    key = Ed25519PrivateKey.generate()
    signature = key.sign(signed)
    key.public_key().verify(signature, signed)
    signatures = [{"sig": base64.b64encode(signature).decode()}]
    encoded = base64.b64encode(payload).decode()
    return {"payloadType": PAYLOAD, "payload": encoded, "signatures": signatures}


ACTIONS: dict[str, Callable[[Place], str]] = {
    "actions/checkout": checkout,
    "actions/setup-python": setup_python,
    "actions/upload-artifact": upload,
    "actions/download-artifact": download,
    "actions/attest": attest,
}
