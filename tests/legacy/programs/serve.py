"""Common part of the programs in Python: orders on standard input, one line of output for each."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

BASE = os.environ["BASE"]
Answer = tuple[int, Mapping[str, str], bytes]


def serve(call: Callable[..., Answer], search: Callable[[str], Answer]) -> None:
    """Execute orders until the end of the input."""
    out = Path(os.environ["OUT"])
    for line in sys.stdin:
        method, url, body, etag = (None if each == "-" else each for each in line.split())
        if method == "SEARCH":
            status, headers, text = search(url)
        else:
            content = None if body is None else Path(body).read_bytes()
            status, headers, text = call(method, url, content, etag)
        out.write_bytes(text)
        print(status, headers.get("ETag", ""), headers.get("Location", ""), sep="\t", flush=True)
