"""How users write it, for mypy only: right use must pass, wrong use must be found (an unused ignore is an error)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, request

from readme_metrics import MetricsApiConfig, __version__
from readme_metrics.flask_readme import ReadMeMetrics
from readme_metrics.VerifyWebhook import VerificationError, VerifyWebhook

if TYPE_CHECKING:
    from flask import Request

VERSION: str = __version__


def grouping_function(current: Request) -> dict[str, str] | None:
    """Tell who called."""
    key = current.headers.get("X-Api-Key")
    return {"api_key": key, "label": "Ada", "email": "ada@example.com"} if key else None


def with_the_least() -> MetricsApiConfig:
    return MetricsApiConfig("key", grouping_function)


def with_positions_of_3() -> MetricsApiConfig:
    return MetricsApiConfig(
        "key", "myapp.auth.grouping_function", None, 10, False, True, ["id"], None, None, None, ["localhost"], 3
    )


def with_every_option() -> MetricsApiConfig:
    return MetricsApiConfig(
        api_key="key",
        grouping_function=grouping_function,
        base_log_url="https://docs.example.com",
        buffer_length=10,
        development_mode=True,
        background_worker_mode=True,
        allowlist=["id", "user.name"],
        denylist=("password",),
        blacklist={"secret"},
        whitelist=None,
        allowed_http_hosts=["api.example.com"],
        timeout=2.5,
        queue_path=Path("/var/lib/readme-metrics"),
        flush_interval=10,
        auto_flush=True,
        max_queue_bytes=512 * 1024 * 1024,
        max_body_bytes=1024 * 1024,
        shutdown_timeout=2,
        fsync=False,
    )


def with_wrong_options() -> None:
    MetricsApiConfig()  # type: ignore[call-arg]  # the key and the grouping function are required
    MetricsApiConfig("key", grouping_function, queue="/var")  # type: ignore[call-arg]  # no such option
    MetricsApiConfig("key", grouping_function, buffer_length="10")  # type: ignore[arg-type]  # a whole number
    MetricsApiConfig("key", grouping_function, denylist=[1])  # type: ignore[list-item]  # names are texts
    with_the_least().buffer_length = 5  # type: ignore[misc]  # a config is frozen


def in_a_factory() -> Flask:
    app = Flask(__name__)
    metrics_extension = ReadMeMetrics(with_the_least())
    metrics_extension.init_app(app)
    return app


def at_once() -> tuple[int, int, dict[str, object]]:
    metrics_extension = ReadMeMetrics(with_every_option(), Flask(__name__))
    return metrics_extension.flush(), metrics_extension.flush(timeout_s=1.5), metrics_extension.status()


def webhook(secret: str) -> tuple[dict[str, str], int]:
    signature: str | None = request.headers.get("readme-signature")
    try:
        VerifyWebhook(request.get_data(), signature, secret)
        VerifyWebhook(request.get_data(as_text=True), signature, secret)
        VerifyWebhook(request.get_json(), signature, secret)
    except VerificationError as error:
        return {"error": str(error)}, 401
    return {}, 200
