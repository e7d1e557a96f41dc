"""Tees show a body as it is, keep what fits, count all, and offer what they stand before."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readme_metrics.body import RequestTee, ResponseTee, Sight, tee_request, tee_response
from readme_metrics.exchange import NO_BODY, Body
from readme_metrics.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GUARD = Guard("a test", "nothing")


def tee_of(body: bytes, max_bytes: int = 1000) -> RequestTee:
    return tee_request(io.BytesIO(body), max_bytes, GUARD)


def into(method: str, size: int) -> Callable[[Any], object]:
    def read(stream: Any) -> object:
        buffer = bytearray(size)
        return getattr(stream, method)(buffer), bytes(buffer)

    return read


SIZES = st.integers(-1, 12)
READS = st.one_of(
    st.builds(lambda size: lambda stream: stream.read(size), SIZES),
    st.builds(lambda size: lambda stream: stream.readline(size), SIZES),
    st.builds(lambda size: lambda stream: stream.readlines(size), SIZES),
    st.builds(lambda size: lambda stream: stream.read1(size), SIZES),
    st.builds(into, st.sampled_from(["readinto", "readinto1"]), st.integers(0, 12)),
    st.builds(lambda offset: lambda stream: stream.seek(offset), st.integers(0, 5)),
    st.sampled_from(
        [
            lambda stream: stream.read(),
            lambda stream: stream.read(None),
            lambda stream: stream.readline(),
            lambda stream: stream.readlines(),
            lambda stream: next(iter(stream), b""),
            lambda stream: next(stream, b""),
            lambda stream: stream.tell(),
        ]
    ),
)


@settings(max_examples=100, deadline=None)
@given(
    body=st.lists(st.sampled_from([b"ab", b"\n", b"\xff"]), max_size=12).map(b"".join),
    reads=st.lists(READS, max_size=8),
    max_bytes=st.integers(0, 20),
)
def test_however_it_is_read_the_tee_gives_what_the_stream_gives_and_has_seen_it(
    body: bytes, reads: list[Callable[[Any], object]], max_bytes: int
) -> None:
    bare, tee = io.BytesIO(body), tee_of(body, max_bytes)

    assert [read(bare) for read in reads] == [read(tee) for read in reads]

    tee.seek(0)
    tee.read()
    assert Body(body if len(body) <= max_bytes else None, len(body)) == tee.body(len(body), chunked=False)


def test_of_a_body_that_is_chunked_only_its_end_tells_that_it_is_whole() -> None:
    tee = tee_of(b"abc")

    assert b"abc" == tee.read(3)
    assert Body(None, None) == tee.body(None, chunked=True)
    assert b"" == tee.read(3)
    assert Body(b"abc", 3) == tee.body(None, chunked=True)


@pytest.mark.parametrize(
    "read",
    [
        lambda tee: tee.read(),
        lambda tee: tee.read(-1),
        list,
        lambda tee: tee.readlines(),
        lambda tee: [*iter(tee.readline, b"")],
        lambda tee: (tee.readinto(bytearray(9)), tee.readinto(bytearray(9))),
        lambda tee: (tee.read1(9), tee.read1(9)),
    ],
)
def test_every_way_of_reading_to_the_end_is_seen_as_the_end(read: Callable[[RequestTee], object]) -> None:
    tee = tee_of(b"a\nbc")

    read(tee)

    assert Body(b"a\nbc", 4) == tee.body(None, chunked=True)


@pytest.mark.parametrize(
    "read", [lambda tee: tee.read(0), lambda tee: tee.readline(0), lambda tee: tee.readinto(bytearray())]
)
def test_reading_nothing_is_not_reaching_the_end(read: Callable[[RequestTee], object]) -> None:
    tee = tee_of(b"abc")

    read(tee)

    assert Body(None, None) == tee.body(None, chunked=True)


def test_a_raw_stream_read_to_its_end_is_whole() -> None:
    class Raw(io.RawIOBase):
        def __init__(self) -> None:
            self.left = [b"abc", b""]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            data = self.left.pop(0)
            buffer[: len(data)] = data
            return len(data)

    tee = RequestTee(Raw(), 1000, GUARD)

    assert b"abc" == tee.readall()
    assert Body(b"abc", 3) == tee.body(None, chunked=True)


def test_nothing_declared_and_nothing_read_is_no_body() -> None:
    assert NO_BODY == tee_of(b"").body(None, chunked=False)


def test_a_tee_is_a_context_manager_as_its_stream_is() -> None:
    tee: Any = tee_of(b"abc")

    with tee as entered:
        assert b"ab" == entered.read(2)

    assert tee.closed
    assert Body(None, 3) == tee.body(3, chunked=False)
    with pytest.raises(ValueError, match="closed"), tee:
        pass


def test_leaving_a_tee_suppresses_what_its_stream_suppresses() -> None:
    class Lenient(io.BytesIO):
        def __exit__(self, *_: object) -> bool:  # type: ignore[override]  # as contextlib.suppress
            return True

    lenient: Any = tee_request(Lenient(), 1000, GUARD)
    strict: Any = tee_of(b"")

    with lenient:
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), strict:
        raise ZeroDivisionError


def test_what_a_stream_cannot_enter_its_tee_cannot_either() -> None:
    class Sparse:
        def read(self, *_: Any) -> bytes:
            return b""

    streams: list[Any] = [Sparse(), tee_request(Sparse(), 1000, GUARD)]

    for stream in streams:
        with pytest.raises((TypeError, AttributeError)), stream:  # Python 3.10 raises the second
            pass


def test_memory_stays_bounded_however_small_the_pieces() -> None:
    sight = Sight(100)
    for _ in range(1000):
        sight.add(b"x")

    assert Body(None, 1000) == sight.body()
    assert bytearray() == sight._data


def test_a_stream_that_gives_no_bytes_does_not_fail_the_read() -> None:
    class Odd:
        def read(self, *_: Any) -> Any:
            return "text"

    guard = Guard("a test", "nothing")

    assert "text" == RequestTee(Odd(), 1000, guard).read(5)  # type: ignore[comparison-overlap]  # the odd answer
    assert 1 == guard.failures


class Story:
    """A follower that tells what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def passing(self, chunk: bytes) -> None:
        self.told.append(chunk)

    def ended(self) -> None:
        self.told.append("ended")

    def broke(self) -> None:
        self.told.append("broke")

    def closing(self) -> None:
        self.told.append("closing")


def test_a_follower_is_told_before_the_server_sees_it() -> None:
    story = Story()
    tee = ResponseTee([b"a", b"b"], story)

    for expected in ([b"a"], [b"a", b"b"]):
        next(tee)
        assert expected == story.told
    assert [] == list(tee)
    tee.close()
    assert [b"a", b"b", "ended", "closing"] == story.told


def test_an_error_is_told_and_goes_on_as_it_is() -> None:
    error = KeyboardInterrupt()

    def chunks() -> Iterator[bytes]:
        yield b"a"
        raise error

    story = Story()
    tee = ResponseTee(chunks(), story)
    next(tee)

    with pytest.raises(KeyboardInterrupt) as raised:
        next(tee)
    assert error is raised.value
    assert [b"a", "broke"] == story.told


def test_closing_is_told_before_the_iterable_closes_and_its_error_goes_on() -> None:
    story = Story()

    class Closing(list[bytes]):
        def close(self) -> None:
            assert ["closing"] == story.told
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        tee_response(Closing(), story).close()


def test_a_tee_has_a_length_where_the_iterable_has() -> None:
    sized: Any = tee_response([b"a"], Story())

    assert 1 == len(sized)
    assert not hasattr(tee_response(iter([b"a"]), Story()), "__len__")
