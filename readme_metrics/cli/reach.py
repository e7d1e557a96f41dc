"""Whether the server answers, and what it says of the key, without sending it anything to keep.

ReadMe's API names no request that only checks a key. A GET at the address of the POSTs stores nothing; a server that
looks at the key first refuses a wrong one with 401 or 403, and one that does not leaves the key unchecked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import requests

from readme_metrics.deadline import SLACK_S, DeadlineAdapter, Line

if TYPE_CHECKING:
    from collections.abc import Iterator

TOTAL_S: Final = 5.0
"""A person waits for it."""
ANSWER_BYTES: Final = 2000


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int | None
    """None: nothing did."""
    body: bytes = b""
    error: str = ""
    """Why nothing came back, in a few words without key or address."""


def reach(server: str, api_key: str | None, *, total_s: float = TOTAL_S) -> Answer:
    """Ask once, for at most ``total_s``; every failure is an ``Answer``. Proxies and certificates as for a POST."""
    line = Line()
    with requests.Session() as session:
        adapter = DeadlineAdapter(line)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        line.begin(total_s - SLACK_S)
        try:
            answer = session.get(
                f"{server}/v1/request", auth=(api_key or "", ""), allow_redirects=False, stream=True, timeout=total_s
            )
            return Answer(answer.status_code, next(answer.iter_content(ANSWER_BYTES), b""))
        except OSError as error:  # those of requests are OSErrors
            return Answer(line.status, error=_detail(error))


def _detail(error: BaseException) -> str:
    """The operating system's own words; others may hold an address with its credentials."""
    return next((each.strerror for each in _chain(error) if isinstance(each, OSError) and each.strerror), _name(error))


def _name(error: BaseException) -> str:
    timed_out = any(isinstance(each, TimeoutError) for each in _chain(error))
    return "no answer in time" if timed_out else type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__
