"""requests of Python: a session has persistent connections; the proxy is `http_proxy`."""

from serve import serve

# <sample>
import os
from urllib.parse import urlencode

import requests

BASE = os.environ["BASE"]
session = requests.Session()


def call(method, url, body=None, etag=None):
    """Status, fields and body of an answer."""
    fields = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}
    if etag:
        fields["If-Match"] = etag
    answer = session.request(method, url, data=body, headers=fields)
    return answer.status_code, answer.headers, answer.content


def search(name):
    """Everybody of that name."""
    return call("GET", BASE + "/Patient?" + urlencode({"name": name}))


# </sample>
serve(call, search)
