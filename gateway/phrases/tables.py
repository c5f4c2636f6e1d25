"""All sentences: English mapped to Russian and Uzbek."""

from typing import Final

from gateway.phrases import (
    audit,
    cautions,
    commands,
    doctor,
    doctor_network,
    files,
    init,
    oauth,
    outbox,
    rules,
    sandbox,
    shared,
    startup,
    usage,
    values,
)

_PARTS: Final = (
    *(audit, commands, doctor, doctor_network, init, sandbox, usage),
    *(files, values, rules, cautions, startup, oauth, outbox, shared),
)
TABLES: Final = tuple(part.TABLE for part in _PARTS)
