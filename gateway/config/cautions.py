"""Settings that a gateway starts with although they are unsafe or probably unintended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from gateway.config.broken_rule import RuleViolation
from gateway.config.environment import variable_name
from gateway.config.fhir_names import similar_operation
from gateway.config.problems import SettingPath, dotted
from gateway.config.settings import Settings
from gateway.i18n import Message

# Former environments (guide 0.1.0) to those with the platform's current addresses.
_SUCCESSORS: Final = {"playground": "dhp-playground", "production": "dhp-production"}


def find_cautions(
    settings: Settings, is_in_file: Callable[[SettingPath], bool]
) -> Iterator[RuleViolation]:
    """Yield all cautions.

    `is_in_file` returns whether the settings file, not a variable, sets a key.
    """
    yield from find_start_cautions(settings)
    yield from _callers_in_clear(settings)
    yield from _browsers_that_are_callers(settings)
    yield from _operators_in_clear(settings)
    yield from _written_secrets(settings, is_in_file)
    yield from _similar_operations(settings)


def find_start_cautions(settings: Settings) -> Iterator[RuleViolation]:
    """Yield the cautions that are logged at every start, too."""
    yield from _former_addresses(settings)
    yield from _workers_without_effect(settings)


def _former_addresses(settings: Settings) -> Iterator[RuleViolation]:
    """Yield a caution where the environment fills in addresses that the platform no longer uses."""
    successor = _SUCCESSORS.get(settings.environment)
    if successor is not None:
        yield RuleViolation(
            ("environment",),
            Message("{name} has the former addresses, of guide 0.1.0", name=settings.environment),
            Message(
                "the platform of today is {successor}, which gives clients of its own",
                successor=successor,
            ),
        )


def _workers_without_effect(settings: Settings) -> Iterator[RuleViolation]:
    """Yield a caution where `workers` asks for several processes."""
    if settings.workers > 1:
        yield RuleViolation(
            ("workers",),
            Message("has no effect: the gateway is one process"),
            Message(
                "for more than one, run replicas that share the port by listen.reuse_port: true, "
                "each with its own admin.address and audit.path"
            ),
        )


def _callers_in_clear(settings: Settings) -> Iterator[RuleViolation]:
    listen = settings.listen
    names = [caller.name for caller in settings.callers if caller.has_secret]
    if names and listen.tls.cert_file is None and not listen.address.is_loopback:
        yield RuleViolation(
            ("listen", "tls"),
            Message(
                "is off: keys and passwords of callers ({names}) travel unencrypted to {address}",
                names=", ".join(names),
                address=listen.address,
            ),
            Message(
                "give listen.tls.cert_file and listen.tls.key_file, or listen on 127.0.0.1 behind "
                "a proxy with TLS on this machine"
            ),
        )


def _browsers_that_are_callers(settings: Settings) -> Iterator[RuleViolation]:
    """Yield callers that are identified by address alone while the login is enabled.

    A browser with such an address is treated as that caller and gets no sign-in page.
    """
    if not settings.login.enabled:
        return
    for index, caller in enumerate(settings.callers):
        if not caller.has_secret and not caller.client_cert_names:
            yield RuleViolation(
                ("callers", index, "networks"),
                Message(
                    "a browser from there is this caller: it gets data with the gateway's token, "
                    "and no sign-in page"
                ),
                Message("give the caller a key or password, or leave out the browsers' addresses"),
            )


def _operators_in_clear(settings: Settings) -> Iterator[RuleViolation]:
    admin = settings.admin
    if admin.operators and not admin.address.is_loopback:
        yield RuleViolation(
            ("admin", "address"),
            Message(
                "is reachable from other machines, without TLS: passwords of operators ({names}) "
                "travel unencrypted",
                names=", ".join(operator.name for operator in admin.operators),
            ),
            Message("listen on 127.0.0.1, and reach it by ssh -L or behind TLS"),
        )


def _written_secrets(
    settings: Settings, is_in_file: Callable[[SettingPath], bool]
) -> Iterator[RuleViolation]:
    written = [source.setting for source in settings.secret_sources() if source.value is not None]
    for setting in filter(is_in_file, written):
        # For a list, one `_file` setting replaces all items.
        named = setting[:-1] if isinstance(setting[-1], int) else setting
        yield RuleViolation(
            setting,
            Message("is written into the settings file"),
            Message(
                "keep it alone in a file that only the gateway can read, and name that in {key}",
                key=f"{dotted(named)}_file",
            ),
        )
    for section in ("store", "outbox"):
        setting = (section, "url")
        password = getattr(getattr(settings, section).url, "password", None)
        if password is not None and is_in_file(setting):
            hint = Message("give it by the variable {variable}", variable=variable_name(setting))
            yield RuleViolation(setting, Message("holds a password in the settings file"), hint)


def _similar_operations(settings: Settings) -> Iterator[RuleViolation]:
    for index, caller in enumerate(settings.callers):
        for operation_index, name in enumerate(caller.allow.operations or ()):
            if (near := similar_operation(name)) is not None:
                yield RuleViolation(
                    ("callers", index, "allow", "operations", operation_index),
                    Message("is no operation of FHIR R5"),
                    Message(
                        "did you mean {near}? If the platform defines it, all is well", near=near
                    ),
                )
