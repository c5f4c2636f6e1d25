"""The answers of `dhp-gateway init`, the files that follow from them, and writing these files.

There are three kinds of installations: a server with the systemd unit (`system`), a folder beside a
container (`container`), any other folder (`folder`). Paths in the settings are those that the
gateway sees. A plan writes nothing; `write_files` writes all planned files or none, without
overwriting any.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Literal

from gateway import __version__, os_support
from gateway.cli.terminal import translate
from gateway.config.problems import InvalidValueError, SettingPath
from gateway.config.section import is_placeholder
from gateway.config.sources import parse_yaml, variable_name
from gateway.config.text_files import decode
from gateway.i18n import EMPTY_MESSAGE, Message, join_messages, system_error
from gateway.secret import Secret

Where = Literal["machine", "container", "network"]
Kind = Literal["system", "container", "folder"]
YamlLine = tuple[int, str, Message]

CALLER: Final = "his"
# The folders that the image and the unit may write, and the folder of the container's settings.
_LOGS: Final = PurePath("/var/log/dhp-gateway")
_STATE: Final = PurePath("/var/lib/dhp-gateway")
_MOUNTED: Final = PurePath("/etc/dhp-gateway")


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file with one secret: the setting that names it, its path below the folder, its text.

    `for_service`: the gateway's user reads the file; otherwise systemd reads it, or the user who
    runs the gateway.
    """

    setting: SettingPath
    path: PurePath
    text: Secret
    for_service: bool = False


@dataclass(frozen=True, slots=True)
class InitPlan:
    """All answers.

    `client_secret_or_key` is the client's secret or key; `networks` are those of the callers.
    `urls` are those of the platform and the token endpoint, where the environment does not define
    them.
    """

    environment: str
    urls: tuple[str, str] | None
    client_id: str
    client_secret_or_key: Secret
    uses_private_key: bool
    caller_location: Where
    networks: tuple[str, ...]
    audit: Literal["file", "stdout"]
    kind: Kind
    directory: Path
    container: str
    api_key: Secret
    outbox_key: Secret | None

    def secret_files(self) -> Iterator[SecretFile]:
        """Yield the secret files; the client's secret or key is the first."""
        name = "private_key" if self.uses_private_key else "client_secret"
        file = PurePath("secrets", f"dhp_{name}")
        yield SecretFile(
            ("credentials", "default", f"{name}_file"), file, self.client_secret_or_key
        )
        # The folder of the unit's secrets is not readable for the gateway's user.
        folder = PurePath() if self.kind == "system" else PurePath("secrets")
        if self.caller_location == "network":
            path = folder / f"{CALLER}_api_key"
            yield SecretFile(("callers", 0, "api_key_file"), path, self.api_key, True)
        if self.outbox_key is not None:
            path = folder / "outbox_key"
            yield SecretFile(("outbox", "encryption_key_file"), path, self.outbox_key, True)

    def path_in_service(self, path: PurePath) -> PurePath:
        """Return the path of a file of the folder, as the gateway sees it."""
        return (_MOUNTED if self.kind == "container" else self.directory) / path

    def local_variables(self) -> Mapping[str, str]:
        """Return the variables for commands outside the container, with its files' paths there."""
        if self.kind != "container":
            return {}
        files = {file.setting: str(self.directory / file.path) for file in self.secret_files()}
        if self.audit == "file":
            files["audit", "path"] = str(self.directory / "audit" / "audit.jsonl")
        if self.outbox_key is not None:
            files["outbox", "url"] = f"sqlite:///{self.directory / 'outbox' / 'outbox.db'}"
        return {variable_name(setting): path for setting, path in files.items()}


def settings_lines(plan: InitPlan) -> Iterator[YamlLine]:
    """Yield the lines of the settings file: depth, text and comment."""
    yield (
        0,
        f"environment: {plan.environment}",
        Message("which platform; begin with dhp-playground"),
    )
    if plan.urls is not None:
        fhir_base_url, token_url = map(_quoted, plan.urls)
        yield 0, "platform:", Message("the FHIR server behind the gateway")
        yield 1, f"fhir_base_url: {fhir_base_url}", Message("its address")
        yield 0, "sso:", Message("where the gateway gets its token")
        yield 1, f"token_url: {token_url}", Message("the address of the token endpoint")
    yield from _listener_lines(plan)
    yield 0, "credentials:", Message("the gateway's credentials, issued for the platform")
    yield 1, "default:", Message("used for all callers that name no other")
    yield 2, f"client_id: {_quoted(plan.client_id)}", Message("as it was issued to you")
    if plan.uses_private_key:
        yield (
            2,
            "auth_method: private_key_jwt",
            Message("the gateway signs, instead of sending a secret"),
        )
    client_file, *other_files = plan.secret_files()
    meaning = Message("a file with only the private key; restrict access to it")
    secret = Message("a file with only the client secret; restrict access to it")
    path = _quoted(str(plan.path_in_service(client_file.path)))
    yield 2, f"{client_file.setting[-1]}: {path}", meaning if plan.uses_private_key else secret
    yield from _audit_lines(plan)
    if plan.outbox_key is not None:
        yield 0, "outbox:", Message("stores writes while there is no connection")
        yield 1, "enabled: true", Message("only for callers that ask for it, see docs/outbox.md")
        database = (plan.directory if plan.kind == "folder" else _STATE) / "outbox.db"
        yield 1, f"url: {_quoted(f'sqlite:///{database}')}", Message("where they are stored")
        path = _quoted(str(plan.path_in_service(other_files[-1].path)))
        yield 1, f"encryption_key_file: {path}", Message("without this key they cannot be read")


def _listener_lines(plan: InitPlan) -> Iterator[YamlLine]:
    yield 0, "listen:", Message("where your systems reach the gateway")
    if plan.caller_location == "network":
        yield 1, "address: 0.0.0.0:8080", Message("every address of this machine, see callers")
    else:
        yield (
            1,
            "address: 127.0.0.1:8080",
            Message("reachable from this machine or container only"),
        )
    yield 0, "admin:", Message("for operators")
    yield 1, "address: 127.0.0.1:9464", Message("health, metrics, and the page /status")
    if plan.caller_location == "network":
        _, key, *_ = plan.secret_files()
        yield 0, "callers:", Message("the systems that may call; all others are refused")
        yield 1, f"- name: {CALLER}", Message("its name in log and audit")
        networks = ", ".join(map(_quoted, plan.networks))
        yield 2, f"networks: [{networks}]", Message("the addresses it calls from")
        path = _quoted(str(plan.path_in_service(key.path)))
        yield 2, f"api_key_file: {path}", Message("what it sends in the header X-Api-Key")


def _audit_lines(plan: InitPlan) -> Iterator[YamlLine]:
    yield 0, "audit:", Message("a record of each request; ids of patients in it are patient data")
    if plan.audit == "stdout":
        yield 1, "sink: stdout", Message("to standard output; collect and store it")
        return
    yield 1, "sink: file", Message("to a file, in which changed lines can be detected")
    path = (plan.directory if plan.kind == "folder" else _LOGS) / "audit.jsonl"
    yield 1, f"path: {_quoted(str(path))}", Message("check it with `dhp-gateway audit verify`")


def compose_lines(plan: InitPlan, user: str) -> Iterator[YamlLine]:
    """Yield the lines of a Compose file: the gateway in the network of the calling container."""
    yield 0, "services:", EMPTY_MESSAGE
    yield 1, "gateway:", Message("only that container can reach it")
    yield 2, f"image: dhp-gateway:{__version__}", Message("built by `make image`, or loaded")
    yield 2, f"network_mode: {_quoted(f'container:{plan.container}')}", Message("your system's")
    yield 2, f"user: {_quoted(user)}", Message("owns the files in this folder")
    yield 2, "read_only: true", Message("it writes nowhere else")
    yield 2, "restart: unless-stopped", Message("also after a reboot")
    yield 2, "volumes:", EMPTY_MESSAGE
    yield 3, "- .:/etc/dhp-gateway:ro", Message("settings and secrets")
    if plan.audit == "file":
        yield 3, f"- ./audit:{_LOGS}", Message("the audit")
    if plan.outbox_key is not None:
        yield 3, f"- ./outbox:{_STATE}", Message("the outbox")


def _quoted(text: str) -> str:
    """Return the text as a quoted YAML string."""
    return json.dumps(text, ensure_ascii=False)


# User and group of the container image.
_IMAGE_USER: Final = 10001
_SERVICE_USER: Final = "dhp-gateway"
Ids = tuple[int, int]


class InitWriteError(Exception):
    """Nothing was written. The message has a line for each reason."""


@dataclass(frozen=True, slots=True)
class _PlannedFile:
    path: Path
    text: str
    mode: int
    owner: Ids | None = None


def yaml_text(lines: Iterable[YamlLine]) -> str:
    """Return the text of a file, with translated comments."""
    text = ""
    for depth, line, meaning in lines:
        # The keys of a list item have the indentation of the item's first key.
        text += "  " * depth + line + (f"  # {translate(meaning)}" if meaning else "") + "\n"
    return text


def write_files(plan: InitPlan) -> list[Path]:
    """Write all files and return their paths. Raises `InitWriteError`; then nothing is written."""
    files = list(_planned_files(plan))
    require_absent(file.path for file in files)
    with contextlib.ExitStack() as undo:
        try:
            for folder, mode, owner in _folders(plan):
                _make_folder(folder, mode, owner, undo)
            for file in files:
                _write_file(file, undo)
        except OSError as error:
            why = system_error(error, Message("cannot be written"))
            raise InitWriteError(Message("{path}: {why}", path=error.filename, why=why)) from None
        undo.pop_all()
    return [file.path for file in files]


def require_absent(paths: Iterable[Path]) -> None:
    """Raise `InitWriteError` with a line for each file that exists and was filled in."""
    taken = [path for path in paths if not _may_be_written(path)]
    if taken:
        reason = Message("exists already, and nothing was changed; move it away first")
        lines = (Message("{path}: {why}", path=path, why=reason) for path in taken)
        raise InitWriteError(join_messages("\n", lines))


def _planned_files(plan: InitPlan) -> Iterator[_PlannedFile]:
    for secret_file in plan.secret_files():
        owner = _owner(plan.kind, for_service=secret_file.for_service)
        mode = 0o600 if owner is None or not secret_file.for_service else 0o400
        yield _PlannedFile(
            plan.directory / secret_file.path, f"{secret_file.text.reveal()}\n", mode, owner
        )
    if plan.kind == "container":
        user = _owner(plan.kind, for_service=True) or (os.getuid(), os.getgid())
        text = yaml_text(compose_lines(plan, f"{user[0]}:{user[1]}"))
        yield _PlannedFile(plan.directory / "compose.yaml", text, 0o644)
    # Last: where the settings file exists, all other files exist too.
    yield _PlannedFile(plan.directory / "gateway.yaml", yaml_text(settings_lines(plan)), 0o644)


def _folders(plan: InitPlan) -> Iterator[tuple[Path, int, Ids | None]]:
    yield plan.directory, 0o755, None
    owner = _owner(plan.kind, for_service=True) if plan.kind == "container" else None
    yield plan.directory / "secrets", 0o700, owner
    if plan.kind == "container" and plan.audit == "file":
        yield plan.directory / "audit", 0o750, owner
    if plan.kind == "container" and plan.outbox_key is not None:
        yield plan.directory / "outbox", 0o700, owner


def _owner(kind: Kind, *, for_service: bool) -> Ids | None:
    """Return the owner of a secret file, None for the user who runs the command."""
    if not os_support.HAS_FILE_MODES or os.geteuid() != 0:
        return None
    if kind == "container":
        return _IMAGE_USER, _IMAGE_USER
    if kind != "system" or not for_service:
        return None
    import pwd

    try:
        account = pwd.getpwnam(_SERVICE_USER)
    except KeyError:
        return None
    return account.pw_uid, account.pw_gid


def _may_be_written(path: Path) -> bool:
    """Return whether the path is free or holds an empty file or an unchanged template.

    An installation creates such files to be filled in.
    """
    try:
        return not os.path.lexists(path) or path.stat().st_size == 0 or _is_template(path)
    except OSError:
        return False


def _is_template(path: Path) -> bool:
    if path.name != "gateway.yaml" or os.path.lexists(_aside(path)):
        return False
    try:
        values = parse_yaml(decode(path.read_bytes()), path.name).values
        client_id = values["credentials"]["default"]["client_id"]
    except (OSError, InvalidValueError, LookupError, TypeError):
        return False
    return isinstance(client_id, str) and is_placeholder(client_id)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.example")


def _make_folder(folder: Path, mode: int, owner: Ids | None, undo: contextlib.ExitStack) -> None:
    if folder.is_dir():
        return
    folder.mkdir(mode=mode, parents=folder.name not in ("secrets", "audit", "outbox"))
    undo.callback(folder.rmdir)
    if owner is not None:
        os.chown(folder, *owner)


def _write_file(planned: _PlannedFile, undo: contextlib.ExitStack) -> None:
    path = planned.path
    if _is_template(path):
        path.rename(_aside(path))
        undo.callback(_aside(path).rename, path)
    elif path.exists():
        path.unlink()
        undo.callback(path.touch, planned.mode)
    # No other user can read it at any moment, not even while it is empty.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    undo.callback(path.unlink)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(planned.text)
    if planned.owner is not None:
        os.chown(path, *planned.owner)
    path.chmod(planned.mode)
