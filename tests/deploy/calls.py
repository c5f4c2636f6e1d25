"""A caller that makes a connection for each request, until SIGTERM: `python calls.py URL`.

At the end it prints how many requests there were, and how they ended.
"""

import collections
import signal
import sys
import urllib.error
import urllib.request

ends = collections.Counter()


def end(*_):
    print(sum(ends.values()), *ends)  # noqa: T201 - the output of the program
    sys.exit()


signal.signal(signal.SIGTERM, end)
while True:
    try:
        with urllib.request.urlopen(sys.argv[1]) as answer:  # noqa: S310 - on loopback
            how = answer.status
    except urllib.error.HTTPError as error:
        how = f"{error.code} {error.headers['X-Gateway-Error']}"
    except OSError as error:
        how = repr(error)
    ends[how] += 1
