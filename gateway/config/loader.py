"""Loads a file and the environment into checked settings, or reports every problem at once.

The file is the named one, else the first one found; environment variables override it. A named file
is used even if it does not exist; an existing file that cannot be read is never skipped.

`load_admin_address` reads the one setting that a health check needs, in spite of problems with
other settings. A gateway keeps its old settings while the file on disk is broken, and a shell
beside it may lack the variables that it was started with: neither makes it unhealthy.

    Exception
     └─ SettingsError     the settings cannot be used; it holds every reason
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from gateway import os_support
from gateway.config import setting_rules, settings_schema
from gateway.config.inbound_settings import AdminSettings
from gateway.config.problems import (
    Problem,
    RuleViolation,
    SettingPath,
    closest_key,
    describe_error,
    did_you_mean,
    dotted,
)
from gateway.config.setting_rules import find_violations
from gateway.config.settings import Settings
from gateway.config.sources import (
    CONFIG_VARIABLE,
    MAX_FILE_BYTES,
    EnvironmentValues,
    YamlDocument,
    has_settings,
    merge,
    parse_yaml,
    read_environment,
    read_yaml,
)
from gateway.config.text_files import TextDecodingError, decode, read_bytes
from gateway.config.value_types import InvalidValueError, ListenAddress, parse_address
from gateway.i18n import Message, any_of


class SettingsError(Exception):
    """The settings cannot be used; `problems` holds every reason.

    `partial_settings` are settings without the wrong values, for checking only; None where there
    are none.
    """

    def __init__(
        self, problems: Iterable[Problem], partial_settings: Settings | None = None
    ) -> None:
        self.problems = tuple(problems)
        self.partial_settings = partial_settings
        super().__init__("\n".join(map(str, self.problems)))


# The group `admin` alone, for files with invalid YAML elsewhere.
_GROUP: Final = re.compile(r"^admin[ \t]*:.*(?:\n(?:[ \t].*|#.*|[ \t]*))*", re.MULTILINE)


def load_admin_address(path: Path | None, environ: Mapping[str, str]) -> ListenAddress:
    """Return `admin.address` of the environment, else of the file, else the default.

    Never raises.
    """
    for values in _sources(path, environ):
        group = values.get("admin")
        try:
            return parse_address(group.get("address") if isinstance(group, dict) else None)
        except InvalidValueError:
            continue
    return AdminSettings().address


def _sources(path: Path | None, environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    yield read_environment(environ, {}).values
    text = _text(path) if path is not None else ""
    yield parse_yaml(text, "settings").values
    if group := _GROUP.search(text):
        yield parse_yaml(group[0], "settings").values


def _text(path: Path) -> str:
    try:
        content = read_bytes(path, MAX_FILE_BYTES)
    except OSError:
        return ""
    try:
        return decode(content)
    except TextDecodingError:
        return content.decode("utf-8", "replace")


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a YAML file, if one is given, overridden by environment variables.

    Opens no other file: secrets are read later, by `SecretSource.read`. Raises `SettingsError` with
    every problem.
    """
    return _check(path, environ).settings()


def warnings(path: Path | None, environ: Mapping[str, str], settings: Settings) -> list[Problem]:
    """Return the problems of `settings` that do not prevent a start: unsafe or probably unintended.

    `path` and `environ` are those that the settings were loaded from.
    """
    return _check(path, environ).warnings(settings)


def _check(path: Path | None, environ: Mapping[str, str]) -> _Validation:
    document = read_yaml(path) if path is not None else YamlDocument()
    return _Validation(document, read_environment(environ, document.values))


class _Validation:
    """One validation, with the source of each value."""

    def __init__(self, document: YamlDocument, variables: EnvironmentValues) -> None:
        self._document = document
        self._variables = variables
        self._problems = [*document.problems, *variables.problems]
        # Keys that have a problem already: no rule reports them too.
        self._reported_keys: list[SettingPath] = []
        # Correct keys to the misspelled ones that are validated in their place.
        self._misspelled: dict[SettingPath, SettingPath] = {}

    def settings(self) -> Settings:
        values = merge(self._document.values, self._variables.values)
        settings = self._validated(_copy(values))
        # The contents of an unreadable file are unknown, so that rules would report its absent
        # keys.
        if settings is not None and (self._document.values or not self._document.problems):
            self._apply_rules(settings)
        if self._problems or settings is None:
            raise SettingsError(self._problems, settings)
        return settings

    def warnings(self, settings: Settings) -> list[Problem]:
        found = setting_rules.find_cautions(
            settings, lambda setting: not self._is_by_variable(setting)
        )
        return [
            self._make_problem(caution.setting, caution.message, caution.hint) for caution in found
        ]

    def _validated(self, values: dict[str, Any]) -> Settings | None:
        """Return the settings; with problems, those without the wrong values, or None."""
        settings, wrong = _validate(values)
        while (slip := _first_slip(wrong, values)) is not None:
            entry, meant = slip
            self._problems.append(self._problem(entry))
            self._misspelled[meant] = self._as_written(entry["loc"])
            _rename_key(values, entry["loc"], meant)
            settings, wrong = _validate(values)
        is_unreadable = bool(self._document.problems) and not self._document.values
        self._reported_keys = [self._setting(entry) for entry in wrong]
        for entry in wrong:
            if not self._is_consequence(entry, is_unreadable=is_unreadable):
                self._problems.append(self._problem(entry))
        return _settings_without(values, self._reported_keys) if settings is None else settings

    def _apply_rules(self, settings: Settings) -> None:
        settled = [*self._reported_keys, *self._document.reported_keys]
        found: set[tuple[SettingPath, str]] = set()
        for finding in find_violations(settings):
            setting = finding.setting
            involved_settings = (setting, *finding.related_settings)
            if (setting, finding.message) in found or _any_below(involved_settings, settled):
                continue
            found.add((setting, finding.message))
            self._problems.append(self._broken(finding))

    def _broken(self, rule: RuleViolation) -> Problem:
        """Return the problem of a broken rule; a missing key may be set by an empty variable."""
        forms = (rule.setting, (*rule.setting[:-1], f"{rule.setting[-1]}_file"))
        blank = next((form for form in forms if form in self._variables.names), None)
        if blank is None or rule.message != "is missing":
            return self._make_problem(rule.setting, rule.message, rule.hint)
        hint = Message("give the variable a value, or remove it; {hint}", hint=rule.hint)
        return self._make_problem(blank, Message("is empty"), hint)

    @staticmethod
    def _setting(entry: Any) -> SettingPath:
        location: SettingPath = entry["loc"]
        # Pydantic marks an invalid name in a mapping this way.
        return location[:-1] if location[-1:] == ("[key]",) else location

    def _as_written(self, setting: SettingPath) -> SettingPath:
        for length in range(len(setting), 0, -1):
            if (written := self._misspelled.get(setting[:length])) is not None:
                return (*written, *setting[length:])
        return setting

    def _is_consequence(self, entry: Any, *, is_unreadable: bool) -> bool:
        """Return whether the error is only a consequence of a problem that is reported."""
        setting = self._setting(entry)
        if self._as_written(setting) in self._document.reported_keys:
            return True
        implied = setting[0] in ("platform", "sso") and ("environment",) in self._reported_keys
        return entry["type"] == "missing" and (is_unreadable or implied)

    def _problem(self, entry: Any) -> Problem:
        setting, kind = self._setting(entry), entry["type"]
        by_variable = self._is_by_variable(setting)
        message, hint = describe_error(entry, in_yaml=not by_variable)
        if kind == "extra_forbidden":
            siblings = settings_schema.fields_of(settings_schema.annotation_at(setting[:-1]))
            message = Message("is not a known key")
            hint = did_you_mean(
                str(setting[-1]), siblings, elsewhere=_groups_with_key(str(setting[-1]))
            )
        elif kind == "missing" and setting[0] in ("platform", "sso"):
            message, hint = (
                Message("is missing"),
                Message(
                    "environment: custom, the default, fills in no address: add it, or choose "
                    "dhp-playground (to try) or dhp-production (for real work)"
                ),
            )
        elif kind == "literal_error":
            near = closest_key(
                str(entry["input"]), settings_schema.choices(settings_schema.annotation_at(setting))
            )
            hint = (
                Message("did you mean {near}?", near=near)
                if near is not None
                else Message("choose one of them")
            )
        elif by_variable and kind in ("tuple_type", "dict_type", "model_type"):
            hint = Message("in an environment variable, write it as JSON")
        return self._make_problem(setting, message, hint)

    def _make_problem(self, setting: SettingPath, message: Message, hint: Message) -> Problem:
        return Problem(dotted(self._as_written(setting)), message, hint, self._source(setting))

    def _is_by_variable(self, setting: SettingPath) -> bool:
        return self._source(setting).startswith("DHP_")

    def _source(self, setting: SettingPath) -> str:
        written = self._as_written(setting)
        for length in range(len(setting), 0, -1):
            if variable := self._variables.names.get(setting[:length]):
                return variable
            if line := self._document.lines.get(written[:length]):
                return Message("line {line}", line=line)
        return ""


def _validate(values: dict[str, Any]) -> tuple[Settings | None, list[Any]]:
    """Return the settings, or pydantic's errors."""
    try:
        return Settings.model_validate(values), []
    except ValidationError as error:
        return None, list(error.errors(include_url=False))


def _first_slip(wrong: Iterable[Any], values: dict[str, Any]) -> tuple[Any, SettingPath] | None:
    """Return the first unknown key with the absent key that was probably meant, else None."""
    for entry in wrong:
        if entry["type"] == "extra_forbidden":
            group, name = entry["loc"][:-1], str(entry["loc"][-1])
            near = closest_key(
                name, settings_schema.fields_of(settings_schema.annotation_at(group))
            )
            if near is not None and _value_at(values, (*group, near)) is None:
                return entry, (*group, near)
    return None


def _groups_with_key(name: str) -> list[str]:
    """Return the keys of this name anywhere in the settings."""
    return [dotted(setting) for setting, _ in settings_schema.value_paths() if setting[-1] == name]


def _any_below(settings: Iterable[SettingPath], groups: Iterable[SettingPath]) -> bool:
    """Return whether one of the keys is one of the groups or lies in one."""
    settled = set(groups)
    return any(key[:length] in settled for key in settings for length in range(len(key) + 1))


# In the working directory of the command.
_HERE: Final = Path("gateway.yaml")


def search_paths(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the paths of settings files that are tried, in order, if none is named."""
    if os_support.HAS_FILE_MODES:
        return Path("/etc/dhp-gateway/gateway.yaml"), _HERE
    return Path(environ.get("ProgramData", "C:\\ProgramData"), "DHP Gateway/gateway.yaml"), _HERE


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """A file, if there is one, and overriding variables; `str` says which file and why."""

    path: Path | None
    environ: Mapping[str, str] = field(repr=False)
    origin: str = "--config"

    @classmethod
    def discover(
        cls,
        named: Path | None,
        environ: Mapping[str, str],
        default_paths: Sequence[Path] | None = None,
    ) -> SettingsSource:
        """Return the source that is named, else the first settings file found.

        It is named by `--config` (`named`) or DHP_GATEWAY_CONFIG. `default_paths` replaces the
        search paths.
        """
        if named is not None:
            return cls(named, environ)
        if variable := environ.get(CONFIG_VARIABLE):
            return cls(Path(variable), environ, CONFIG_VARIABLE)
        candidates = search_paths(environ) if default_paths is None else default_paths
        for path in candidates:
            if _exists(path):
                return cls(
                    path.absolute(), environ, Message("found as {place}", place=_spelled(path))
                )
        return cls(
            None,
            environ,
            Message("no file at {places}", places=any_of(map(_spelled, candidates))),
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a file nor a variable."""
        return self.path is None and not has_settings(self.environ)

    def load(self) -> Settings:
        """Return the current settings. Raises `SettingsError`."""
        if self.is_empty:
            hint = Message(
                "{origin}, and no variable holds a setting; to try without any: {trial}",
                origin=self.origin,
                trial=_SANDBOX_COMMAND,
            )
            raise SettingsError(
                [Problem(Message("no settings file"), Message("use --config FILE"), hint)]
            )
        return load_settings(self.path, self.environ)

    def warnings(self, settings: Settings) -> list[Problem]:
        """Return problems that do not prevent a start: unsafe or probably unintended settings."""
        return warnings(self.path, self.environ, settings)

    def __str__(self) -> str:
        return str(self.description())

    def description(self) -> Message:
        """Return which file is used and why, for the operator."""
        what = Message("variables alone") if self.path is None else str(self.path)
        return Message("{what} ({origin})", what=what, origin=self.origin)


_SANDBOX_COMMAND: Final = "dhp-gateway sandbox"


def _exists(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # Without permission to examine the file it counts as found, so that the error is reported.
        return True
    return True


def _spelled(path: Path) -> str:
    return str(path) if path.is_absolute() else f".{os.sep}{path}"


_MAX_ROUNDS: Final = 4


def _settings_without(values: dict[str, Any], wrong: Sequence[SettingPath]) -> Settings | None:
    """Return settings made of `values` without the wrong ones, None where that fails.

    Missing required keys get a stand-in. The result serves for checking only.
    """
    remaining = _copy(values)
    for _ in range(_MAX_ROUNDS):
        for setting in wrong:
            _remove(remaining, setting)
        try:
            return Settings.model_validate(remaining)
        except ValidationError as error:
            entries = error.errors(include_url=False, include_input=False)
        wrong = [entry["loc"] for entry in entries if entry["type"] != "missing"]
        for entry in entries:
            if entry["type"] == "missing":
                _put_placeholder(remaining, entry["loc"])
    return None


def _rename_key(values: dict[str, Any], setting: SettingPath, meant: SettingPath) -> None:
    """Move the value of a misspelled key to the correct key `meant` of the same group."""
    group = _value_at(values, setting[:-1])
    group[meant[-1]] = group.pop(setting[-1])


def _copy(value: Any) -> Any:
    """Return a copy of dictionaries and lists that can be changed."""
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _remove(values: dict[str, Any], setting: SettingPath) -> None:
    """Remove a key; for an item of a list the whole list, as the other items would move up."""
    while setting and (isinstance(setting[-1], int) or setting[-1] == "[key]"):
        setting = setting[:-1]
    group = _value_at(values, setting[:-1])
    if setting and isinstance(group, dict):
        group.pop(setting[-1], None)


def _put_placeholder(values: dict[str, Any], setting: SettingPath) -> None:
    group: Any = values
    for part in setting[:-1]:
        group = group.setdefault(part, {}) if isinstance(group, dict) else group[part]
    name = str(setting[-1])
    group[name] = "https://missing.invalid" if name.endswith("_url") else "missing"


def _value_at(values: Any, setting: SettingPath) -> Any:
    """Return the value at a path, None where there is none."""
    for part in setting:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values
