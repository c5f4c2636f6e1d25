"""Loads a file and the environment into checked settings, or reports every problem at once.

The file is the named one, else the first one found; environment variables override it. A named file
is used even if it does not exist; an existing file that cannot be read is never skipped.

`load_admin_address` reads the one setting that a health check needs, in spite of wrong values of
other settings: a shell beside the gateway may lack the variables that it was started with.

    Exception
     └─ SettingsError     the settings cannot be used; it holds every reason
"""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from gateway import os_support
from gateway.config import setting_rules, settings_schema
from gateway.config.inbound_settings import AdminSettings
from gateway.config.problems import (
    InvalidValueError,
    Problem,
    RuleViolation,
    SettingPath,
    closest_key,
    describe_error,
    did_you_mean,
    dotted,
)
from gateway.config.section import WrongSettingError
from gateway.config.setting_rules import find_violations
from gateway.config.settings import Settings, fill_in_environment
from gateway.config.sources import (
    CONFIG_VARIABLE,
    EnvironmentValues,
    YamlDocument,
    has_settings,
    merge,
    read_environment,
    read_yaml,
)
from gateway.config.value_types import ListenAddress, parse_address
from gateway.i18n import Message, any_of


class SettingsError(Exception):
    """The settings cannot be used; `problems` holds every reason.

    `right_part` are the settings without the wrong values, for checking only; None where there are
    no settings at all.
    """

    def __init__(self, problems: Iterable[Problem], right_part: Settings | None = None) -> None:
        self.problems = tuple(problems)
        self.right_part = right_part
        super().__init__("\n".join(map(str, self.problems)))


def load_admin_address(path: Path | None, environ: Mapping[str, str]) -> ListenAddress:
    """Return `admin.address`, whatever the other settings are; the default for an unusable one.

    Raises `SettingsError` for a file that cannot be read or is no YAML, if no variable has it.
    """
    document = read_yaml(path) if path is not None else YamlDocument()
    variables = read_environment(environ, document.values).values
    if document.problems and not document.values and "admin" not in variables:
        raise SettingsError(document.problems)
    admin = merge(document.values, variables).get("admin")
    try:
        return parse_address(admin.get("address") if isinstance(admin, dict) else None)
    except InvalidValueError:
        return AdminSettings().address


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a YAML file, if one is given, overridden by environment variables.

    Opens no other file: secrets are read later, by `SecretRef.read`. Raises `SettingsError` with
    every problem.
    """
    return _check(path, environ).settings()


def _check(path: Path | None, environ: Mapping[str, str]) -> _Validation:
    document = read_yaml(path) if path is not None else YamlDocument()
    return _Validation(document, read_environment(environ, document.values))


class _Validation:
    """One validation, with the source of each value."""

    def __init__(self, document: YamlDocument, variables: EnvironmentValues) -> None:
        self._document = document
        self._variables = variables
        self._problems = [*document.problems, *variables.problems]
        # Keys that have a problem already.
        self._wrong_keys = set(document.reported_keys)

    def settings(self) -> Settings:
        values = merge(self._document.values, self._variables.values)
        settings = self._validated(copy.deepcopy(values))
        # The contents of an unreadable file are unknown, so that rules would report its absent
        # keys.
        if self._document.values or not self._document.problems:
            self._problems += map(self._broken, find_violations(settings))
        if self._problems:
            raise SettingsError(self._problems, settings)
        return settings

    def warnings(self, settings: Settings) -> list[Problem]:
        found = setting_rules.find_cautions(
            settings, lambda setting: not self._is_by_variable(setting)
        )
        return [
            self._make_problem(caution.setting, caution.message, caution.hint) for caution in found
        ]

    def _validated(self, values: dict[str, Any]) -> Settings:
        """Return the settings; of wrong ones, the part that is right."""
        settings, wrong = _validate(values)
        is_unreadable = bool(self._document.problems) and not self._document.values
        self._wrong_keys.update(map(self._setting, wrong))
        for entry in wrong:
            if not self._is_consequence(entry, is_unreadable=is_unreadable):
                self._problems.append(self._problem(entry))
        if settings is not None and not self._wrong_keys:
            return settings
        right: Settings = _right_part(Settings, fill_in_environment(values), self._wrong_keys)
        return right

    def _broken(self, rule: RuleViolation) -> Problem:
        """Return the problem of a broken rule; a missing key may be set by an empty variable."""
        forms = (rule.setting, (*rule.setting[:-1], f"{rule.setting[-1]}_file"))
        blank = next((form for form in forms if form in self._variables.names), None)
        if blank is None or not rule.is_missing:
            return self._make_problem(rule.setting, rule.message, rule.hint)
        hint = Message("set the variable, or remove it; {hint}", hint=rule.hint)
        return self._make_problem(blank, Message("is empty"), hint)

    @staticmethod
    def _setting(entry: Any) -> SettingPath:
        location: SettingPath = entry["loc"]
        # Pydantic marks an invalid name in a mapping this way.
        return location[:-1] if location[-1:] == ("[key]",) else location

    def _is_consequence(self, entry: Any, *, is_unreadable: bool) -> bool:
        """Return whether the error is only a consequence of a problem that is reported."""
        setting = self._setting(entry)
        if setting in self._document.reported_keys:
            return True
        implied = setting[0] in ("platform", "sso") and ("environment",) in self._wrong_keys
        return entry["type"] == "missing" and (is_unreadable or implied)

    def _problem(self, entry: Any) -> Problem:
        setting, kind = self._setting(entry), entry["type"]
        by_variable = self._is_by_variable(setting)
        message, hint = describe_error(entry, in_yaml=not by_variable)
        if kind == "extra_forbidden":
            siblings = settings_schema.fields_of(settings_schema.annotation_at(setting[:-1]))
            homes = [path for path, _ in settings_schema.value_paths() if path[-1] == setting[-1]]
            message = Message("is not a known key")
            hint = did_you_mean(str(setting[-1]), siblings, elsewhere=map(dotted, homes))
        elif kind == "missing" and setting[0] in ("platform", "sso"):
            message, hint = (
                Message("is missing"),
                Message(
                    "environment: custom, the default, sets no address: add it, or choose "
                    "dhp-playground (for tests) or dhp-production (for real work)"
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
        return Problem(dotted(setting), message, hint, self._source(setting))

    def _is_by_variable(self, setting: SettingPath) -> bool:
        return self._source(setting).startswith("DHP_")

    def _source(self, setting: SettingPath) -> str:
        for length in range(len(setting), 0, -1):
            if variable := self._variables.names.get(setting[:length]):
                return variable
            if line := self._document.lines.get(setting[:length]):
                return Message("line {line}", line=line)
        return ""


def _validate(values: dict[str, Any]) -> tuple[Settings | None, list[Any]]:
    """Return the settings, or pydantic's errors."""
    try:
        return Settings.model_validate(values), []
    except ValidationError as error:
        return None, list(error.errors(include_url=False))


def _right_part(
    annotation: Any, value: Any, wrong: Collection[SettingPath], path: SettingPath = ()
) -> Any:
    """Return what is right of a value: of a group all but the wrong keys, else the whole.

    `wrong` are the paths of all wrong keys. Raises `WrongSettingError` where nothing is right.
    """
    if path in wrong:
        raise WrongSettingError(path)
    if not any(key[: len(path)] == path for key in wrong):
        return TypeAdapter(annotation).validate_python(value)
    if (inner := settings_schema.value_of_mapping(annotation)) is not None:
        return {key: _right_part(inner, each, wrong, (*path, key)) for key, each in value.items()}
    if (inner := settings_schema.item_of_list(annotation)) is not None:
        return tuple(_right_part(inner, each, wrong, (*path, i)) for i, each in enumerate(value))
    if (section := settings_schema.section_of(annotation)) is None:
        raise WrongSettingError(path)
    right, left_out = {}, []
    for key, inner in settings_schema.fields_of(section).items():
        if key in value and not (value[key] is None and section.is_group(key)):
            try:
                right[key] = _right_part(inner, value[key], wrong, (*path, key))
            except WrongSettingError:
                left_out.append(key)
    group = section.model_construct(**right)
    for key in left_out:
        group.__dict__.pop(key, None)
    return group


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
                "{origin}, and no variable contains a setting; to try the gateway without "
                "settings: {trial}",
                origin=self.origin,
                trial=_SANDBOX_COMMAND,
            )
            raise SettingsError(
                [Problem(Message("no settings file"), Message("use --config FILE"), hint)]
            )
        return load_settings(self.path, self.environ)

    def warnings(self, settings: Settings) -> list[Problem]:
        """Return problems that do not prevent a start: unsafe or probably unintended settings."""
        return _check(self.path, self.environ).warnings(settings)

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
