"""Where a command works: the directory, the server and the key, and the queue file that follows from them.

A link to a directory is followed once, as the queue does.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from readme_metrics.config import check_api_key, queue_directory, queue_file_name, server_from_environment
from readme_metrics.errors import ConfigurationError
from readme_metrics.queue import files

if TYPE_CHECKING:
    from pathlib import Path

    from readme_metrics.config import MetricsApiConfig


@dataclass(frozen=True, slots=True)
class Place:
    """What an app would take from its configuration, a command takes from its options and the environment."""

    directory: Path
    server: str
    api_key: str | None
    """None: nobody said; enough for what only looks."""
    chosen: bool
    """Somebody named the directory; False: it is the user's state directory."""
    batch_length: int = 10
    timeout_s: float = 3.0

    @property
    def key(self) -> str:
        """The key; raises ``ConfigurationError`` where nobody said it."""
        if self.api_key is None:
            raise ConfigurationError(
                "no API key: set README_API_KEY to the key that the app uses (ReadMe shows it under "
                "Settings > API keys), or give --api-key"
            )
        return self.api_key

    @property
    def file(self) -> Path:
        """The queue file of this server and key."""
        return self.directory / queue_file_name(self.server, self.key)

    def only_file(self) -> Path:
        """The queue file of this server and key; without a key, the only one of the directory."""
        found = files.queue_files(self.directory)
        if self.api_key is None and len(found) == 1:
            return found[0]
        return self.file

    def other_files(self, file: Path) -> list[Path]:
        """The directory's other queue files."""
        return [found for found in files.queue_files(self.directory) if found.name != file.name]

    def wrong_user(self, file: Path | None = None) -> str | None:
        """Who owns the directory, or the file, and what to type, where it is not this user (root too)."""
        for path, what in ((self.directory, "directory"), (file, "file")):
            if path is not None and files.exists(path) and (owner := files.stranger(path.stat())):
                return f"the queue's {what} {path} belongs to {owner}: run as that user (sudo -u {owner} …)"
        return None

    def unreadable(self) -> str | None:
        """Why no queue file could be seen here even if there were one."""
        try:
            is_directory = stat.S_ISDIR(self.directory.stat().st_mode)
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"the queue's directory {self.directory} cannot be read ({error.strerror}): {files.FIX}"
        if not is_directory:
            return f"the queue's directory {self.directory} is not a directory: {files.FIX}"
        usable = os.access(self.directory, os.R_OK | os.W_OK | os.X_OK)
        return None if usable else f"the queue's directory {self.directory} cannot be written: {files.FIX}"


def place_of_environment(queue_path: str | None, api_key: str | None) -> Place:
    """Read options first, then README_METRICS_QUEUE_PATH, README_METRICS_SERVER and README_API_KEY."""
    key = api_key or os.environ.get("README_API_KEY") or None
    return Place(
        directory=queue_directory(queue_path or None).resolve(),
        server=server_from_environment(),
        api_key=None if key is None else check_api_key(key),
        chosen=bool(queue_path or os.environ.get("README_METRICS_QUEUE_PATH")),
    )


def place_of_app(config: MetricsApiConfig, queue_path: str | None, api_key: str | None) -> Place:
    """Read options first, then the app's own configuration."""
    return Place(
        directory=queue_directory(queue_path or config.queue_path).resolve(),
        server=config.server,
        api_key=check_api_key(api_key or config.api_key),
        chosen=bool(queue_path) or not config.queue_path_is_default,
        batch_length=config.buffer_length,
        timeout_s=config.timeout,
    )
