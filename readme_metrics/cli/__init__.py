"""The ``readme-metrics`` command group: what a person runs. It never imports flask.

``group`` holds them together with ``flush`` and ``dead_letters``; ``base`` is what they share. Below, without click:
what they do (``flushing``, ``doctor``), where (``place``), and how it reads (``status_text``, ``figures``).
"""

from readme_metrics.cli.group import main

__all__ = ["main"]
