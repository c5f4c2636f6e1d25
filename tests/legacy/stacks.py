"""The programs: how they are compiled and started, and what their libraries cannot do."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent / "programs"
# The word of the table for a correct step; every other word has a cause in the library.
OK = "yes"


@dataclass(frozen=True, slots=True)
class Stack:
    """A library with its default settings.

    `made` is the name of a command of `COMPILERS`, which makes the file that `command` starts.
    `words` has the result of a step where it is not `OK` because of the library; `by_proxy` adds to
    these when the gateway is its proxy.
    """

    command: tuple[str, ...]
    made: str = ""
    words: dict[str, str] = field(default_factory=dict)
    by_proxy: dict[str, str] = field(default_factory=dict)
    java_proxy: bool = False

    def words_of(self, way: str) -> dict[str, str]:
        """Return the words of a way, `direct` or `proxy`."""
        return self.words | (self.by_proxy if way == "proxy" else {})

    def arguments(self, build: Path, proxy: str | None) -> list[str]:
        """Return the command line."""
        program, *rest = (each.format(here=HERE, build=build) for each in self.command)
        if proxy and self.java_proxy:
            parts = urlsplit(proxy)
            rest[:0] = [f"-Dhttp.proxyHost={parts.hostname}", f"-Dhttp.proxyPort={parts.port}"]
        return [program, *rest]


_JARS = ":".join(
    f"/usr/share/java/{name}.jar"
    for name in (
        *("httpclient", "httpcore", "commons-logging", "commons-codec"),
        *("httpclient5", "httpcore5", "httpcore5-h2", "slf4j-api"),
    )
)
_FASTER_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


def _java(name: str) -> Stack:
    command = ("java", *_FASTER_START, "-cp", f"{{build}}:{_JARS}", name)
    return Stack(command, "javac", java_proxy=True)


def _mono(name: str) -> Stack:
    return Stack(("mono", f"{{build}}/{name}.exe"), f"mcs {name}")


def _raw(dialect: str, words: dict[str, str] | None = None) -> Stack:
    return Stack((sys.executable, "{here}/raw.py", dialect), words=words or {})


def _mcs(name: str) -> tuple[str, ...]:
    return (
        "mcs",
        f"-out:{{build}}/{name}.exe",
        "-r:System.Net.Http",
        "{here}/Serve.cs",
        f"{{here}}/{name}.cs",
    )


_JAVA = (
    f"{{here}}/{name}.java"
    for name in ("Serve", "UrlConnection", "JdkHttpClient", "ApacheClient4", "ApacheClient5")
)
COMPILERS: dict[str, tuple[str, ...]] = {
    "javac": ("javac", "-nowarn", "-d", "{build}", "-cp", _JARS, *_JAVA),
    "mcs WebRequestOrders": _mcs("WebRequestOrders"),
    "mcs HttpClientOrders": _mcs("HttpClientOrders"),
    "fpc": ("fpc", "-v0", "-FE{build}", "{here}/fphttp.pas"),
    "gccgo": ("gccgo", "-o", "{build}/net_http", "{here}/net_http.go"),
    "erlc": ("erlc", "-o", "{build}", "{here}/httpc_orders.erl"),
}

# new: one connection for each request; one: one connection for each command; none: no proxy
# support.
_NEW = {"five": "new"}
STACKS = {
    "1C 8.x": _raw("1c"),
    "Apache HttpClient 4": _java("ApacheClient4"),
    "Apache HttpClient 5": _java("ApacheClient5"),
    "curl": Stack(("sh", "{here}/curl.sh"), words={"five": "one"}),
    "Erlang httpc": Stack(
        ("erl", "-noshell", "-pa", "{build}", "-s", "httpc_orders", "main"), "erlc"
    ),
    "Free Pascal TFPHTTPClient": Stack(("{build}/fphttp",), "fpc", _NEW),
    "Go net/http": Stack(("{build}/net_http",), "gccgo"),
    "Indy 9": _raw("indy9", _NEW),
    "Indy 10": _raw("indy10"),
    "Java HttpClient": _java("JdkHttpClient"),
    "Java HttpURLConnection": _java("UrlConnection"),
    "LuaSocket": Stack(("lua5.4", "{here}/luasocket.lua"), words=_NEW),
    "MSXML ServerXMLHTTP": _raw("serverxmlhttp"),
    "MSXML XMLHTTP": _raw("xmlhttp"),
    ".NET HttpClient": _mono("HttpClientOrders"),
    ".NET HttpWebRequest": _mono("WebRequestOrders"),
    "Node fetch": Stack(("node", "{here}/node_fetch.mjs"), words={"proxy": "none"}),
    "Node http": Stack(("node", "{here}/node_http.mjs")),
    "Perl HTTP::Tiny": Stack(("perl", "{here}/http_tiny.pl"), by_proxy=_NEW),
    "Perl LWP": Stack(("perl", "{here}/lwp.pl"), words=_NEW),
    "PHP curl": Stack(("php", "{here}/curl.php")),
    "PHP file_get_contents": Stack(("php", "{here}/streams.php"), words=_NEW),
    "Python http.client": Stack((sys.executable, "{here}/http_client.py")),
    "Python requests": Stack((sys.executable, "{here}/with_requests.py")),
    "Python urllib": Stack((sys.executable, "{here}/urllib_request.py"), words=_NEW),
    "Ruby Net::HTTP": Stack(("ruby", "{here}/net_http.rb")),
    "Tcl http": Stack(("tclsh", "{here}/http.tcl"), words=_NEW),
    "wget": Stack(("sh", "{here}/wget.sh"), words={"five": "one"}),
    "WinHttpRequest": _raw("winhttp"),
}
