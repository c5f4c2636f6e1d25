"""Texts that say what operators do about a reason among the last errors.

`gateway.errors` has the texts for users of the calling system; docs/errors.md has more details.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import REASONS
from gateway.i18n import Message, in_all_languages

REMEDY_MESSAGES: Final = {
    **{code: reason.remedy for code, reason in REASONS.items()},
    "platform-error": Message("Nothing here. If it lasts, tell the platform's support."),
    "platform-refusal": Message(
        "404 and 422 are as a rule the caller's mistake: the answer says which. With 401 and "
        "403 run `dhp-gateway doctor`, then ask the platform's support."
    ),
}

REMEDIES: Final = in_all_languages(REMEDY_MESSAGES)
