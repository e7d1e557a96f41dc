"""What the drain's tests share: a queue in memory, a scripted server and a clock of our own."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from readme_metrics.drain import Drain, Ending
from readme_metrics.queue.memory import MemoryQueue
from readme_metrics.verdict import Kind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DELIVERED = Verdict(Kind.DELIVERED, "200 OK", 200)
LATER = Verdict(Kind.LATER, "503 Service Unavailable", 503)
REFUSED = Verdict(Kind.REFUSED, "401 Unauthorized: check the key", 401)
REJECTED = Verdict(Kind.REJECTED, "400 Bad Request", 400, answer="no such field")
TOO_LARGE = Verdict(Kind.TOO_LARGE, "413 Content Too Large", 413)
UNANSWERED = Verdict(Kind.LATER, "no answer in 3 s", unanswered=True)


class Bench:
    """A queue, a drain, and a server that answers each POST by ``judge``."""

    def __init__(self, judge: Callable[[list[str]], Verdict] = lambda _: DELIVERED, **options: Any) -> None:
        self.time = 1_000_000.0
        self.judge = judge
        self.posts: list[list[str]] = []
        self.limits: list[tuple[int, float | None]] = []
        self.stop = threading.Event()
        self.queue = MemoryQueue(now=lambda: self.time)
        settings: dict[str, Any] = {"batch_length": 10, "flush_interval_s": 60.0, "timeout_s": 3.0, "stop": self.stop}
        settings.update(options)
        self.drain = Drain(self.queue, self.send, now=lambda: self.time, clock=lambda: self.time, **settings)
        self._posting = threading.Lock()

    def send(
        self,
        entries: Sequence[bytes],
        *,
        max_attempts: int = 3,
        timeout_s: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Outcome:
        names = [json.loads(entry) for entry in entries]
        with self._posting:
            self.posts.append(names)
            self.limits.append((max_attempts, timeout_s))
            if meanwhile is not None:
                meanwhile()
            return Outcome(self.judge(names), 1)

    def put(self, count: int, prefix: str = "e") -> list[str]:
        names = [f"{prefix}{number}" for number in range(count)]
        for name in names:
            self.queue.put(json.dumps(name).encode())
        return names

    def run(self, *, everything: bool = True, **options: Any) -> Ending:
        return self.drain.run(everything=everything, **options)

    def sent(self) -> list[str]:
        return [name for post in self.posts for name in post]

    def wait_out_the_hold(self) -> None:
        hold = self.queue.hold()
        assert hold is not None
        self.time = hold.until
