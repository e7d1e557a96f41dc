"""The README says what the code does: every option, command, flag, exit status and variable, both ways.

A name that only one of the two knows fails here; so does an example that does not run, and a link that leads nowhere.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from readme_metrics import MetricsApiConfig, VerifyWebhook, __version__, capture, drain
from readme_metrics.cli import base as cli_base
from readme_metrics.cli import main, status_text
from readme_metrics.config import DEFAULT_SERVER, MIB
from readme_metrics.flask_readme import ReadMeMetrics
from readme_metrics.queue import keeper, memory, salvage, wal
from readme_metrics.queue.contract import Activity, Backlog, Books, Drainer, Hold, Report
from readme_metrics.verdict import LONGEST_RETRY_AFTER_S, Kind
from tests.readme import README, ROOT, flags, section, table, typed

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = sorted((ROOT / "readme_metrics").rglob("*.py"))
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
NOT_THE_USERS = {"FLASK_RUN_FROM_CLI"}  # Flask's own sign to its extensions


# -- options


def shown(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return "required"
    if type(default) is int and default >= MIB:
        return f"{default // MIB} MiB"
    return f"`{default!r}`"


def test_every_option_stands_in_the_readme_in_its_order_with_its_default() -> None:
    options = inspect.signature(MetricsApiConfig).parameters.values()
    expected = [(f"`{option.name}`", shown(option)) for option in options]
    assert expected == [(name, default) for name, default, _ in table("Options", "option")]


def test_as_many_options_may_be_positional_as_the_readme_says() -> None:
    options = inspect.signature(MetricsApiConfig).parameters.values()
    assert 12 == sum(option.kind is option.POSITIONAL_OR_KEYWORD for option in options)
    assert "the first twelve may be positional" in section("Options")


def test_an_editor_finds_words_at_every_option() -> None:
    body = next(
        node.body
        for node in ast.parse((ROOT / "readme_metrics/config.py").read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    described = [
        field.target.id
        for field, words in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant)
    ]
    options = set(inspect.signature(MetricsApiConfig).parameters)
    assert options <= set(described)
    assert options == set(re.findall(r"``([a-z_]+)``", MetricsApiConfig.__doc__ or ""))


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "readme_metrics/py.typed").is_file()  # PEP 561; without it a user's type checker sees Any


@pytest.mark.parametrize("call", ["flush(timeout_s=None)", "status()"])
def test_what_the_readme_calls_the_extension_has(call: str) -> None:
    assert f"`metrics_extension.{call}`" in README
    signature = inspect.signature(getattr(ReadMeMetrics, call.partition("(")[0]))
    names = [f"{each.name}={each.default}" for each in signature.parameters.values() if each.name != "self"]
    assert call == f"{call.partition('(')[0]}({', '.join(names)})"


# -- environment


def variables_read(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="environ")), args=[ast.Constant(value=name), *_]):
                yield str(name)
            case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=name)):
                yield str(name)


def test_every_environment_variable_stands_in_the_readme_and_is_read_by_the_code() -> None:
    documented = {name.strip("`"): default for name, default, _ in table("Options", "environment variable")}
    read = {name for path in PACKAGE for name in variables_read(path.read_text())}
    assert read - NOT_THE_USERS == set(documented)
    assert f"`{DEFAULT_SERVER}`" == documented["README_METRICS_SERVER"]


def test_the_readme_names_no_variable_that_its_table_lacks() -> None:
    documented = {name.strip("`") for name, *_ in table("Options", "environment variable")}
    assert set(re.findall(r"(?<![A-Z_])README_[A-Z_]+", README)) <= documented


# -- commands


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    for name, child in command.commands.items():
        yield from leaves(child, (*path, name))


def options_of(command: click.Command) -> list[click.Parameter]:
    return [each for each in command.params if isinstance(each, click.Option)]


def flags_of(command: click.Command) -> set[str]:
    return {"--help"} | {flag for option in options_of(command) for flag in option.opts if flag.startswith("--")}


COMMANDS = dict(leaves(main))
ROWS = {re.sub(r" ID.*", "", cell.strip("`")): (cell, words) for cell, words in table("Commands", "command")}


def test_every_command_stands_in_the_readme_with_all_its_flags() -> None:
    every = flags(section("Commands").split("Every command has")[1].split("says which directory")[0])
    expected = {name: flags_of(command) for name, command in COMMANDS.items()}
    assert expected == {name: every | flags(words) for name, (_, words) in ROWS.items()}


def test_every_default_of_a_flag_stands_beside_it() -> None:
    wrong = [
        (name, option.opts)
        for name, command in COMMANDS.items()
        for option in options_of(command)
        if isinstance(option.default, (int, float)) and not isinstance(option.default, bool)
        if not re.search(rf"`{option.opts[0]} \w+` \({option.default:g}\)", ROWS[name][1])
    ]
    assert [] == wrong


def test_a_command_takes_ids_where_the_readme_says_so() -> None:
    expected = {name: any(isinstance(each, click.Argument) for each in COMMANDS[name].params) for name in COMMANDS}
    assert expected == {name: " ID" in cell for name, (cell, _) in ROWS.items()}


def test_the_version_flag_is_there() -> None:
    assert "`readme-metrics --version`" in section("Commands")
    assert "--version" in flags_of(main)


def command_lines() -> list[str]:
    return re.findall(r"(?:(?<![\w/])readme-metrics|python -m readme_metrics(?:\.flush)?)(?: [\w.…/-]+)+", typed())


def parsed(line: str) -> tuple[click.Command, list[str]]:
    """The command of a line and the words that follow it."""
    words = line.replace("python -m readme_metrics.flush", "readme-metrics flush").split()
    words = words[words.index("readme_metrics" if "readme_metrics" in words else "readme-metrics") + 1 :]
    command: click.Command = main
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    return command, words


def test_every_command_line_in_the_readme_can_be_typed() -> None:
    lines = [line for line in command_lines() if not line.endswith(" COMMAND")]
    assert len(lines) > 5
    wrong = []
    for line in lines:
        command, words = parsed(line)
        unknown_command = isinstance(command, click.Group) and words and not words[0].startswith("--")
        if unknown_command or not {word for word in words if word.startswith("--")} <= flags_of(command):
            wrong.append(line)
    assert [] == wrong


def statuses(command: str) -> set[int]:
    """The exit statuses that the README gives a command."""
    rows = table("Commands", "exit code")
    return {int(code.strip("`")) for code, of, _ in rows if of == "all" or f"`{command}`" in of}


def test_every_exit_status_stands_in_the_readme() -> None:
    in_code = {value for name, value in vars(cli_base).items() if name.isupper() and isinstance(value, int)}
    assert {0} | in_code == {int(code.strip("`")) for code, *_ in table("Commands", "exit code")}


@pytest.mark.parametrize("command", ["flush", "status", "doctor"])
def test_a_commands_help_and_the_readme_give_it_the_same_exit_statuses(command: str) -> None:
    paragraph = (COMMANDS[command].help or "").split("Exit status:")[1].split("\n\n")[0]
    assert {int(code) for code in re.findall(r"\b\d+\b", paragraph)} == statuses(command)


@pytest.mark.parametrize("shell", sorted(set(re.findall(r"=?(\w+)_source", README))))
def test_the_shell_completion_of_the_readme_is_there(shell: str) -> None:
    assert "_README_METRICS_COMPLETE=" in section("Commands")
    done = CliRunner().invoke(main, env={"_README_METRICS_COMPLETE": f"{shell}_source"})
    assert 0 == done.exit_code
    assert "readme-metrics" in done.output


# -- words and figures


def everything_wrong() -> Report:
    return Report(
        path="q.sqlite",
        books=Books(9, 1, 1, {"queue full": 1}, 6, not_accepted={"no space": 1}),
        backlog=Backlog(6, 600, 1.0),
        hold=Hold(99.0, 90.0, "later", "503"),
        activity=Activity(1.0, 2.0, "503"),
        drainer=Drainer(1, "host", 1.0, 1.0),
        file_bytes=1,
        wal_bytes=1,
    )


def test_status_shows_every_word_that_the_readme_tells_to_look_for() -> None:
    shown_words = {line[:18].strip() for line in status_text.lines(everything_wrong(), 10.0, None)}
    told = section("When something is wrong") + section("Reliability")
    assert set(re.findall(r"\*\*([^*]+)\*\*", told)) <= shown_words


def test_the_package_says_every_sentence_that_the_readme_quotes() -> None:
    sources = "".join(path.read_text() for path in PACKAGE)
    quoted = re.findall(r'(?<!`)"([^"`]+)"', section("When something is wrong"))
    assert quoted
    assert [] == [words for words in quoted if words not in sources]


FIGURES = [
    f"wait in memory, {memory.LIMIT_BYTES // MIB} MiB at most",
    f"at most {drain.MAX_BATCH_BYTES // MIB} MiB",
    f"is given more time in the background, up to {drain.LONGEST_TIMEOUT_S:g} s",
    f"write-ahead log beside it is bounded at {2 * wal.LIMIT_BYTES // MIB} MiB",
    f"until the WAL reaches {2 * wal.LIMIT_BYTES // MIB} MiB",
    f"batches in flight ({drain.WIDTH} at most)",
    f"the first request waits {keeper.STRANGER_WAIT_S * 1000:g} ms at most",
    f"({keeper.STRANGER_WAIT_GEVENT_S * 1000:g} ms under gevent)",
    f"holds from {drain.FIRST_HOLD_S[Kind.LATER]:g} s to {drain.LONGEST_HOLD_S[Kind.LATER] / 60:g} min",
    f"`Retry-After` up to {LONGEST_RETRY_AFTER_S / 3600:g} h",
    f"tried again after {drain.FIRST_HOLD_S[Kind.REFUSED] / 60:g} min, later once an hour",
    f"files beside it, {'two' if salvage.KEPT == 2 else salvage.KEPT} at most",
    f"Content-Length is {capture.UNREAD_BODY_BYTES // 1024} KiB at most",
    f"not more than {VerifyWebhook.LONGEST_AGE_MS / 60_000:g} minutes ago",
]


@pytest.mark.parametrize("words", FIGURES)
def test_a_figure_in_the_readme_is_that_of_the_code_wherever_it_stands(words: str) -> None:
    any_figure = re.sub(r"\d+", r"\\d+", re.escape(words))
    assert {words} == set(re.findall(any_figure, " ".join(README.split())))


def test_the_changelog_begins_with_this_version() -> None:
    assert __version__ == re.findall(r"^## \[([^]]+)\]", CHANGELOG, re.MULTILINE)[0]


# -- links and files


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(target: str, text: str) -> bool:
    file, _, anchor = target.partition("#")
    path = ROOT / file
    return path.exists() and (not anchor or anchor in anchors(path.read_text() if file else text))


@pytest.mark.parametrize("text", [README, CHANGELOG], ids=["README", "CHANGELOG"])
def test_every_link_and_picture_leads_somewhere_inside(text: str) -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    broken = [target for target in targets if not leads_somewhere(target, text)]
    assert [] == broken
    assert "../" not in text


def test_every_section_stands_in_the_list_at_the_top() -> None:
    listed = re.findall(r"\]\(#([^)]+)\)", README.split("\n## ")[0])
    assert listed == [next(iter(anchors(f"# {title}"))) for title in re.findall(r"^## (.+)$", README, re.MULTILINE)]


def test_every_file_that_the_readme_names_is_there_with_its_flags() -> None:
    named = set(re.findall(r"\b(?:scripts|tests|readme_metrics)/[\w./-]*\w", typed()))
    assert named
    assert [] == [name for name in sorted(named) if not (ROOT / name).exists()]
    told = re.findall(r"^(scripts/[\w.]+)(.*)$", typed(), re.MULTILINE)
    assert [] == [(name, flag) for name, rest in told for flag in flags(rest) if flag not in (ROOT / name).read_text()]
