"""Every error this package raises, drawn as a tree.

MetricsError
├── ConfigurationError (also a ValueError)   a wrong option: names option, value found, what is allowed
└── QueueError                               the queue's file or directory
    ├── QueueUnavailable                     cannot be opened at all: permissions, owner, links, a newer schema
    └── NotAccepted                          this one entry was not stored; ``reason`` says why, one word a figure

Set-up and commands raise them. On the request path ``guard`` keeps them from the host app.
"""

from __future__ import annotations


class MetricsError(Exception):
    """Any error of this package."""


class ConfigurationError(MetricsError, ValueError):
    """A wrong option value; the message names the option, the value found and what is allowed."""


class QueueError(MetricsError):
    """The queue's directory or file cannot serve."""


class QueueUnavailable(QueueError):
    """The queue's file cannot be opened at all; the message names the fix."""


class NotAccepted(QueueError):
    """One entry was not stored.

    ``reason`` is the figure it is counted under in ``not_accepted``: ``no space``, ``file locked``,
    ``WAL limit``, ``memory full``.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason
