"""The API of the demo: five kinds of answers, each logged by readme-metrics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flask import Flask, jsonify, request

from readme_metrics import MetricsApiConfig
from readme_metrics.flask_readme import ReadMeMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Request, Response

app = Flask("demo")


def who(current: Request) -> dict[str, str]:
    """Tell ReadMe who called."""
    return {"api_key": current.headers.get("X-Api-Key", ""), "label": "Ada", "email": "ada@example.com"}


metrics_extension = ReadMeMetrics(
    MetricsApiConfig(
        api_key=os.environ["README_API_KEY"],
        grouping_function=who,
        base_log_url="https://docs.example.com",
        denylist=["password"],
        flush_interval=1,
    )
)
metrics_extension.init_app(app)


@app.post("/orders")
def order() -> tuple[Response, int]:
    """Take JSON with a secret, answer the same."""
    return jsonify(request.get_json()), 201


@app.post("/login")
def login() -> Response:
    """Take a form with a secret."""
    return jsonify(welcome=request.form["user"])


@app.post("/photos")
def photo() -> Response:
    """Take an upload."""
    return jsonify(size=len(request.files["photo"].read()))


@app.get("/export")
def export() -> Response:
    """Answer with a stream."""

    def rows() -> Iterator[str]:
        for number in range(20):
            yield f"row {number}\n"

    return app.response_class(rows(), mimetype="text/csv")


@app.get("/broken")
def broken() -> Response:
    """Fail."""
    raise RuntimeError("this view always fails; the demo wants to see that it is logged too")
