"""The national list of purposes of use: HL7's v3-ActReason codes that DHP accepts in an audit."""

from __future__ import annotations

from typing import Final

SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"

# The value set audit-purpose-of-use-vs of UZ Core 0.7.0. ETREAT is "break the glass".
PURPOSES: Final = frozenset(
    (
        *("TREAT", "ETREAT", "HOPERAT", "RECORDMGT", "HDIRECT", "HPRGRP", "HSYSADMIN"),
        *("PATRQT", "FAMRQT", "PWATRNY", "GOV", "DISASTER"),
    )
)
