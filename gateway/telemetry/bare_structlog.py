"""structlog without rich, which it would load to draw tracebacks that nobody here asks it for.

That costs several MiB of memory and a twentieth of the time to start.
"""

from __future__ import annotations

import sys

_WANTED = "rich" in sys.modules
if not _WANTED:
    # None tells the import system that there is no such module.
    sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
    from structlog.typing import EventDict, Processor
finally:
    if not _WANTED:
        del sys.modules["rich"]

__all__ = ["EventDict", "Processor", "structlog"]
