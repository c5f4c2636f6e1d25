"""All sentences: the English one with the Russian and the Uzbek one."""

from typing import Final

from gateway.phrases import (
    commands,
    doctor,
    doctor_network,
    files,
    init,
    oauth,
    rules,
    shared,
    startup,
    values,
)

_PARTS: Final = (
    *(commands, doctor, doctor_network, init),
    *(files, values, rules, startup, oauth, shared),
)
TABLES: Final = tuple(part.TABLE for part in _PARTS)
