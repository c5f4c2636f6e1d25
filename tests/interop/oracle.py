"""A second opinion on rewritten bodies: whether HAPI's strict parser reads the same resource."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Oracle:
    """HAPI's parsers for R4 and R5 as a process; usable from every event loop.

    `compared` counts the resources of which both readings were compared; those that it refuses to
    read, both for the same reason, are not.
    """

    popen: subprocess.Popen[str]
    compared: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def same(
        self,
        original: bytes,
        rewritten: bytes,
        media_type: str,
        base_a: str,
        base_b: str,
        release: str = "R5",
    ) -> str | None:
        """Return what differs but for links, or None.

        A link of the original that begins with `base_a` begins with `base_b` in the rewritten body.
        Every text but the links that the program lists must be equal, a decimal with its number of
        digits. NDJSON is compared line by line. What is no FHIR resource
        (a manifest, a JSON Patch) is not compared.
        """
        if "ndjson" in media_type:
            lines, others = original.splitlines(), rewritten.splitlines()
            if len(lines) != len(others):
                return f"{len(lines)} → {len(others)} lines"
            pairs = list(zip(lines, others, strict=True))
        else:
            pairs = [(original, rewritten)]
        kind = "xml" if "xml" in media_type else "json"
        for one, other in pairs:
            if _is_resource(one, kind):
                encoded = [base64.b64encode(each).decode() for each in (one, other)]
                question = "\t".join([release, kind, base_a, base_b, *encoded])
                found = await asyncio.to_thread(self._ask, question)
                if found == "unreadable":
                    continue
                self.compared += 1
                if found:
                    return found
        return None

    def _ask(self, question: str) -> str:
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        with self._lock:
            self.popen.stdin.write(f"{question}\n")
            self.popen.stdin.flush()
            return self.popen.stdout.readline().rstrip("\n")


def _is_resource(body: bytes, kind: str) -> bool:
    if kind == "xml":
        return b"http://hl7.org/fhir" in body
    try:
        document = json.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and "resourceType" in document
