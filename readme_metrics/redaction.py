"""What never leaves: denylist and allowlist over headers, URL parameters, forms and JSON; and the masking of keys.

A denylist takes the values of its names out (``[REDACTED n]``, n characters); an allowlist drops all but its names.
Headers are named in any case, everything else as it is spelled. When in doubt, nothing leaves.
"""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from hashlib import sha512
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from readme_metrics.json_splice import JsonKeys, redacted, splice
from readme_metrics.text import percent_decoded

if TYPE_CHECKING:
    from collections.abc import Iterable

MASKED_HEADERS: Final = frozenset({"authorization", "proxy-authorization"})
"""In lower case; masked with or without a list."""
_URL_HEADERS: Final = frozenset({"location", "referer"})
_LONGEST_CACHED_KEY: Final = 512
"""Characters; the cache of masks holds the last 1,024 keys, which is half a MiB at the most."""


def mask(key: str) -> str:
    """Hash a key, keeping its last four characters: tells callers apart without telling who they are."""
    return _cached_mask(key) if len(key) <= _LONGEST_CACHED_KEY else _mask(key)


def _mask(key: str) -> str:
    digest = sha512(key.encode("utf-8", "surrogatepass")).digest()
    return f"sha512-{b64encode(digest).decode('ascii')}?{key[-4:]}"


_cached_mask: Final = lru_cache(1024)(_mask)


class Redaction:
    """The lists of one configuration, prepared once; a denylist overrides an allowlist.

    ``only``: an allowlist counts even if it names nothing.
    """

    __slots__ = ("_headers", "_json", "active", "names", "only")

    def __init__(
        self, *, allowlist: Iterable[str] | None = None, denylist: Iterable[str] | None = None, only: bool = False
    ) -> None:
        denied, allowed = frozenset(denylist or ()), frozenset(allowlist or ())
        self.names = denied or allowed
        self._headers = frozenset(name.lower() for name in self.names)
        self.only = not denied and (only or bool(allowed))
        """True: only the named leave (allowlist). False: the named don't."""
        self.active = self.only or bool(denied)
        """Whether there is a list at all."""
        self._json = JsonKeys(self.names, only=self.only)

    def joined(self, other: Redaction) -> Redaction:
        """What either takes is taken. An allowlist loses each name that a denylist has, or reaches into."""
        if not (self.active and other.active):
            return self if self.active else other
        if self.only and other.only:
            return Redaction(allowlist=self.names & other.names, only=True)
        if not self.only and not other.only:
            return Redaction(denylist=self.names | other.names)
        allowed, denied = (self.names, other.names) if self.only else (other.names, self.names)
        kept = (name for name in allowed if not any(_overlap(name.lower(), gone.lower()) for gone in denied))
        return Redaction(allowlist=kept, only=True)

    def leaves(self, name: str) -> bool:
        """Whether a URL parameter or form field of this name leaves as it is."""
        return (name in self.names) is self.only

    def header_leaves(self, name: str) -> bool:
        """Whether a header field leaves; its name in lower case."""
        return (name in self._headers) is self.only

    def take(self, length: int | None) -> str | None:
        """What is left of a value that is to go, of so many characters; None: nothing, not even its name."""
        return None if self.only else redacted(length)

    def header(self, name: str, value: str) -> str | None:
        """The value of a header field as it leaves, its name in lower case; None: the field is dropped."""
        if self.active and not self.header_leaves(name):
            return self.take(len(value))
        if name in MASKED_HEADERS:
            return mask(value)
        return self.url(value) if name in _URL_HEADERS else value

    def url(self, url: str) -> str:
        """A URL as it leaves: its path stays; parameters also go from a fragment.

        An allowlist names neither a fragment nor ``user:password@``, so both are dropped.
        """
        if not self.active:
            return url
        rest, hash_mark, fragment = url.partition("#")
        base, query_mark, query = rest.partition("?")
        if self.only:
            kept = self.query(query)
            return _without_user(base) + ("?" + kept if kept else "")
        return base + query_mark + self.query(query) + hash_mark + self._fragment(fragment)

    def query(self, query: str, charset: str | None = None) -> str:
        """A query or urlencoded form as it leaves; ``charset``: of its percent-encoded bytes where not UTF-8."""
        if not self.active or not query:
            return query
        pieces = (self._parameter(piece, charset) for piece in query.split("&"))
        return "&".join(piece for piece in pieces if piece is not None)

    def json(self, text: str) -> str | None:
        """A JSON text as it leaves; None: no JSON object or array. RecursionError: too deep to be read."""
        try:
            return splice(text, self._json)
        except ValueError:
            return None

    def names_in(self, text: str) -> bool:
        """Whether a text that may hold JSON somewhere may hold one of the names as a key."""
        return self._json.are_quoted_in(text)

    def _parameter(self, piece: str, charset: str | None) -> str | None:
        name, _, value = piece.partition("=")
        if self.leaves(percent_decoded(name, charset)):
            return piece
        left = self.take(len(percent_decoded(value, charset)))
        return None if left is None else f"{name}={quote(left)}"

    def _fragment(self, fragment: str) -> str:
        if "=" not in fragment:
            return fragment
        path, mark, parameters = fragment.rpartition("?")
        return path + mark + self.query(parameters)


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _without_user(base: str) -> str:
    start = base.find("//") + 2
    if start == 1:
        return base
    end = base.find("/", start)
    authority = base[start:] if end < 0 else base[start:end]
    return base[:start] + authority.rpartition("@")[2] + base[start + len(authority) :]
