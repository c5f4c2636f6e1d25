"""All sentences: the English one with the Russian and the Uzbek one."""

from typing import Final

from gateway.phrases import (
    audit,
    commands,
    doctor,
    files,
    init,
    rules,
    sandbox,
    shared,
    start,
    usage,
    values,
    ways,
)

TABLES: Final = tuple(
    part.TABLE
    for part in (
        audit,
        commands,
        doctor,
        ways,
        values,
        rules,
        files,
        init,
        start,
        usage,
        sandbox,
        shared,
    )
)
