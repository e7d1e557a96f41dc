"""Every option, once: its name, its default, its check.

The names and the positional order are those of the official SDK 3.x; what follows ``timeout`` is keyword-only. A wrong
value is refused here, when the config is made, with the option, the value found and what is allowed.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import warnings
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import urlsplit

import platformdirs

from readme_metrics.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    GroupingFunction = Callable[[Any], Any]

DEFAULT_SERVER: Final = "https://metrics.readme.io"
MIB: Final = 1024 * 1024
MOST_SECONDS: Final = 10 * 365 * 86_400
"""Ten years: what locks and events can still wait for."""
MOST_ENTRIES: Final = 1_000_000
"""In a batch, whose bytes are bounded anyway."""
MOST_BYTES: Final = 1024 * 1024 * MIB
"""A TiB: more than anyone means, and what zlib and SQLite can still count."""
SMALLEST_QUEUE_BYTES: Final = MIB
"""Below this, SQLite's own pages and one batch leave no room for entries."""


@dataclass(frozen=True)
class MetricsApiConfig:
    """The options of ``ReadMeMetrics``; immutable once made, wrong values raise ``ConfigurationError``.

    Required: ``api_key``, ``grouping_function``. What is logged: ``allowlist``, ``denylist`` (once ``whitelist`` and
    ``blacklist``), ``allowed_http_hosts``, ``max_body_bytes``, ``development_mode``, ``base_log_url``. When it is sent:
    ``buffer_length``, ``flush_interval``, ``background_worker_mode``, ``auto_flush``, ``timeout``,
    ``shutdown_timeout``. How it is kept: ``queue_path``, ``max_queue_bytes``, ``fsync``.
    """

    api_key: str = field(repr=False)
    """ReadMe API key."""
    grouping_function: GroupingFunction | str
    """Tells who called: gets ``flask.request``, returns ``{"api_key", "label", "email"}`` or None (not logged); a
    callable, or a dotted path to one."""
    base_log_url: str | None = None
    """If set, each logged response carries ``x-documentation-url: {base_log_url}/logs/{_id}``."""
    buffer_length: int = 10
    """Entries that make a batch: one POST is made when this many wait, and carries at most this many."""
    development_mode: bool = False
    """Marks the logs as development."""
    background_worker_mode: bool = True
    """True: a background thread sends. False: the request that fills the batch sends it before it returns."""
    allowlist: Iterable[str] | None = None
    """The only keys that are sent; everything else is dropped."""
    denylist: Iterable[str] | None = None
    """Keys that are never sent: their values become ``[REDACTED n]``. Overrides ``allowlist``."""
    blacklist: Iterable[str] | None = None
    """Deprecated name of ``denylist``."""
    whitelist: Iterable[str] | None = None
    """Deprecated name of ``allowlist``."""
    allowed_http_hosts: Iterable[str] | None = None
    """Log only requests whose Host header is one of these (any case, with or without port)."""
    timeout: float = 3
    """Seconds for each call to ReadMe: to connect, and to be answered once all is sent."""
    _: KW_ONLY
    queue_path: str | os.PathLike[str] | None = None
    """Directory of the queue; None: README_METRICS_QUEUE_PATH, else the user's state directory."""
    flush_interval: float = 10
    """Seconds an entry may wait for its batch to fill."""
    auto_flush: bool = True
    """False: only write to the queue; something else (cron) sends."""
    max_queue_bytes: int = 512 * MIB
    """Bound of what the queue's file holds; above it the oldest are dropped, counted."""
    max_body_bytes: int = MIB
    """A body above it is not kept; its size stays true."""
    shutdown_timeout: float = 2
    """Seconds a leaving process may spend on a last flush; the rest stays on disk."""
    fsync: bool = False
    """True: an entry survives power loss too; costs one disk flush a request."""
    server: str = field(init=False)
    """Where logs go: README_METRICS_SERVER, else ReadMe."""
    queue_path_is_default: bool = field(init=False, repr=False)
    """Nobody chose the queue's directory: neither ``queue_path`` nor README_METRICS_QUEUE_PATH."""

    def __post_init__(self) -> None:
        """Check each option once and bring it into its final form."""
        self._set("api_key", check_api_key(self.api_key))
        self._set("grouping_function", _callable("grouping_function", self.grouping_function))
        self._set("base_log_url", _base_log_url(self.base_log_url))
        self._set("buffer_length", _whole("buffer_length", self.buffer_length, least=1, most=MOST_ENTRIES))
        for option in ("development_mode", "background_worker_mode", "auto_flush", "fsync"):
            _boolean(option, getattr(self, option))
        self._set_lists()
        self._set("timeout", _seconds("timeout", self.timeout, positive=True))
        self._set("queue_path_is_default", self.queue_path is None and not os.environ.get("README_METRICS_QUEUE_PATH"))
        self._set("queue_path", queue_directory(self.queue_path))
        self._set("flush_interval", _seconds("flush_interval", self.flush_interval))
        for option, least in (("max_queue_bytes", SMALLEST_QUEUE_BYTES), ("max_body_bytes", 0)):
            self._set(option, _whole(option, getattr(self, option), least=least, most=MOST_BYTES))
        self._set("shutdown_timeout", _seconds("shutdown_timeout", self.shutdown_timeout))
        self._set("server", server_from_environment())

    def _set(self, option: str, value: object) -> None:
        object.__setattr__(self, option, value)

    def _set_lists(self) -> None:
        for option, deprecated in (("allowlist", "whitelist"), ("denylist", "blacklist")):
            names = _keys(option, getattr(self, option))
            old_names = _keys(deprecated, getattr(self, deprecated))
            if old_names is not None:
                message = f"{deprecated} is deprecated: use {option}"
                warnings.warn(message, DeprecationWarning, stacklevel=4)
            if names and old_names and option == "denylist":
                names = (*names, *old_names)
            self._set(option, names or old_names)
            self._set(deprecated, None)
        if self.denylist and self.allowlist:
            warnings.warn("denylist overrides allowlist: set one of the two", UserWarning, stacklevel=4)
            self._set("allowlist", None)
        self._set("allowed_http_hosts", _names("allowed_http_hosts", self.allowed_http_hosts))


def server_from_environment() -> str:
    """README_METRICS_SERVER, checked, or ReadMe's own address; without a trailing slash."""
    server = os.environ.get("README_METRICS_SERVER") or DEFAULT_SERVER
    if not _is_web_address(server):
        _refuse("README_METRICS_SERVER", server, "a URL such as https://metrics.readme.io")
    return server.rstrip("/")


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, or a port that is no number
        return False


def queue_directory(queue_path: object) -> Path:
    """The directory that was named, else README_METRICS_QUEUE_PATH, else the user's state directory; absolute."""
    if queue_path is not None:
        return _directory("queue_path", queue_path)
    if named := os.environ.get("README_METRICS_QUEUE_PATH"):
        return _directory("README_METRICS_QUEUE_PATH", named)
    return platformdirs.user_state_path("readme-metrics").absolute()


def queue_file_name(server: str, api_key: str) -> str:
    """Name of the queue file of one server and key: the first 16 hex digits of a hash of both."""
    return hashlib.sha256(f"{server}\n{api_key}".encode()).hexdigest()[:16] + ".sqlite"


def check_api_key(api_key: object) -> str:
    """Return the key, or raise without ever showing a value that may be a secret."""
    if not isinstance(api_key, str):
        raise ConfigurationError(f"api_key is of type {type(api_key).__name__}; allowed: a non-empty string")
    if not api_key.strip() or not api_key.isprintable() or not api_key.isascii():
        raise ConfigurationError(
            f"api_key is a string of {len(api_key)} characters that cannot be a key; allowed: a non-empty string of "
            "printable ASCII characters, as ReadMe shows it under Settings > API keys"
        )
    return api_key


def _refuse(option: str, found: object, allowed: str) -> NoReturn:
    raise ConfigurationError(f"{option} is {found!r}; allowed: {allowed}")


def _callable(option: str, value: object) -> Any:
    found = _resolve(option, value) if isinstance(value, str) else value
    if not callable(found):
        _refuse(option, value, "a callable, or a dotted path to one such as 'myapp.auth.grouping_function'")
    return found


def _resolve(option: str, dotted: str) -> object:
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{option} is {dotted!r}, which cannot be imported ({error}); allowed: a callable, or a dotted path to one"
        ) from error


def _base_log_url(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isprintable() or not value.isascii() or "://" not in value:
        _refuse("base_log_url", value, "None, or a URL such as https://docs.example.com")
    return value.rstrip("/")


def _whole(option: str, value: object, *, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        _refuse(option, value, f"a whole number, {least} or more, {most} at most")
    return value


def _seconds(option: str, value: object, *, positive: bool = False) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    seconds = float(value) if is_number and abs(value) <= MOST_SECONDS else -1.0  # type: ignore[arg-type]  # a number
    if not seconds >= 0 or (positive and seconds == 0):
        least = " above 0" if positive else ", 0 or more"
        _refuse(option, value, f"a number of seconds{least}, {MOST_SECONDS} at most")
    return seconds


def _boolean(option: str, value: object) -> None:
    if not isinstance(value, bool):
        _refuse(option, value, "True or False")


def _directory(option: str, value: object) -> Path:
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        _refuse(option, value, "the path of a directory")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # ~name of nobody here
        _refuse(option, value, "the path of a directory")


def _keys(option: str, value: Any) -> tuple[str, ...] | None:
    """Names without blanks around them: those are a slip, and would match nothing."""
    names = _names(option, value)
    if any(name != name.strip() for name in names or ()):
        _refuse(option, value, "None, or a list of non-empty strings without blanks around them")
    return names


def _names(option: str, value: Any) -> tuple[str, ...] | None:
    """A tuple of texts; an empty list is the same as None."""
    if value is None:
        return None
    wrong = isinstance(value, (str, bytes)) or not hasattr(value, "__iter__")
    names = () if wrong else tuple(value)
    if wrong or not all(isinstance(name, str) and name for name in names):
        _refuse(option, value, "None, or a list of non-empty strings")
    return names or None
