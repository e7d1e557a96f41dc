"""Our failure is never the host's, and no loss is silent."""

from __future__ import annotations

import logging

import pytest

from readme_metrics import guard as guard_module
from readme_metrics.guard import MOST_REASONS, REPEAT_AFTER_S, Guard


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(clock: Clock) -> Guard:
    return Guard("Capturing a request", "its log is lost", clock=clock)


def fail(guard: Guard, error: BaseException) -> None:
    with guard:
        raise error


def sentences(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]


def test_an_exception_is_caught_counted_and_logged_with_its_type_and_place(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    fail(guard, ValueError("x"))

    assert 1 == guard.failures
    (sentence,) = sentences(caplog)
    assert sentence.startswith("Capturing a request failed (ValueError at test_guard.py:")
    assert sentence.endswith("): its log is lost")
    assert caplog.records[0].levelno == logging.ERROR


def test_nothing_that_the_exception_says_is_logged_at_any_level(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    with guard:
        try:
            int("sk-planted-secret")
        except ValueError as error:
            raise KeyError("sk-planted-secret") from error
    guard.warn("a warning")

    assert "sk-planted-secret" not in caplog.text


def test_the_frames_are_shown_at_debug_level_only(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    fail(guard, ValueError("x"))

    said, shown = caplog.records
    assert [logging.ERROR, logging.DEBUG] == [said.levelno, shown.levelno]
    first, *frames = shown.getMessage().splitlines()
    assert first == said.getMessage()
    assert [f'  File "{__file__}", line {fail.__code__.co_firstlineno + 2}, in fail'] == frames


def test_a_reason_is_logged_once_and_again_after_an_hour_with_its_count(
    guard: Guard, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        fail(guard, ValueError("x"))
    clock.now = REPEAT_AFTER_S
    fail(guard, ValueError("x"))
    fail(guard, ValueError("x"))

    assert 7 == guard.failures
    first, second = sentences(caplog)
    assert second == f"{first} (6 times so far)"


def test_another_reason_is_logged_beside_the_first(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    fail(guard, ValueError("x"))
    fail(guard, KeyError("x"))

    assert [True, True] == [
        name in line for name, line in zip(["ValueError", "KeyError"], sentences(caplog), strict=True)
    ]


def test_the_reasons_remembered_are_bounded(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(MOST_REASONS + 10):
        guard.warn(f"reason {number}")

    assert MOST_REASONS == len(sentences(caplog))


@pytest.mark.parametrize("kind", [GeneratorExit, KeyboardInterrupt, SystemExit])
def test_what_belongs_to_the_host_passes(guard: Guard, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        fail(guard, kind())

    assert 0 == guard.failures


def test_a_log_handler_that_raises_does_not_reach_the_host(guard: Guard) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise OSError("no space left for logs")

    handler = Broken()
    logging.getLogger("readme_metrics").addHandler(handler)
    try:
        fail(guard, ValueError("x"))
    finally:
        logging.getLogger("readme_metrics").removeHandler(handler)

    assert 1 == guard.failures


def test_a_warning_is_said_once(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    guard.warn("extra keys are left out")
    guard.warn("extra keys are left out")

    assert [(logging.WARNING, "extra keys are left out")] == [(r.levelno, r.getMessage()) for r in caplog.records]


def test_the_place_names_our_line_and_the_one_we_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs() -> None:
        raise KeyError

    guard = Guard("x", "y", clock=theirs)  # type: ignore[arg-type]  # a clock that fails stands for code we call
    try:
        guard._due("z")
    except KeyError as error:
        place = guard_module.place_of(error)

    ours, _, called = place.partition(" > ")
    assert ["guard.py", "test_guard.py"] == [ours.partition(":")[0], called.partition(":")[0]]
