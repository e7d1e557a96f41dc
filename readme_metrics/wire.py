"""The wire object, part by part: HAR 1.2 inside the envelope that ReadMe's Metrics API takes."""

from __future__ import annotations

from typing import Literal, TypedDict


class NameValue(TypedDict):
    """A header field or URL parameter."""

    name: str
    value: str


class _ParamName(TypedDict):
    name: str


class Param(_ParamName, total=False):
    """A form field; a file has its name, type, and its content as a ``data:`` URL."""

    value: str
    fileName: str
    contentType: str


class PostText(TypedDict):
    """A request body as text."""

    mimeType: str
    text: str


class PostParams(TypedDict):
    """A request body as form fields."""

    mimeType: str
    params: list[Param]


class _ContentText(TypedDict):
    text: str
    size: int
    mimeType: str


class Content(_ContentText, total=False):
    """A response body: text, or base64 where it is binary."""

    encoding: Literal["base64"]


class _RequestHead(TypedDict):
    method: str
    url: str
    httpVersion: str
    headers: list[NameValue]
    queryString: list[NameValue]
    cookies: list[NameValue]
    headersSize: int
    bodySize: int


class Request(_RequestHead, total=False):
    """A request; ``postData`` only where there was a body."""

    postData: PostText | PostParams


class Response(TypedDict):
    """A response."""

    status: int
    statusText: str
    httpVersion: str
    headers: list[NameValue]
    cookies: list[NameValue]
    redirectURL: str
    headersSize: int
    bodySize: int
    content: Content


class Timings(TypedDict):
    """Milliseconds."""

    send: int
    wait: float
    receive: int


class HarEntry(TypedDict):
    """One request with its response."""

    pageref: str
    startedDateTime: str
    time: float
    request: Request
    response: Response
    cache: dict[str, str]
    timings: Timings


class Creator(TypedDict):
    """Who wrote the log."""

    name: str
    version: str
    comment: str


class Log(TypedDict):
    """A HAR 1.2 log of one entry."""

    version: str
    creator: Creator
    entries: list[HarEntry]


class _GroupId(TypedDict):
    id: str


class WireGroup(_GroupId, total=False):
    """Who called; ``id`` masked."""

    label: str
    email: str


class WireRequest(TypedDict):
    """What wraps the log."""

    log: Log


class WireEntry(TypedDict):
    """One entry of the array that is posted."""

    _id: str
    _version: int
    group: WireGroup
    clientIPAddress: str
    development: bool
    request: WireRequest
