"""Where the floors meet: an exchange becomes an entry, the entry goes into the queue, the flusher is told."""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any

from readme_metrics.entry import build_entry
from readme_metrics.pipeline import Pipeline, pipeline_for
from readme_metrics.redaction import Redaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from readme_metrics.config import MetricsApiConfig
    from readme_metrics.exchange import Exchange, Group


def open_recorder(config: MetricsApiConfig) -> Recorder:
    """Give the recorder of one configuration; opens no file and starts no thread."""
    return Recorder(config, pipeline_for(config))


class Recorder:
    """Records exchanges as one configuration says; apps with the same directory, server and key share its pipeline."""

    def __init__(self, config: MetricsApiConfig, pipeline: Pipeline) -> None:
        self._redaction = Redaction(allowlist=config.allowlist, denylist=config.denylist)
        self._development = config.development_mode
        self._max_body_bytes = config.max_body_bytes
        self._pipeline = pipeline

    def record(self, exchange: Exchange, group: Group, *mounted: Redaction) -> None:
        """Store one exchange; under the guard of whoever captured it. ``mounted``: lists that count beside our own."""
        self._pipeline.put(
            build_entry(
                exchange,
                group,
                redaction=_joined(self._redaction, *mounted) if mounted else self._redaction,
                development=self._development,
                max_body_bytes=self._max_body_bytes,
            )
        )

    def serve(self, serves: Callable[[], bool]) -> None:
        """Send what an earlier run left, soon and without traffic, if ``serves()`` then says that we serve."""
        self._pipeline.serve(serves)

    def flush(self, timeout_s: float) -> int:
        """Drain now, for at most ``timeout_s``; how many entries still wait."""
        return self._pipeline.flush(timeout_s)

    def status(self) -> dict[str, Any]:
        """The queue's figures and this process's own."""
        return self._pipeline.status()


@lru_cache(64)
def _joined(*lists: Redaction) -> Redaction:
    return reduce(Redaction.joined, lists)
