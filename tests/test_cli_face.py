"""The commands as a whole: the group, ``flask readme-metrics``, ``inspect``, completion, and what they may import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import flask
import pytest
import requests
from click.testing import CliRunner
from flask.cli import FlaskGroup

from readme_metrics import MetricsApiConfig, __version__
from readme_metrics.flask_readme import ReadMeMetrics
from tests.commanding import OTHER_KEY, Host, ended

if TYPE_CHECKING:
    from pathlib import Path

    from tests.metrics_server import MetricsServer

COMMANDS = ["dead-letters", "doctor", "flush", "inspect", "status"]
LEAVES = [("flush",), ("status",), ("doctor",), ("inspect",)] + [
    ("dead-letters", name) for name in ("list", "show", "requeue", "purge")
]


@pytest.fixture
def host(tmp_path: Path, server: MetricsServer) -> Host:
    return Host(tmp_path / "queue", server.url)


def test_help_lists_every_command(host: Host) -> None:
    shown = host.run("--help").out
    assert COMMANDS == [line.split()[0] for line in shown.partition("Commands:\n")[2].splitlines() if line[2] != " "]


@pytest.mark.parametrize("command", LEAVES)
def test_every_command_has_the_common_options_and_warns_of_ps(host: Host, command: tuple[str, ...]) -> None:
    shown = host.run(*command, "--help").out
    assert [] == [name for name in ("--queue-path", "--api-key", "--json", "README_API_KEY") if name not in shown]
    assert "Arguments show in ps" in shown
    assert [] == [line for line in shown.splitlines() if len(line) > 80]


def test_options_go_before_the_environment(host: Host, tmp_path: Path) -> None:
    host.put(2)
    elsewhere = {"README_METRICS_QUEUE_PATH": str(tmp_path / "elsewhere"), "README_API_KEY": OTHER_KEY}
    ran = host.run("flush", "--queue-path", str(host.directory), "--api-key", host.key, **elsewhere)
    assert 0 == ran.status
    assert "2 entries delivered" in ran.out


def test_a_link_to_the_directory_is_followed(host: Host, tmp_path: Path) -> None:
    host.put(1)
    (tmp_path / "link").symlink_to(host.directory)
    assert "1 entry delivered" in host.run("flush", "--queue-path", str(tmp_path / "link")).out


def test_the_version_is_the_packages(host: Host) -> None:
    assert f"{__version__}\n" == host.run("--version").out


def test_shells_complete_commands_and_options(host: Host) -> None:
    words = {
        "_README_METRICS_COMPLETE": "bash_complete",
        "COMP_WORDS": "readme-metrics dead-letters re",
        "COMP_CWORD": "2",
    }
    code = "import sys; sys.argv = ['readme-metrics']; from readme_metrics.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **words},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert "plain,requeue\n" == done.stdout


def test_the_commands_do_without_flask(host: Host) -> None:
    host.put(1)
    code = """
import sys
sys.modules["flask"] = sys.modules["werkzeug"] = None  # as if they were not installed
from readme_metrics.cli import main
main()
"""
    assert 0 == ended(host.start_python("-c", code, "flush")).status
    ran = ended(host.start_python("-c", code, "inspect"))
    assert 1 == ran.status
    assert 'pip install "readme-metrics[Flask]"' in ran.err


def test_inspect_serves_its_page_until_ctrl_c(host: Host) -> None:
    with host.start("inspect", "--port", "0") as process:
        assert process.stdout is not None
        shown = [process.stdout.readline() for _ in range(5)]
        url = shown[2].split()[1]
        page = requests.get(url, timeout=10)
        process.send_signal(signal.SIGINT)
        ran = ended(process)
    assert (200, 0) == (page.status_code, ran.status)
    assert f"  README_METRICS_SERVER={url}\n" == shown[4]
    assert "Traceback" not in ran.err


# -- flask readme-metrics


def _flask(app: flask.Flask, *arguments: str) -> tuple[int, str]:
    taken_back = {
        "README_METRICS_QUEUE_PATH": "/nonexistent",
        "README_API_KEY": "of somewhere else",
        "FLASK_RUN_FROM_CLI": "true",  # Flask sets it itself, and leaves it
    }
    result = CliRunner(env=taken_back).invoke(FlaskGroup(create_app=lambda: app), ["readme-metrics", *arguments])
    return result.exit_code, result.output


def test_flask_uses_the_apps_own_directory_server_and_key(
    host: Host, server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("README_METRICS_SERVER", server.url)
    app = flask.Flask("api")
    config = MetricsApiConfig(host.key, lambda _: None, queue_path=host.directory, buffer_length=2, auto_flush=False)
    ReadMeMetrics(config, app)
    ids = host.put(5)
    status, out = _flask(app, "status")
    assert 0 == status
    assert f"Queue {host.file.name} (this key and server)" in out
    status, out = _flask(app, "flush")
    assert 0 == status
    assert sorted(ids) == sorted(server.taken_ids)
    assert [1, 2, 2] == sorted(len(post.ids) for post in server.posts)


def test_flask_says_what_an_app_without_the_extension_lacks() -> None:
    status, out = _flask(flask.Flask("bare"), "status")
    assert 78 == status
    assert "the app 'bare' has no ReadMeMetrics extension: call ReadMeMetrics(config).init_app(app)" in out


def test_flask_lists_the_same_commands() -> None:
    _, out = _flask(flask.Flask("bare"), "--help")
    assert [] == [name for name in COMMANDS if f"  {name} " not in out]
