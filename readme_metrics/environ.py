"""What a WSGI environ says of a request: its URL, headers, host and body. Pure.

Read inside the app, after a ``ProxyFix`` there has corrected it. Any byte may stand in it: what comes out is always
text that fits into a URL or a header.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from readme_metrics.exchange import Headers

    Environ = dict[str, Any]

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_BODILESS: Final = frozenset({"GET", "HEAD"})
_NO_LENGTH: Final = frozenset({"", "0"})
_LONGEST_ROOT: Final = 256
"""Characters of a host and its scheme worth remembering; clients may invent longer ones."""
_UNSAFE: Final = re.compile(r"[^!-~]")
_PLAIN_TARGET: Final = re.compile(r"/[!-\"$-~]*")
_ORIGIN: Final = re.compile(r"[^:/?#]+://[^/?#]+")
_SAFE_HOST: Final = re.compile(r"[A-Za-z0-9._~-]+(:\d*)?|\[[0-9A-Fa-f:.]+\](:\d*)?")


def root_of(environ: Environ) -> str:
    """``https://host:port`` as the client asked for it; the server's own name where there was no Host header."""
    scheme = environ.get("wsgi.url_scheme", "http")
    host = environ.get("HTTP_HOST") or _server_host(environ, scheme)
    return _cached_root(scheme, host) if len(scheme) + len(host) <= _LONGEST_ROOT else _root(scheme, host)


def url_of(environ: Environ, root: str) -> str:
    """The URL as asked, still percent-encoded, with its query."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw and _PLAIN_TARGET.fullmatch(raw) and not environ.get("SCRIPT_NAME"):  # nearly every request
        return root + raw  # type: ignore[no-any-return]  # text, or the match had failed
    if not raw:
        return root + _rebuilt_target(environ)
    if raw[0] != "/":  # absolute form, as a proxy is asked
        origin = _ORIGIN.match(raw)
        if not origin:
            return root + _rebuilt_target(environ)
        target = raw[origin.end() :]
        raw = target if target.startswith("/") else f"/{target}"
    return root + _missing_prefix(environ, raw) + _printable(raw.partition("#")[0])


def script_of(environ: Environ) -> str:
    """Where the app is mounted, as it stands in a URL."""
    script = environ.get("SCRIPT_NAME")
    return _quote_path(script) if script else ""


def request_headers(environ: Environ) -> Headers:
    """The header fields, in the environ's order; repeats come joined from the server."""
    names = _header_names
    fields = []
    for key, value in environ.items():
        name = names.get(key)
        if name is None:
            name = _learn(key)
        if name and (value or key not in _BODY_HEADERS):
            fields.append((name, value if type(value) is str else str(value)))
    return tuple(fields)


_BODY_HEADERS: Final = frozenset({"CONTENT_TYPE", "CONTENT_LENGTH"})
_DOUBLES: Final = frozenset({"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"})
_MOST_NAMES: Final = 1024
"""Bound of the names remembered; clients may invent more."""
_LONGEST_NAME: Final = 256
"""Characters of a name worth remembering; clients may invent longer ones."""
_header_names: Final[dict[str, str]] = {}


def _learn(key: str) -> str:
    """``HTTP_X_REQUEST_ID`` → ``X-Request-Id`` (CGI forgets how it was spelled); empty for what is no header."""
    is_header = key in _BODY_HEADERS or (key.startswith("HTTP_") and key not in _DOUBLES)
    name = key.removeprefix("HTTP_").replace("_", "-").title() if is_header else ""
    if len(key) <= _LONGEST_NAME and len(_header_names) < _MOST_NAMES:
        _header_names[key] = name
    return name


def content_length(environ: Environ) -> int | None:
    """The declared size of the request body; None where it is chunked, not declared or nonsense."""
    declared = environ.get("CONTENT_LENGTH")
    if not declared or is_chunked(environ):
        return None
    text = str(declared).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def expects_no_body(environ: Environ) -> bool:
    """Whether nobody need look for a request body: nearly every GET, which announces none."""
    return (
        environ.get("REQUEST_METHOD") in _BODILESS
        and environ.get("CONTENT_LENGTH", "") in _NO_LENGTH
        and "HTTP_TRANSFER_ENCODING" not in environ
    )


def is_chunked(environ: Environ) -> bool:
    """Whether the request body has an end that only its stream knows."""
    return "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()


class HostList:
    """The hosts whose requests are logged; one listed without a port stands for any port."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = frozenset(map(_host_and_port, hosts))

    def allows(self, environ: Environ) -> bool:
        """Whether the Host header is one of these, in any case; a request without it is not."""
        host, port = _host_and_port(environ.get("HTTP_HOST", ""))
        port = port or _DEFAULT_PORTS.get(environ.get("wsgi.url_scheme", ""), "")
        return (host, "") in self._hosts or (host, port) in self._hosts


def _host_and_port(text: str) -> tuple[str, str]:
    text = text.strip().lower()
    bracketed, bracket, rest = text.partition("]")
    if bracket:  # [::1]:5000
        return bracketed.removeprefix("["), rest.removeprefix(":")
    if text.count(":") > 1:  # ::1
        return text, ""
    host, _, port = text.partition(":")
    return host.removesuffix("."), port


def _root(scheme: str, host: str) -> str:
    clean = host if _SAFE_HOST.fullmatch(host) else quote(host.encode("latin-1", "replace"), safe=":")
    return f"{scheme}://{clean}"


_cached_root: Final = lru_cache(256)(_root)


def _server_host(environ: Environ, scheme: str) -> str:
    name = environ.get("SERVER_NAME") or "localhost"
    port = str(environ.get("SERVER_PORT") or "")
    name = f"[{name}]" if ":" in name and name[0] != "[" else name
    return name if port in {"", _DEFAULT_PORTS.get(scheme)} else f"{name}:{port}"


def _missing_prefix(environ: Environ, raw: str) -> str:
    """The prefix that a proxy took off the path and ``ProxyFix`` told the app of; else nothing."""
    if not environ.get("SCRIPT_NAME"):
        return ""
    path = unquote_to_bytes(raw.partition("?")[0].encode("latin-1", "replace"))
    return script_of(environ) if path == environ.get("PATH_INFO", "").encode("latin-1", "replace") else ""


def _rebuilt_target(environ: Environ) -> str:
    path = _quote_path(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    query = _printable(environ.get("QUERY_STRING", "")).replace("#", "%23")  # raw, and the app read it as the query's
    return f"{path or '/'}?{query}" if query else path or "/"


def _quote_path(path: str) -> str:
    """Percent-encode a path as WSGI gives it (latin-1 text of its bytes)."""
    return quote(path.encode("latin-1", "replace"), safe="/!$&'()*+,;=:@")


def _printable(text: str) -> str:
    return _UNSAFE.sub(lambda match: quote(match[0].encode("latin-1", "replace")), text)
