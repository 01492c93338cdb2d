"""One browser and one page for all tests. They are skipped where no browser is installed (.ci/run installs one)."""

import os
import shutil
from dataclasses import replace

import pytest

from symplectic_bench.html.suite_page import write_suite_page
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.html.pages import a_report, looked_at
from tests.symplectic_bench.sample_rows import a_cell, a_row, an_environment

BROWSERS = ("google-chrome", "chromium", "chromium-browser")
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    """playwright runs an event loop in this thread until it ends, so it must not outlive these tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    # Chromium's sandbox refuses to start as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


class Visit:
    """A page in the browser, with everything that it complained of or asked for."""

    def __init__(self, browser):
        self.page = browser.new_page(viewport=DESKTOP, color_scheme="light")
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path):
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)
        return self

    @property
    def points(self):
        """How many points the chart of memory against time has."""
        return self.page.locator("#memory-time .scatterlayer .trace:has(.point) .point").count()


HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1><b>&amp;$x$"


def hostile_rows():
    """Return three rows of a group of its own, one of which does not count, with markup in every text."""
    axes = ("problem", "method", "contender", "gradient")
    words = dict.fromkeys(axes, HOSTILE) | {"sizes": ((HOSTILE, HOSTILE),)}
    names = (HOSTILE, f"{HOSTILE}2", f"{HOSTILE}3")
    rows = [a_row(a_cell(**words | {"gradient": name}), reason=HOSTILE) for name in names]
    return [*rows[:2], replace(rows[2], status=Status.ERROR, total_s=None, error_true_reason=HOSTILE)]


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    environment = an_environment(cpu=HOSTILE, gpus=[HOSTILE], peers={HOSTILE: HOSTILE})
    rows, folder = [*looked_at(), *hostile_rows()], tmp_path_factory.mktemp("report")
    return a_report(folder, rows, environment=environment, title=HOSTILE, description=HOSTILE)


@pytest.fixture(scope="module")
def opened(browser, report):
    """Return the page of the report, opened once: to read the library takes most of the time."""
    (path,) = write_suite_page(report)
    return Visit(browser).open(path)


@pytest.fixture
def visit(opened):
    """Return the page without the pins and the size of the test before."""
    page = opened.page
    page.set_viewport_size(DESKTOP)
    page.emulate_media(color_scheme="light")
    for button in page.locator(".pins button").all():
        button.click()
    yield opened
    assert opened.complaints == []
