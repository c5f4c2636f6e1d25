"""structlog without rich and greenlet, which it would import where they are installed.

rich formats tracebacks, which the gateway does not need. It costs several MiB of memory and a
twentieth of the start time. greenlet is used only by the outbox, and no code that logs runs in one.
"""

from __future__ import annotations

import sys

_UNWANTED = [name for name in ("rich", "greenlet") if name not in sys.modules]
for _name in _UNWANTED:
    # None makes the import system report that there is no such module.
    sys.modules[_name] = None  # type: ignore[assignment]
try:
    import structlog
    from structlog.typing import EventDict, Processor
finally:
    for _name in _UNWANTED:
        del sys.modules[_name]

__all__ = ["EventDict", "Processor", "structlog"]
