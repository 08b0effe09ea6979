"""The page in a real Chromium, served by the real `postroom up --sink`: live plots, stories, actions, a phone, the keyboard, dark and light.

With SCREENSHOTS=FOLDER the pictures go there (make screenshots writes docs/images), otherwise to the test's own folder.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from integration.web import history

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"),
    pytest.mark.timeout(240),
]
POSTROOM = pathlib.Path(sys.executable).with_name("postroom")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1"),
)
WAIT_SECONDS = 30
# The pictures of the README.
SHOWN = ("overview", "message-dark", "queue", "phone-dark")


@dataclass
class Site:
    """The running page."""

    url: str
    token: str
    viewer: str
    day: history.Day
    environment: dict[str, str]

    def postroom(self, *arguments: str) -> str:
        return subprocess.run([POSTROOM, *arguments], env=self.environment, capture_output=True, text=True, timeout=100, check=True).stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "data").mkdir(mode=0o700)
    day = asyncio.run(history.make(folder / "data" / "spool.sqlite3", time.time_ns() // 1_000_000))
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        names = ("submission", "tls", "relay", "http")
        ports = {name: found.getsockname()[1] for name, found in zip(names, sockets, strict=True)}
    environment = {**os.environ, "POSTROOM_DATA_DIR": str(folder / "data"), "POSTROOM_HOSTNAME": "mta.sink.example"}
    command = [str(POSTROOM), "up", "--sink", "--json", "--ports", ",".join(f"{name}={number}" for name, number in ports.items())]
    with (folder / "log").open("w") as log, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "log").read_text()
        page = json.loads(line)["page"]
        yield Site(page["url"], page["token"], (folder / "data" / "web" / "viewer.token").read_text(), day, environment)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@contextlib.contextmanager
def chromium(folder: pathlib.Path, *flags: str) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={folder}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(tmp_path: pathlib.Path, site: Site) -> Iterator[WebDriver]:
    with chromium(tmp_path / "profile") as driver:
        driver.set_window_size(1280, 1000)
        log_in(driver, site, site.token)
        yield driver
        # A violation of the content policy, a missing file and an error of the script all end here.
        entries = driver.get_log("browser")  # type: ignore[attr-defined]  # Chromium's own
        messages = [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]
        assert messages == []


def log_in(driver: WebDriver, site: Site, token: str) -> None:
    driver.get(site.url)
    driver.find_element(By.ID, "token").send_keys(token, Keys.ENTER)
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "nav a"))


def wait(driver: WebDriver, condition: Any) -> Any:
    return WebDriverWait(driver, WAIT_SECONDS, poll_frequency=0.1).until(lambda _: condition())


def look(driver: WebDriver, *, dark: bool = False, width: int = 1280) -> None:
    """The theme that a person prefers, and the window's width."""
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 780, "deviceScaleFactor": 1, "mobile": width < 600})


def picture(driver: WebDriver, tmp_path: pathlib.Path, name: str, most: int = 1000) -> None:
    """A PNG of the page from its top, `most` pixels high at most."""
    folder = pathlib.Path(os.environ.get("SCREENSHOTS") or tmp_path) if name in SHOWN else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    width = driver.execute_script("return document.documentElement.clientWidth")
    height = min(most, driver.execute_script("return document.documentElement.scrollHeight"))
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
    assert driver.save_screenshot(str(folder / f"{name}.png"))


def text(driver: WebDriver, selector: str) -> str:
    """What is there now, in one step: the page replaces its parts while it lives."""
    return str(driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


def overflow(driver: WebDriver) -> int:
    return int(driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_the_overview_shows_real_traffic_as_it_happens(site: Site, browser: WebDriver, tmp_path: pathlib.Path) -> None:
    def delivered() -> int:
        return int(text(browser, ".tile.good b").replace("\u202f", ""))

    look(browser)
    before = delivered()
    assert before > 300
    assert str(browser.find_element(By.CSS_SELECTOR, "#live svg").get_attribute("aria-label")).startswith("Last hour, per minute: delivered ")
    picture(browser, tmp_path, "overview")
    site.postroom("send", "--from", "a@sink.example", "--to", "b@new.example")
    wait(browser, lambda: delivered() == before + 1)  # nobody loads the page again: it refreshes itself


def test_the_story_of_a_message_tells_every_reply_and_what_it_means(site: Site, browser: WebDriver, tmp_path: pathlib.Path) -> None:
    browser.get(f"{site.url}messages/{site.day.story}")
    look(browser, dark=True)
    story = text(browser, "#story")
    assert "452 4.2.2 The recipient's inbox is out of storage space" in story
    assert "421 4.7.28 An unusual rate of mail" in story
    assert [summary.text for summary in browser.find_elements(By.CSS_SELECTOR, "#story summary")] == ["Mailbox full", "Rate limited"]
    picture(browser, tmp_path, "message-dark", 1300)


def test_an_operator_holds_and_releases_a_message_after_confirming(site: Site, browser: WebDriver, tmp_path: pathlib.Path) -> None:
    look(browser)
    browser.get(f"{site.url}queue?domain=corp.example")
    browser.find_element(By.CSS_SELECTOR, f"input[value='{site.day.held}']").click()
    browser.find_element(By.CSS_SELECTOR, "button[value=hold]").click()
    wait(browser, lambda: "Put on hold?" in text(browser, "main"))
    browser.find_element(By.CSS_SELECTOR, "main form button").click()
    wait(browser, lambda: "Put on hold: 1 recipients changed." in text(browser, ".notice"))
    browser.get(f"{site.url}queue?state=held")
    assert site.day.held in text(browser, "table.queue")
    browser.find_element(By.CSS_SELECTOR, f"input[value='{site.day.held}']").click()
    browser.find_element(By.CSS_SELECTOR, "button[value=release]").click()
    wait(browser, lambda: "Let go on?" in text(browser, "main"))
    browser.find_element(By.CSS_SELECTOR, "main form button").click()
    wait(browser, lambda: "Let go on: 1 recipients changed." in text(browser, ".notice"))
    browser.get(f"{site.url}queue")
    picture(browser, tmp_path, "queue", 720)


def test_a_viewer_sees_no_button_that_acts(site: Site, tmp_path: pathlib.Path) -> None:
    with chromium(tmp_path / "viewer") as driver:
        log_in(driver, site, site.viewer)
        driver.get(f"{site.url}queue")
        assert driver.find_elements(By.CSS_SELECTOR, "table.queue")
        assert driver.find_elements(By.CSS_SELECTOR, "input[type=checkbox], button[name=action]") == []


def test_the_domain_page_checks_and_shows_what_to_publish(site: Site, browser: WebDriver, tmp_path: pathlib.Path) -> None:
    look(browser)
    browser.get(f"{site.url}domains/sink.example")
    browser.find_element(By.LINK_TEXT, "Check now").click()
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "table.findings"))
    findings = text(browser, "table.findings")
    assert "our RSA2048 key" in findings
    assert "envelopes of a stranger" in findings or "no address outside of loopback" in findings
    assert "v=DKIM1; k=rsa; p=" in text(browser, ".records")
    picture(browser, tmp_path, "domain", 1500)


def test_a_destination_is_suspended_and_goes_on(site: Site, browser: WebDriver, tmp_path: pathlib.Path) -> None:
    look(browser)
    browser.get(f"{site.url}destinations/garden.example")
    browser.find_element(By.CSS_SELECTOR, ".act summary").click()
    browser.find_element(By.CSS_SELECTOR, ".act button").click()
    wait(browser, lambda: "suspended" in text(browser, "#waiting"))
    browser.get(f"{site.url}destinations/garden.example")
    picture(browser, tmp_path, "destination")
    assert "suspended" in text(browser, ".row")
    browser.find_element(By.CSS_SELECTOR, ".act summary").click()
    browser.find_element(By.CSS_SELECTOR, ".act button").click()
    wait(browser, lambda: "suspended" not in text(browser, "#waiting"))


def test_an_address_that_was_suppressed_by_command_is_let_go_in_the_browser(site: Site, browser: WebDriver) -> None:
    site.postroom("suppress", "add", "kim@garden.example", "--domain", "sink.example")
    browser.get(f"{site.url}suppressions")
    assert "kim@garden.example" in text(browser, "table")
    browser.find_element(By.LINK_TEXT, "Remove").click()
    wait(browser, lambda: "Send to kim@garden.example again?" in text(browser, "main"))
    browser.find_element(By.CSS_SELECTOR, "main form button").click()
    wait(browser, lambda: "kim@garden.example gets mail again." in text(browser, ".notice"))
    assert "kim@garden.example" not in site.postroom("suppress", "ls")


@pytest.mark.parametrize("path", ["", "queue", "destinations", "domains", "domains/sink.example", "suppressions", "messages"])
def test_every_page_fits_a_phone(site: Site, browser: WebDriver, tmp_path: pathlib.Path, path: str) -> None:
    look(browser, width=390, dark=path == "")
    browser.get(site.url + (f"messages/{site.day.story}" if path == "messages" else path))
    assert overflow(browser) == 0
    if path == "":
        picture(browser, tmp_path, "phone-dark", 844)


def test_the_keyboard_reaches_everything_and_shows_where_it_is(site: Site, browser: WebDriver) -> None:
    look(browser)
    browser.get(f"{site.url}queue")
    body = browser.find_element(By.TAG_NAME, "body")
    reached = []
    for _ in range(40):
        body = browser.switch_to.active_element
        body.send_keys(Keys.TAB)
        focused = browser.switch_to.active_element
        reached.append((focused.tag_name, focused.get_attribute("name") or focused.text))
        if focused.tag_name != "body":
            assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") != "none", reached[-1]
    assert {("a", "Queue"), ("select", "state"), ("input", "domain"), ("button", "Show"), ("input", "id")} <= set(reached)
    assert reached[0] == ("a", "Skip to the content")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast_in_both_themes(site: Site, browser: WebDriver, dark: bool) -> None:
    """WCAG 2.2 AA: 4.5 to 1 for every text that is shown."""
    look(browser, dark=dark)
    for path in ("", "queue", f"messages/{site.day.story}", "destinations/mail.example"):
        browser.get(site.url + path)
        assert browser.execute_script(_FAINT) == [], path


_FAINT = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgb = (color) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => [r, g, b].map((c) => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; })
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const ground = (e) => {
  for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; }
  return [255, 255, 255];
};
const faint = [];
for (const e of document.querySelectorAll("main *, header *")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length || e.closest("svg, .hidden, .skip, option")) continue;
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  if (ratio < 4.5) faint.push(`${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
}
return faint;
"""
