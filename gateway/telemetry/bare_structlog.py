"""structlog without rich and greenlet, which it would load where they are installed.

rich draws tracebacks that nobody here asks it for: several MiB of memory, and a twentieth of the
time to start. greenlet is the outbox's; nothing that logs here runs in one.
"""

from __future__ import annotations

import sys

_UNWANTED = [name for name in ("rich", "greenlet") if name not in sys.modules]
for _name in _UNWANTED:
    # None tells the import system that there is no such module.
    sys.modules[_name] = None  # type: ignore[assignment]
try:
    import structlog
    from structlog.typing import EventDict, Processor
finally:
    for _name in _UNWANTED:
        del sys.modules[_name]

__all__ = ["EventDict", "Processor", "structlog"]
