"""``flask readme-metrics``: the same commands, with the app's own directory, server and key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from flask.cli import ScriptInfo

from readme_metrics.cli.base import PLACE, Group
from readme_metrics.cli.group import COMMANDS
from readme_metrics.cli.place import place_of_app
from readme_metrics.config import MetricsApiConfig
from readme_metrics.errors import ConfigurationError

if TYPE_CHECKING:
    from readme_metrics.cli.place import Place


@click.group("readme-metrics", cls=Group, commands=list(COMMANDS))
@click.pass_context
def group(context: click.Context) -> None:
    """Look after the queue of logs between this app and ReadMe."""

    def place(queue_path: str | None, api_key: str | None) -> Place:
        return place_of_app(_config(context), queue_path, api_key)

    context.meta[PLACE] = place


def _config(context: click.Context) -> MetricsApiConfig:
    app = context.ensure_object(ScriptInfo).load_app()
    config = getattr(app.extensions.get("readme_metrics"), "config", None)
    if not isinstance(config, MetricsApiConfig):
        raise ConfigurationError(
            f"the app {app.name!r} has no ReadMeMetrics extension: call ReadMeMetrics(config).init_app(app), or use "
            "the command readme-metrics"
        )
    return config
