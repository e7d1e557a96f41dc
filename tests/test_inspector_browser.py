"""The inspector's page in a real browser: Debian's chromium and chromium-driver, headless.

``python -m tests.test_inspector_browser .github`` writes the README's two screenshots.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import pytest
import requests

from readme_metrics.inspector.books import view
from readme_metrics.inspector.desk import MAX_ENTRIES
from readme_metrics.queue.contract import Activity, Backlog, Books, Hold, Report
from tests.inspector_helpers import MASKED, check_har, post, running_inspector, wire_entry

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.remote.webelement import WebElement

    from readme_metrics.inspector import Inspector
    from readme_metrics.inspector.wire import Entry

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--disable-lcd-text",
]  # fmt: skip
WAIT_S = 15
POLL_S = 0.05
SOON_S = 4
"""What a large body may take on a busy machine; each takes a fraction of it."""
REDRAWN = (NoSuchElementException, StaleElementReferenceException)

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: apt-get install chromium"),
    pytest.mark.skipif(not CHROMEDRIVER.exists(), reason=f"{CHROMEDRIVER} is missing: apt-get install chromium-driver"),
]


class Browser:
    """One page in a browser, asked and used as a person would."""

    def __init__(self, directory: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in [*FLAGS, f"--user-data-dir={directory / 'profile'}"]:
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(directory)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
        self.driver.set_page_load_timeout(WAIT_S)
        self.directory = directory

    def open(self, url: str, *, width: int = 1200, height: int = 800, scheme: str = "light") -> None:
        """Load the page anew and wait until it is told what arrives."""
        self.resize(width, height)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.driver.get(url)
        self.until(lambda: self.text("#link").startswith("live"))

    def resize(self, width: int, height: int) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def command(self, name: str, **arguments: object) -> None:
        self.driver.execute_cdp_cmd(name, arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Every character of the element, shown or folded away."""
        return str(self.one(selector).get_property("textContent"))

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def keys(self, keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(keys).perform()

    def paths(self) -> list[str]:
        """What the list shows, from top to bottom."""
        return [str(path.text) for path in self.all("#list li:not([hidden]) .path")]

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until it holds; what the page draws anew in between counts as not yet."""
        WebDriverWait(self.driver, WAIT_S, POLL_S, ignored_exceptions=REDRAWN).until(lambda _: holds())

    def until_listed(self, *paths: str) -> None:
        """Wait until the list shows these, from top to bottom, and no others."""
        self.until(lambda: list(paths) == self.paths())

    def open_entry(self, path: str) -> None:
        """Click the row of this path and wait for the entry."""
        self.until(lambda: path in self.paths())
        self.all("#list li:not([hidden])")[self.paths().index(path)].click()
        self.until(lambda: path in self.text("#detail h2"))


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        browser = Browser(Path(directory))
        try:
            yield browser
        finally:
            browser.driver.quit()


@pytest.fixture(scope="module", name="shared_browser")
def _shared_browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(name="browser")
def _browser(shared_browser: Browser) -> Iterator[Browser]:
    """The browser; when a test ends, its page must have complained of nothing (a broken policy is a complaint)."""
    shared_browser.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own
    yield shared_browser
    complaints = shared_browser.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own
    shared_browser.driver.get("about:blank")
    assert [] == complaints


@contextlib.contextmanager
def other_tabs(browser: Browser, count: int) -> Iterator[list[str]]:
    """Open tabs, the last of them shown; in the end, the first one alone."""
    first = browser.driver.current_window_handle
    tabs = []
    try:
        for _ in range(count):
            browser.driver.switch_to.new_window("tab")
            tabs.append(browser.driver.current_window_handle)
        yield tabs
    finally:
        for tab in tabs:
            browser.driver.switch_to.window(tab)
            browser.driver.close()
        browser.driver.switch_to.window(first)


# What arrives


def test_an_empty_page_tells_what_to_type(browser: Browser, inspector: Inspector) -> None:
    browser.open(inspector.url)
    assert f"README_METRICS_SERVER={inspector.url} flask run" in [code.text for code in browser.all(".command code")]


def test_an_entry_appears_by_itself_and_opens(browser: Browser, inspector: Inspector) -> None:
    browser.open(inspector.url)
    post(
        inspector,
        wire_entry(
            "http://api.test/users/7?token=%5BREDACTED%2012%5D",
            method="POST",
            status=201,
            text='{"id":7,"rate":1.10,"big":12345678901234567890,"note":"[REDACTED 5]","tags":[]}',
            post_data={"mimeType": "application/json", "text": '{"password":"[REDACTED 16]"}'},
        ),
    )
    browser.until_listed("/users/7?token=%5BREDACTED%2012%5D")
    assert ["201", "POST", "Ada"] == [browser.text(f"#list li .{part}") for part in ("status", "method", "caller")]
    browser.open_entry("/users/7?token=%5BREDACTED%2012%5D")
    shown = browser.text("#detail")
    assert all(part in shown for part in ("201 CREATED", "Authorization", "Content-Type", "Ada · ada@example.com"))
    marks = {mark.text for mark in browser.all("#detail mark")}
    assert {"%5BREDACTED%2012%5D", "[REDACTED 5]", "[REDACTED 16]", MASKED} <= marks


def test_json_is_laid_out_and_keeps_every_character(browser: Browser, inspector: Inspector) -> None:
    text = r'{"a":1.10,"b":[1e3,{"c":"x \" \u00e9, y: [z]"}],"d":[],"e":{},"a":12345678901234567890,"f":null,"g":true}'
    post(inspector, wire_entry("http://api.test/json", text=text))
    browser.open(inspector.url)
    browser.open_entry("/json")
    shown = browser.all("#detail .body pre")[-1].get_property("textContent")
    assert isinstance(shown, str)
    assert shown.count("\n") > 8
    assert re.sub(r"\n *", "", shown).replace('": ', '":') == text
    assert {"key", "string", "number", "boolean", "null"} == {
        span.get_attribute("class") for span in browser.all("#detail .body pre span")
    }


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(["1"] * 50_000) + "]",
        "[" + ",".join(["1"] * 499_000) + "]",
        json.dumps([{"id": number, "value": number} for number in range(9_000)]),
        "[REDACTED 1]" * 80_000,
        json.dumps(["x" * 3_000_000]),
        json.dumps({"[REDACTED 1]" * 10_000: "[REDACTED 1]" * 10_000}),
    ],
    ids=[
        "100 kB of numbers",
        "1 MB of numbers",
        "300 kB of objects",
        "1 MB of marks",
        "3 MB of one text",
        "two long marked texts",
    ],
)
def test_a_large_body_opens_soon_and_whole(browser: Browser, inspector: Inspector, text: str) -> None:
    post(inspector, wire_entry("http://api.test/large", text=text))
    browser.open(inspector.url)
    browser.until_listed("/large")
    began = time.monotonic()
    browser.open_entry("/large")
    for button in browser.all("#detail .message .body .code .button"):
        button.click()
    shown = browser.text("#detail .message .body pre")
    assert time.monotonic() - began < SOON_S
    assert re.sub(r"\s", "", text) == re.sub(r"\s", "", shown)


def test_a_large_body_is_still_laid_out_and_marked(browser: Browser, inspector: Inspector) -> None:
    text = json.dumps({"secret": "[REDACTED 9]", "numbers": [1] * 30_000})
    post(inspector, wire_entry("http://api.test/large", text=text))
    browser.open(inspector.url)
    browser.open_entry("/large")
    assert browser.text("#detail .message .body pre").startswith(
        '{\n  "secret": "[REDACTED 9]",\n  "numbers": [\n    1,'
    )
    assert ["[REDACTED 9]"] == [mark.text for mark in browser.all("#detail .body pre mark")]


def test_a_repeat_is_shown_once_with_its_count(browser: Browser, inspector: Inspector) -> None:
    entry = wire_entry("http://api.test/again")
    browser.open(inspector.url)
    post(inspector, entry)
    post(inspector, entry)
    browser.until(lambda: "\u00d72" == browser.text("#list .times"))
    assert 1 == len(browser.all("#list li"))


def test_an_entry_sent_in_development_is_marked(browser: Browser, inspector: Inspector) -> None:
    browser.open(inspector.url)
    post(inspector, {**wire_entry("http://api.test/a"), "development": True}, wire_entry("http://api.test/b"))
    browser.until(lambda: ["b", "adev"] == [path.strip("/") for path in browser.paths()])


def test_old_entries_leave_the_list_as_they_leave_memory(browser: Browser, inspector: Inspector) -> None:
    post(inspector, wire_entry("http://api.test/first"), wire_entry("http://api.test/second"))
    browser.open(inspector.url)
    browser.until_listed("/second", "/first")
    post(inspector, *(wire_entry() for _ in range(MAX_ENTRIES - 1)))
    browser.until(lambda: "2,000 entries \u00b7 1 older made room" == browser.text("#count"))
    assert "/second" == browser.text("#list li:last-child .path")


HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'</textarea><svg onload=hacked=1>"


@pytest.mark.parametrize("mime_type", ["text/html", "application/json", "image/svg+xml", HOSTILE])
def test_a_script_in_anything_captured_stays_text(browser: Browser, inspector: Inspector, mime_type: str) -> None:
    text = json.dumps({HOSTILE: HOSTILE}) if mime_type == "application/json" else HOSTILE
    hostile = wire_entry(
        f"http://api.test/x?{HOSTILE}",
        method=f"<b>{HOSTILE}"[:20],
        label=HOSTILE,
        text=text,
        mime_type=mime_type,
        route=HOSTILE,
        post_data={
            "mimeType": mime_type,
            "params": [{"name": HOSTILE, "value": HOSTILE, "fileName": HOSTILE, "contentType": HOSTILE}],
        },
    )
    har_entry = hostile["request"]["log"]["entries"][0]
    har_entry["request"]["headers"].append({"name": HOSTILE, "value": HOSTILE})
    har_entry["response"]["statusText"] = HOSTILE
    browser.open(inspector.url)
    elements_before = browser.run("return document.querySelectorAll('script, img, svg, iframe').length")
    post(inspector, hostile)
    browser.open_entry(f"/x?{HOSTILE}")
    assert text.replace(" ", "") in browser.text("#detail").replace(" ", "").replace("\n", "")
    assert elements_before == browser.run("return document.querySelectorAll('script, img, svg, iframe').length")
    assert browser.run("return window.hacked === undefined")


def test_the_list_is_filtered_by_method_status_path_and_caller(browser: Browser, inspector: Inspector) -> None:
    post(
        inspector,
        wire_entry("http://api.test/books", method="GET", status=200, label="Ada"),
        wire_entry("http://api.test/books/7", method="POST", status=404, label="Grace"),
        wire_entry("http://api.test/users", method="GET", status=500, label="Grace"),
        wire_entry("http://api.test/users/7", method="POST", status=201, label="Linus"),
    )
    for name, value, expected in [
        ("method", "GET", ["/users", "/books"]),
        ("status", "2xx", ["/users/7", "/books"]),
        ("status", "404", ["/books/7"]),
        ("path", "BOOKS", ["/books/7", "/books"]),
        ("caller", "grace", ["/users", "/books/7"]),
    ]:
        browser.open(inspector.url)
        browser.until_listed("/users/7", "/users", "/books/7", "/books")
        browser.one(f"[name={name}]").send_keys(value)
        browser.until_listed(*expected)
    browser.one("[name=caller]").clear()
    browser.one("[name=path]").send_keys("nowhere")
    browser.until(lambda: browser.one("#none").is_displayed())
    post(inspector, wire_entry("http://api.test/nowhere"))
    browser.until_listed("/nowhere")


def test_an_inspector_that_was_started_anew_is_shown_from_its_beginning(browser: Browser) -> None:
    with running_inspector() as inspector:
        post(inspector, wire_entry("http://api.test/first-run"))
        browser.open(inspector.url)
        browser.until_listed("/first-run")
    with running_inspector(port=inspector.port) as again:
        post(again, wire_entry("http://api.test/second-run"))
        browser.until_listed("/second-run")
        browser.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own; the lost connection


def test_a_page_that_was_hidden_is_told_what_it_missed(browser: Browser, inspector: Inspector) -> None:
    post(inspector, wire_entry("http://api.test/seen"))
    browser.open(inspector.url)
    browser.until_listed("/seen")
    with other_tabs(browser, 1):
        browser.until(lambda: not inspector._server._open)
        post(inspector, wire_entry("http://api.test/missed"))
    browser.until_listed("/missed", "/seen")
    browser.until(lambda: browser.text("#link").startswith("live"))


def test_many_tabs_do_not_freeze_each_other(browser: Browser, inspector: Inspector) -> None:
    post(inspector, wire_entry("http://api.test/a"))
    with other_tabs(browser, 7) as tabs:  # a browser has six connections to a host
        for tab in tabs:
            browser.driver.switch_to.window(tab)
            browser.open(inspector.url)
        browser.open_entry("/a")


# What can be done


def test_the_outage_switch_turns_posts_away_and_takes_them_again(browser: Browser, inspector: Inspector) -> None:
    browser.open(inspector.url)
    for mode, status in [("503", 503), ("429", 429), ("off", 200)]:
        browser.one(f"#outage input[value='{mode}']").click()
        browser.until(lambda: (mode == "off") != browser.one("#banner").is_displayed())  # noqa: B023  # called at once
        assert status == post(inspector, wire_entry()).status_code
        browser.until(lambda: browser.all("#upper .shade"))


def test_an_outage_that_another_page_plays_is_shown(browser: Browser, inspector: Inspector) -> None:
    browser.open(inspector.url)
    requests.post(f"{inspector.url}/api/outage", json={"mode": "hang"}, timeout=10)
    browser.until(lambda: browser.one("#outage input[value='hang']").is_selected())


def test_the_download_is_a_har_file(browser: Browser, inspector: Inspector) -> None:
    browser.open(inspector.url)
    post(inspector, wire_entry(), wire_entry(text="<b>é</b>", mime_type="text/html"))
    browser.until(lambda: 2 == len(browser.paths()))
    browser.one("#har").click()
    file = browser.directory / "readme-metrics.har"
    browser.until(file.exists)
    downloaded = json.loads(file.read_text("utf-8"))
    assert 2 == len(downloaded["log"]["entries"])
    check_har(downloaded)


def test_copy_puts_the_body_on_the_clipboard(browser: Browser, inspector: Inspector) -> None:
    browser.command("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    post(inspector, wire_entry("http://api.test/copy", text='{"rate":1.10}'))
    browser.open(inspector.url)
    browser.open_entry("/copy")
    copy = browser.one("#detail .body .button")
    copy.click()
    browser.until(lambda: "Copied" == copy.text)
    read = "navigator.clipboard.readText().then(arguments[0])"
    assert '{"rate":1.10}' == browser.driver.execute_async_script(read)


def test_clear_empties_the_list(browser: Browser, inspector: Inspector) -> None:
    post(inspector, wire_entry("http://api.test/gone"))
    browser.open(inspector.url)
    browser.open_entry("/gone")
    browser.one("#clear").click()
    browser.until(lambda: [] == browser.all("#list li"))
    browser.until(lambda: "Nothing has arrived yet" in browser.text("#detail"))


def test_everything_is_reached_by_keyboard(browser: Browser, inspector: Inspector) -> None:
    post(inspector, *(wire_entry(f"http://api.test/{name}") for name in ("a", "b", "c")))
    browser.open(inspector.url)
    browser.until_listed("/c", "/b", "/a")
    browser.keys("jj" + Keys.ARROW_DOWN + "k" + Keys.ENTER)
    browser.until(lambda: "/b" in browser.text("#detail h2"))
    browser.keys(Keys.ESCAPE)
    browser.until(lambda: "Choose an entry" in browser.text("#detail"))
    browser.keys("/a" + Keys.ESCAPE)
    browser.until_listed("/a")
    browser.keys("j" + Keys.ENTER)
    browser.until(lambda: "/a" in browser.text("#detail h2"))


def test_no_entry_stays_where_another_one_was_chosen_and_cannot_be_shown(
    browser: Browser, inspector: Inspector
) -> None:
    post(inspector, wire_entry("http://api.test/a"), wire_entry("http://api.test/broken"))
    browser.open(inspector.url)
    browser.open_entry("/a")
    browser.run("window.fetch = async () => new Response('{}')")
    browser.all("#list li")[0].click()
    browser.until(lambda: "This entry cannot be shown" in browser.text("#detail"))
    assert not browser.all("#detail h2")


def test_no_entry_stays_where_another_one_was_chosen_and_the_inspector_was_stopped(browser: Browser) -> None:
    with running_inspector() as inspector:
        post(inspector, wire_entry("http://api.test/a"), wire_entry("http://api.test/b"))
        browser.open(inspector.url)
        browser.open_entry("/a")
    browser.all("#list li")[0].click()
    browser.until(lambda: "cannot be shown: the inspector does not answer" in browser.text("#detail"))
    assert not browser.all("#detail h2")
    browser.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own; the lost connection


# How it looks


def test_the_theme_follows_the_system_until_one_is_chosen(browser: Browser, inspector: Inspector) -> None:
    def background() -> Any:
        return browser.run("return getComputedStyle(document.body).backgroundColor")

    browser.open(inspector.url, scheme="light")
    light = background()
    browser.open(inspector.url, scheme="dark")
    dark = background()
    assert light != dark
    browser.one("#theme").click()
    assert light == background()
    browser.open(inspector.url, scheme="dark")
    assert light == background()


def test_a_phone_shows_the_list_then_the_entry_and_never_scrolls_sideways(
    browser: Browser, inspector: Inspector
) -> None:
    post(inspector, wire_entry(f"http://api.test/{'long' * 60}"), wire_entry("http://api.test/short"))
    browser.open(inspector.url, width=360, height=700)
    browser.open_entry("/short")
    assert not browser.one("#list").is_displayed()
    assert 360 == browser.run("return document.documentElement.scrollWidth")
    browser.one(".back").click()
    browser.until(lambda: browser.one("#list").is_displayed())
    assert 360 == browser.run("return document.documentElement.scrollWidth")


def test_back_on_a_phone_the_list_stands_where_it_stood(browser: Browser, inspector: Inspector) -> None:
    text = json.dumps(list(range(100)))
    post(inspector, *(wire_entry(f"http://api.test/{number}", text=text) for number in range(60)))
    browser.open(inspector.url, width=380, height=740)
    browser.until(lambda: 60 == len(browser.all("#list li")))
    row = "document.querySelectorAll('#list li')[40]"
    browser.run(f"{row}.scrollIntoView({{block: 'center'}})")
    before = browser.run(f"return {row}.getBoundingClientRect().top")
    browser.open_entry("/19")
    assert browser.one("#detail h2").is_displayed()
    assert 0 == browser.run("return scrollY")
    post(inspector, wire_entry("http://api.test/later"))
    browser.until(lambda: 61 == len(browser.all("#list li")))
    browser.one(".back").click()
    now = browser.run("return [...document.querySelectorAll('#list li')][41].getBoundingClientRect().top")
    assert abs(now - before) < 2
    assert "/19" == browser.text("#list li:nth-child(42) .path")
    browser.run("scrollTo(0, 0)")
    browser.keys("j" + Keys.ESCAPE)
    assert 0 == browser.run("return scrollY")


# WCAG's contrast of a text and the first opaque background behind it.
CONTRAST = r"""
const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
const light = (colour) => numbers(colour).slice(0, 3).map((part) => part / 255)
  .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
const behind = (element) => {
  const { backgroundColor: colour } = getComputedStyle(element);
  return (numbers(colour)[3] ?? 1) === 1 || !element.parentElement ? colour : behind(element.parentElement);
};
const weak = [];
for (const element of document.querySelectorAll("body *")) {
  const said = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!said || !element.offsetParent) continue;
  const [dark, bright] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => a - b);
  const contrast = (bright + 0.05) / (dark + 0.05);
  if (contrast < 4.5) weak.push(`${element.tagName}.${element.className} ${contrast.toFixed(2)}`);
}
return [...new Set(weak)];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(browser: Browser, scheme: str) -> None:
    with running_inspector(lambda: report(7)) as inspector:
        browser.open(inspector.url, scheme=scheme)
        assert [] == browser.run(CONTRAST)
        post(
            inspector,
            *(wire_entry(status=status) for status in (200, 302, 404, 500)),
            {**wire_entry("http://api.test/a?b=[NOT%20CAPTURED]", text="[NOT CAPTURED: 7 bytes]"), "development": True},
            wire_entry("http://api.test/open", text='{"a": [1, true, null, "[REDACTED 5]", "b"]}'),
        )
        browser.open_entry("/open")
        browser.until(lambda: browser.all("#books .term"))
        assert [] == browser.run(CONTRAST)
        browser.driver.get("about:blank")


def test_a_time_is_shown_in_the_unit_that_it_is_rounded_to(browser: Browser, inspector: Inspector) -> None:
    times = {0.994: "0.99 ms", 0.996: "1.0 ms", 9.94: "9.9 ms", 9.96: "10 ms", 999.4: "999 ms", 999.6: "1.00 s"}
    post(inspector, *(wire_entry(time_ms=time_ms) for time_ms in reversed(times)))
    browser.open(inspector.url)
    browser.until(lambda: list(times.values()) == [took.text for took in browser.all("#list .took")])


def test_a_size_is_shown_in_the_unit_that_it_is_rounded_to(browser: Browser, inspector: Inspector) -> None:
    sizes = {999: "999 B", 9_940: "9.9 kB", 9_960: "10 kB", 999_400: "999 kB", 999_600: "1.0 MB"}
    entries = [wire_entry(f"http://api.test/{size}") for size in sizes]
    for size, entry in zip(sizes, entries, strict=True):
        entry["request"]["log"]["entries"][0]["response"]["content"]["size"] = size
    post(inspector, *entries)
    browser.open(inspector.url)
    for size, shown in sizes.items():
        browser.open_entry(f"/{size}")
        assert shown == browser.text("#detail .summary span:nth-child(3)")


def report(waiting: int, *, delivered: int = 40, hold: Hold | None = None) -> dict[str, object]:
    books = Books(accepted=delivered + waiting, delivered=delivered, dead=0, dropped={}, waiting=waiting)
    return asdict(Report("/queue.sqlite", books, Backlog(waiting, 1, 0.0), hold, Activity(), None, 1, 1))


def test_the_panel_shows_the_queues_books_and_its_hold(browser: Browser) -> None:
    hold = Hold(until=time.time() + 600, length_s=600, kind="later", reason="503 Service Unavailable")
    with running_inspector(lambda: report(7, hold=hold)) as inspector:
        browser.open(inspector.url)
        browser.until(lambda: "Delivery is held until" in browser.text("#books"))
        assert "503 Service Unavailable" in browser.text("#books")
        assert ["47", "40", "7", "0", "0"] == [term.text for term in browser.all("#books .term b")]
        assert ("waiting", "7") == (browser.text("#upper-name"), browser.text("#upper-now"))
        assert browser.all("#upper .line")
        browser.driver.get("about:blank")


def test_without_books_the_panel_shows_what_the_inspector_saw(browser: Browser) -> None:
    with running_inspector(lambda: None) as inspector:
        post(inspector, wire_entry())
        browser.open(inspector.url)
        browser.until(lambda: ["1", "0", "1", "0", "0"] == [term.text for term in browser.all("#books .term b")])
        assert "What this inspector saw since it started." == browser.text("#books .note")
        assert "POSTs turned away per s" == browser.text("#upper-name")
        browser.driver.get("about:blank")


# The README's pictures

ENTRIES: list[dict[str, Any]] = [
    {"url": "/health", "label": "uptime probe", "time_ms": 0.9},
    {"url": "/orders?status=open&limit=20", "label": "Grace Hopper", "time_ms": 31.2},
    {"url": "/users/7", "label": "Ada Lovelace", "time_ms": 8.4},
    {"url": "/login?token=%5BREDACTED%2024%5D", "method": "POST", "label": "Linus T.", "time_ms": 84.7},
    {"url": "/invoices/2026-114", "status": 404, "label": "Grace Hopper", "time_ms": 5.1},
    {"url": "/reports/annual", "status": 500, "label": "Margaret H.", "time_ms": 1_240.0},
    {"url": "/uploads/avatar", "method": "PUT", "status": 201, "label": "Ada Lovelace", "time_ms": 212.0},
    {"url": "/users/7/cards/2", "method": "DELETE", "label": "Linus T.", "time_ms": 14.2},
]
OPENED: dict[str, Any] = {
    "url": "/orders",
    "method": "POST",
    "status": 201,
    "label": "Grace Hopper",
    "time_ms": 46.3,
    "route": "http://api.example.com/orders",
    "request_headers": (("X-Api-Key", "[REDACTED 32]"), ("User-Agent", "curl/8.5.0")),
    "post_data": {
        "mimeType": "application/json",
        "text": '{"item": "difference engine", "count": 2, "card_number": "[REDACTED 16]"}',
    },
    "text": '{"order": 1815, "total": 99.10, "paid": true, "client_secret": "[REDACTED 24]", "lines": [{"item": '
    '"difference engine", "count": 2}]}',
}


def picture_entries(count: int) -> list[Entry]:
    started = datetime.now(timezone.utc) - timedelta(seconds=count)
    made = []
    for index in range(count):
        fields = dict(OPENED if index == count - 3 else ENTRIES[index * 5 % len(ENTRIES)])
        stamp = (started + timedelta(seconds=index)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        made.append(wire_entry("http://api.example.com" + fields.pop("url"), started=stamp, **fields))
    return cast("list[Entry]", made)


def played(*, second: int, stops_at: int) -> tuple[int, int]:
    """How many waited and how many arrived in one second of the pictures' four minutes."""
    if second >= stops_at:
        return 10 + (second - stops_at) // 2, 0
    return second * 7 % 10 * (second % 60 > 8), (second * second // 5 % 13) * (second % 5 == 0)


@contextlib.contextmanager
def played_inspector(*, stops_at: int) -> Iterator[Inspector]:
    """An inspector after four minutes of traffic and an outage that began at a second of them."""
    minutes = [played(second=second, stops_at=stops_at) for second in range(240)]
    entries = picture_entries(sum(arrived for _, arrived in minutes))
    hold = Hold(until=time.time() + 42, length_s=64, kind="later", reason="503 Service Unavailable")
    books = report(minutes[-1][0], delivered=len(entries), hold=hold if stops_at < 240 else None)
    with running_inspector(lambda: books, port=4400) as inspector:
        for second, (waiting, arrived) in enumerate(minutes):
            inspector._desk.outage.play("off" if second < stops_at else "503")
            inspector._desk.take([entries.pop(0) for _ in range(arrived)])
            inspector._desk.sample(view(report(waiting)))
        yield inspector


def take_pictures(directory: Path) -> None:
    """Write the page in light with an open entry, and in dark with an outage; smaller where there is a pngquant."""
    light, dark = str(directory / "inspector-light.png"), str(directory / "inspector-dark.png")
    with running_browser() as browser:
        with played_inspector(stops_at=240) as inspector:
            browser.open(inspector.url, width=1200, height=840)
            browser.open_entry("/orders")
            browser.until(lambda: "balance" in browser.text("#books"))
            browser.driver.save_screenshot(light)
            browser.driver.get("about:blank")
        with played_inspector(stops_at=150) as inspector:
            browser.open(inspector.url, width=1200, height=620, scheme="dark")
            browser.until(lambda: "held until" in browser.text("#books"))
            browser.keys("jj")
            browser.driver.save_screenshot(dark)
            browser.driver.get("about:blank")
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--strip", "--force", "--ext", ".png", light, dark], check=True)


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]))
