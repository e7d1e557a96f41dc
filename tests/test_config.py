"""Every option: its default, what it takes, and how a wrong value is refused."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from readme_metrics import MetricsApiConfig
from readme_metrics.config import MIB, queue_file_name
from readme_metrics.environ import HostList
from readme_metrics.errors import ConfigurationError


def grouping_function(_: object) -> None:
    """Stand for an app's own."""


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("README_METRICS_SERVER", raising=False)
    monkeypatch.delenv("README_METRICS_QUEUE_PATH", raising=False)


def config(**options: Any) -> MetricsApiConfig:
    return MetricsApiConfig(**{"api_key": "key", "grouping_function": grouping_function, **options})


def test_every_option_has_its_default() -> None:
    made = config()

    assert {
        "api_key": "key",
        "grouping_function": grouping_function,
        "base_log_url": None,
        "buffer_length": 10,
        "development_mode": False,
        "background_worker_mode": True,
        "allowlist": None,
        "denylist": None,
        "blacklist": None,
        "whitelist": None,
        "allowed_http_hosts": None,
        "timeout": 3,
        "queue_path": platformdirs.user_state_path("readme-metrics"),
        "flush_interval": 10,
        "auto_flush": True,
        "max_queue_bytes": 512 * MIB,
        "max_body_bytes": MIB,
        "shutdown_timeout": 2,
        "fsync": False,
        "server": "https://metrics.readme.io",
        "queue_path_is_default": True,
    } == {option.name: getattr(made, option.name) for option in dataclasses.fields(made)}


def test_the_positional_order_is_that_of_3_x() -> None:
    made = MetricsApiConfig(
        "key", grouping_function, "https://d.example.com", 5, True, False, None, ["a"], None, None, ["h"], 7
    )  # fmt: skip

    assert ("https://d.example.com", 5, True, False, ("a",), ("h",), 7.0) == (
        made.base_log_url, made.buffer_length, made.development_mode, made.background_worker_mode, made.denylist,
        made.allowed_http_hosts, made.timeout,
    )  # fmt: skip


def test_what_follows_timeout_is_keyword_only() -> None:
    with pytest.raises(TypeError):
        MetricsApiConfig("key", grouping_function, None, 10, False, True, None, None, None, None, None, 3, "/tmp/queue")  # type: ignore[call-arg]  # the wrong call under test


@pytest.mark.parametrize(
    ("option", "wrong", "allowed"),
    [
        ("grouping_function", 5, "a callable"),
        ("grouping_function", None, "a callable"),
        ("grouping_function", "no_such_module.function", "a callable, or a dotted path to one"),
        ("grouping_function", "os.no_such_function", "a callable, or a dotted path to one"),
        ("grouping_function", "os.sep", "a callable"),
        ("grouping_function", "undotted", "a callable, or a dotted path to one"),
        ("base_log_url", 5, "None, or a URL"),
        ("base_log_url", "docs.example.com", "None, or a URL"),
        ("base_log_url", "https://docs.example.com\r\nX: y", "None, or a URL"),
        ("buffer_length", 0, "a whole number, 1 or more"),
        ("buffer_length", 10**30, "a whole number, 1 or more, 1000000 at most"),
        ("buffer_length", 2.5, "a whole number, 1 or more"),
        ("buffer_length", "10", "a whole number, 1 or more"),
        ("buffer_length", True, "a whole number, 1 or more"),
        ("buffer_length", None, "a whole number, 1 or more"),
        ("development_mode", 1, "True or False"),
        ("background_worker_mode", "yes", "True or False"),
        ("auto_flush", None, "True or False"),
        ("fsync", 0, "True or False"),
        ("allowlist", "password", "None, or a list of non-empty strings"),
        ("denylist", b"password", "None, or a list of non-empty strings"),
        ("denylist", [5], "None, or a list of non-empty strings"),
        ("denylist", [""], "None, or a list of non-empty strings"),
        ("denylist", ["token", "password "], "None, or a list of non-empty strings without blanks around them"),
        ("allowlist", ["\tpassword"], "None, or a list of non-empty strings without blanks around them"),
        ("blacklist", 5, "None, or a list of non-empty strings"),
        ("whitelist", "x", "None, or a list of non-empty strings"),
        ("allowed_http_hosts", "example.com", "None, or a list of non-empty strings"),
        ("timeout", 0, "a number of seconds above 0"),
        ("timeout", -1, "a number of seconds above 0"),
        ("timeout", float("nan"), "a number of seconds above 0"),
        ("timeout", float("inf"), "a number of seconds above 0, 315360000 at most"),
        ("timeout", "3", "a number of seconds above 0"),
        ("timeout", True, "a number of seconds above 0"),
        ("flush_interval", -0.1, "a number of seconds, 0 or more"),
        ("flush_interval", 10**400, "a number of seconds, 0 or more"),
        ("shutdown_timeout", None, "a number of seconds, 0 or more"),
        ("queue_path", 5, "the path of a directory"),
        ("queue_path", "", "the path of a directory"),
        ("queue_path", b"/tmp/queue", "the path of a directory"),
        ("queue_path", "/tmp/\0", "the path of a directory"),
        ("queue_path", "~no-such-user-1/queue", "the path of a directory"),
        ("max_queue_bytes", MIB - 1, f"a whole number, {MIB} or more"),
        ("max_queue_bytes", 1e9, f"a whole number, {MIB} or more"),
        ("max_queue_bytes", 2**40 + 1, f"a whole number, {MIB} or more, 1099511627776 at most"),
        ("max_body_bytes", -1, "a whole number, 0 or more"),
        ("max_body_bytes", sys.maxsize, "a whole number, 0 or more, 1099511627776 at most"),
        ("max_body_bytes", None, "a whole number, 0 or more"),
    ],
)
def test_a_wrong_value_is_refused_with_option_value_and_what_is_allowed(
    option: str, wrong: object, allowed: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        config(**{option: wrong})

    message = str(refusal.value)
    assert message.startswith(f"{option} is {wrong!r}")
    assert allowed in message
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize("wrong", ["", "  ", "sk-secret\n", "sk-secret-é", b"sk-secret", None, 7])
def test_a_wrong_api_key_is_refused_without_being_shown(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^api_key is .*allowed: a non-empty string") as refusal:
        config(api_key=wrong)

    assert "secret" not in str(refusal.value)


def test_the_key_does_not_show_when_a_config_is_printed() -> None:
    assert "sk-secret" not in repr(config(api_key="sk-secret"))


@pytest.mark.parametrize(
    "server", ["metrics.example.com", "ftp://metrics.example.com", "https://", "http://[::1", "http://host:port"]
)
def test_a_wrong_server_is_refused(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setenv("README_METRICS_SERVER", server)

    with pytest.raises(ConfigurationError, match=f"README_METRICS_SERVER is {re.escape(repr(server))}; allowed: a URL"):
        config()


def test_the_environment_names_server_and_queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("README_METRICS_SERVER", "http://127.0.0.1:4400/")
    monkeypatch.setenv("README_METRICS_QUEUE_PATH", str(tmp_path))

    assert ("http://127.0.0.1:4400", tmp_path, False) == (
        config().server, config().queue_path, config().queue_path_is_default,
    )  # fmt: skip


def test_queue_path_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("README_METRICS_QUEUE_PATH", "/elsewhere")

    for chosen in (tmp_path, str(tmp_path)):
        assert (tmp_path, False) == (
            config(queue_path=chosen).queue_path,
            config(queue_path=chosen).queue_path_is_default,
        )


def test_a_queue_path_is_made_absolute_while_the_working_directory_is_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")

    assert [tmp_path / "queue", Path("/home/ann/queue")] == [
        config(queue_path=path).queue_path for path in ("queue", "~/queue")
    ]


def test_a_dotted_path_becomes_the_function_it_names() -> None:
    assert grouping_function is config(grouping_function=f"{__name__}.grouping_function").grouping_function


def test_blanks_around_a_host_do_not_count() -> None:
    hosts = HostList(config(allowed_http_hosts=[" a.example "]).allowed_http_hosts or ())

    assert hosts.allows({"HTTP_HOST": "a.example"})


@pytest.mark.parametrize("option", ["allowlist", "denylist", "allowed_http_hosts"])
def test_any_list_becomes_a_tuple_that_nobody_can_change_and_an_empty_one_none(option: str) -> None:
    names = ["a", "b"]
    made = config(**{option: names})
    names.append("c")

    assert ("a", "b") == getattr(made, option)
    assert ("a",) == getattr(config(**{option: (name for name in "a")}), option)
    assert None is getattr(config(**{option: []}), option)


@pytest.mark.parametrize(("old", "new"), [("blacklist", "denylist"), ("whitelist", "allowlist")])
def test_a_deprecated_name_serves_with_a_warning_that_names_the_new_one_and_the_callers_line(
    old: str, new: str
) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is deprecated: use {new}") as warned:
        made = MetricsApiConfig("key", grouping_function, **{old: ["a"]})  # type: ignore[arg-type]  # a name at random

    assert (("a",), None) == (getattr(made, new), getattr(made, old))
    assert [__file__] == [warning.filename for warning in warned]


def test_the_new_name_goes_before_the_deprecated_one() -> None:
    with pytest.warns(DeprecationWarning, match="whitelist is deprecated"):
        assert ("new",) == config(allowlist=["new"], whitelist=["old"]).allowlist


def test_what_is_denied_under_both_names_is_denied() -> None:
    with pytest.warns(DeprecationWarning, match="blacklist is deprecated"):
        assert ("new", "old") == config(denylist=["new"], blacklist=["old"]).denylist


def test_a_home_directory_in_the_environment_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("README_METRICS_QUEUE_PATH", "~/queue")
    assert tmp_path / "queue" == config().queue_path


def test_a_home_directory_of_nobody_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("README_METRICS_QUEUE_PATH", "~no-such-user-1/queue")
    with pytest.raises(ConfigurationError, match=r"README_METRICS_QUEUE_PATH is '~no-such-user-1/queue'; allowed: the"):
        config()


def test_a_denylist_overrides_an_allowlist_with_a_warning_at_the_callers_line() -> None:
    with pytest.warns(UserWarning, match="denylist overrides allowlist") as warned:
        made = MetricsApiConfig("key", grouping_function, allowlist=["a"], denylist=["b"])

    assert (None, ("b",)) == (made.allowlist, made.denylist)
    assert [__file__] == [warning.filename for warning in warned]


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().timeout = 5  # type: ignore[misc]  # the wrong assignment under test


def test_a_config_can_be_copied_with_another_value() -> None:
    assert 5 == dataclasses.replace(config(denylist=["a"]), buffer_length=5).buffer_length


def test_each_server_and_key_has_a_queue_file_of_its_own_that_tells_neither() -> None:
    names = {queue_file_name(server, key) for server in ("https://a", "https://b") for key in ("k1", "k2")}

    assert 4 == len(names)
    assert all(re.fullmatch(r"[0-9a-f]{16}\.sqlite", name) for name in names)
