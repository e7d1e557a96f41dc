"""Bodies seen in passing: tees that neither steal, delay nor reorder a byte.

A ``Sight`` keeps what passes up to a cap and counts the rest. ``RequestTee`` stands under ``wsgi.input``; it reads
nothing of its own accord but in ``read_rest``. ``ResponseTee`` stands before the app's iterable and tells a
``Follower`` of each chunk *before* it hands it on, so that an entry can be on disk before a client has its last byte.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from readme_metrics.exchange import NO_BODY, Body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from readme_metrics.guard import Guard

READ_BYTES: Final = 64 * 1024
"""Most that is asked of a client's connection at once."""


class Sight:
    """The bytes of a body up to ``max_bytes``, and its true size; memory stays bounded however small the chunks."""

    __slots__ = ("_data", "_max_bytes", "size")

    def __init__(self, max_bytes: int) -> None:
        self._data = bytearray()
        self._max_bytes = max_bytes
        self.size = 0

    def add(self, data: bytes) -> None:
        """See one more piece."""
        self.size += len(data)
        if self.size <= self._max_bytes:
            self._data += data
        elif self._data:
            self._data = bytearray()

    def body(self) -> Body:
        """All that was seen, as a whole body."""
        return Body(bytes(self._data) if self.size <= self._max_bytes else None, self.size)


class RequestTee:
    """``wsgi.input``, seen in passing; what it does not know it passes through, so it offers just what the stream has.

    A body that is rewound and read again counts once.
    """

    __slots__ = ("_ended", "_guard", "_position", "_sight", "_stream")

    def __init__(self, stream: Any, max_bytes: int, guard: Guard) -> None:
        self._stream = stream
        self._sight = Sight(max_bytes)
        self._guard = guard
        self._position = 0
        self._ended = False

    def read(self, *args: Any) -> bytes:
        """As the stream's."""
        return self._seen(self._stream.read(*args), *args)

    def readline(self, *args: Any) -> bytes:
        """As the stream's."""
        line: bytes = self._stream.readline(*args)
        return self._seen(line, _at_least_one(args))

    def readlines(self, *args: Any) -> list[bytes]:
        """As the stream's."""
        lines: list[bytes] = self._stream.readlines(*args)
        self._seen(b"".join(lines), *args)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            yield self._seen(line, 1)
        self._ended = True

    def __next__(self) -> bytes:
        return self._seen(next(self._stream), 1)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._stream, name)
        if name == "readall":
            return lambda: self._seen(attribute())
        if name == "read1":
            return lambda *args: self._seen(attribute(*args), _at_least_one(args))
        if name in {"readinto", "readinto1"}:
            return partial(self._read_into, attribute)
        return partial(self._seek, attribute) if name == "seek" else attribute

    def read_rest(self, size: int) -> None:
        """Read what the app left unread of a body of ``size`` bytes; waits for a client that stalls."""
        while self._sight.size < size:
            if not self.read(min(size - self._sight.size, READ_BYTES)):
                return

    def body(self, declared: int | None, *, chunked: bool) -> Body:
        """What is known of the body: whole where all of it passed, else only its size."""
        sight = self._sight
        if declared is not None:
            return sight.body() if sight.size >= declared else Body(None, declared)
        if self._ended or not chunked:
            return sight.body() if sight.size else NO_BODY
        return Body(None, None)

    def _seen(self, data: bytes, wanted: int | None = -1, *_: Any) -> bytes:
        with self._guard:
            new = self._position + len(data) - self._sight.size
            if 0 < new <= len(data):  # not read before, and nothing skipped by a seek
                self._sight.add(data[-new:])
            self._position += len(data)
            to_the_end = wanted is None or wanted < 0 or (not data and wanted > 0)
            self._ended = self._ended or (to_the_end and self._position == self._sight.size)
        return data

    def _read_into(self, readinto: Callable[[Any], int | None], buffer: Any) -> int | None:
        count = readinto(buffer)
        if count is not None:
            with memoryview(buffer) as view, view.cast("B") as octets:
                self._seen(bytes(octets[:count]), len(octets))
        return count

    def _seek(self, seek: Callable[..., int], *args: Any) -> int:
        self._position = seek(*args)
        return self._position


class EnterableRequestTee(RequestTee):
    """For a stream that ``with`` can enter; ``with`` asks the class, past ``__getattr__``."""

    __slots__ = ()

    def __enter__(self) -> Any:
        entered = self._stream.__enter__()
        return self if entered is self._stream else entered

    def __exit__(self, *error: object) -> Any:
        return self._stream.__exit__(*error)


def tee_request(stream: Any, max_bytes: int, guard: Guard) -> RequestTee:
    """The tee that offers what the stream offers."""
    return (EnterableRequestTee if hasattr(stream, "__enter__") else RequestTee)(stream, max_bytes, guard)


def _at_least_one(args: tuple[Any, ...]) -> int:
    """What a read that may stop early asked for: with no limit it need not reach the end."""
    return 0 if args[:1] == (0,) else 1


class Follower(Protocol):
    """Who is told how a response goes; each call comes before the client sees its effect, and never raises."""

    def passing(self, chunk: bytes) -> None:
        """One more chunk is about to be handed on."""

    def ended(self) -> None:
        """The iterable is about to say that it is over."""

    def broke(self) -> None:
        """The iterable raised."""

    def closing(self) -> None:
        """The server is done with it, at its end or before."""


class ResponseTee:
    """An app's iterable, followed; errors, order, ``close`` and unknown attributes are its own."""

    __slots__ = ("_body", "_follower", "_next")

    def __init__(self, body: Iterable[bytes], follower: Follower) -> None:
        self._body = body
        self._follower = follower
        self._next: Callable[[], bytes] | None = None

    def __iter__(self) -> ResponseTee:
        return self

    def __next__(self) -> bytes:
        try:
            if self._next is None:
                self._next = iter(self._body).__next__
            chunk = self._next()
        except StopIteration:
            self._follower.ended()
            raise
        except BaseException:
            self._follower.broke()
            raise
        self._follower.passing(chunk)
        return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def close(self) -> None:
        """Record first, then close: a ``close`` that hangs or raises costs no entry."""
        try:
            self._follower.closing()
        finally:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()


class SizedResponseTee(ResponseTee):
    """For an iterable that has a length, which some servers turn into a Content-Length."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]  # made only for a body that has one


def tee_response(body: Iterable[bytes], follower: Follower) -> ResponseTee:
    """The tee that offers what the body offers."""
    return (SizedResponseTee if hasattr(body, "__len__") else ResponseTee)(body, follower)
