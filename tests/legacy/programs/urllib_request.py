"""urllib.request of Python: one connection for each request; the proxy is `http_proxy`."""

from serve import serve

# <sample>
import os
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

BASE = os.environ["BASE"]


def call(method, url, body=None, etag=None):
    """Status, fields and body of an answer, be it an error."""
    fields = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}
    if etag:
        fields["If-Match"] = etag
    try:
        answer = urlopen(Request(url, body, fields, method=method))
    except HTTPError as error:
        answer = error  # holds the OperationOutcome
    with answer:
        return answer.status, answer.headers, answer.read()


def search(name):
    """Everybody of that name."""
    return call("GET", BASE + "/Patient?" + urlencode({"name": name}))


# </sample>
serve(call, search)
