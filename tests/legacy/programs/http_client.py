"""http.client of Python: a persistent connection, for as long as the gateway keeps it open."""

from serve import serve

# <sample>
import os
import re
import time
from http.client import HTTPConnection
from urllib.parse import urlencode, urlsplit

BASE, PROXY = os.environ["BASE"], os.environ.get("http_proxy")
connection = HTTPConnection(urlsplit(PROXY or BASE).netloc)
closes = 0.0


def call(method, url, body=None, etag=None):
    """Status, fields and body of an answer."""
    global closes
    if time.monotonic() > closes:
        connection.close()  # it connects by itself, but does not see that the other side closed
    fields = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}
    if etag:
        fields["If-Match"] = etag
    target = url if PROXY else url.partition(urlsplit(url).netloc)[2]
    connection.request(method, target, body, fields)
    answer = connection.getresponse()
    text = answer.read()
    kept = re.search(r"timeout=(\d+)", answer.getheader("Keep-Alive", ""))
    closes = time.monotonic() + int(kept[1] if kept else 0)
    return answer.status, answer.headers, text


def search(name):
    """Everybody of that name."""
    return call("GET", BASE + "/Patient?" + urlencode({"name": name}))


# </sample>
serve(call, search)
