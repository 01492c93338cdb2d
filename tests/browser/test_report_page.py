"""A suite's page in a real browser."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

from symplectic_bench.html.site import write_site
from symplectic_bench.report.typesetting import to_csv
from tests.browser.conftest import HOSTILE, PHONE, Visit
from tests.symplectic_bench.html.pages import a_report
from tests.symplectic_bench.sample_rows import an_environment, group

SCATTER = "#memory-time"


def hover(page):
    """Move the mouse to the first point, and return the text that comes up."""
    page.locator(f"{SCATTER} .scatterlayer .point").first.hover(force=True)  # plotly's own layer lies over it
    return page.locator(f"{SCATTER} .hovertext").first.text_content()


def choose(page, name, value):
    page.locator(f"{SCATTER} select[name={name}]").select_option(value)


def test_the_page_asks_for_nothing_and_complains_of_nothing(opened):
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1
    assert opened.complaints == []


def test_filters_change_the_points(visit):
    page = visit.page
    for axis in ("problem", "method", "dtype", "device"):
        choose(page, axis, "")
    counts = {}
    for problem in ("mlp", "flow", "van_der_pol", ""):
        choose(page, "problem", problem)
        counts[problem or "all"] = visit.points
    # Of 27, 24 and 9 cells one, two and two have no time; two are of the hostile group.
    assert counts == {"mlp": 26, "flow": 22, "van_der_pol": 7, "all": 57}
    choose(page, "dtype", "float32")
    assert visit.points == 22
    choose(page, "problem", "mlp")
    assert visit.points == 0
    assert page.locator(f"{SCATTER} [role=status]").first.inner_text() == "0 points of 0 cells"
    choose(page, "dtype", "float64")
    choose(page, "group", "1")
    assert visit.points == 9


def test_two_pinned_rows_give_the_ratio_of_the_cells_with_its_interval(visit, report):
    page = visit.page
    choose(page, "dtype", "")
    choose(page, "problem", "mlp")
    choose(page, "group", "0")
    for name in ("torchdiffeq backprop", "ours symplectic"):
        button = page.get_by_role("button", name=f"Pin {name}", exact=True)
        button.focus()
        page.keyboard.press("Enter")
    peer, ours = (next(c for c in report.lines if c["name"] == n) for n in ("torchdiffeq backprop", "ours symplectic"))
    low, high = (1 / ours[f"time_over_peer_{end}"] for end in ("high", "low"))
    found = re.fullmatch(
        r"torchdiffeq backprop over ours symplectic: time ([\d.]+) \(([\d.]+) to ([\d.]+)\), tensors ([\d.]+)",
        page.locator(".ratio").inner_text(),
    )
    assert found is not None
    expected = (1 / ours["time_over_peer"], low, high, peer["peak_tensor_bytes"] / ours["peak_tensor_bytes"])
    for written, value in zip(found.groups(), expected, strict=True):
        assert abs(float(written) / value - 1) < 0.01
    page.get_by_role("button", name="Unpin ours symplectic").click()
    assert page.locator(".ratio").count() == 0


def test_a_click_on_a_point_pins_its_cell_and_a_hover_shows_it(visit):
    page = visit.page
    choose(page, "problem", "van_der_pol")
    shown = hover(page)
    assert "rounds, least to most" in shown and "time x floor" in shown
    page.mouse.down()
    page.mouse.up()
    assert page.locator(".pins button").count() == 1


def test_tables_are_sorted_filtered_and_saved(visit, report):
    page = visit.page
    table = page.locator("[data-table=gradients]")
    names = table.locator("tbody tr td:nth-child(2)")
    assert names.count() == 63
    heading = table.get_by_role("button", name="time, ms", exact=True)
    heading.click()
    column = table.locator("thead th").all_inner_texts().index("time, ms")
    times = table.locator(f"tbody tr td:nth-child({column + 1})").all_inner_texts()
    known = [float(text) for text in times if text != "-"]
    assert known == sorted(known) and times[len(known) :] == ["-"] * (63 - len(known))
    table.get_by_role("searchbox").fill("flow wine stages")
    assert names.all_inner_texts() == ["ours stages"]
    with page.expect_download() as shown:
        table.get_by_role("button", name="CSV of these rows").click()
    rows = list(csv.DictReader(io.StringIO(shown.value.path().read_text())))
    assert [row["gradient"] for row in rows] == ["ours stages"]
    with page.expect_download() as whole:
        table.get_by_role("button", name="CSV of all").click()
    (expected,) = (one for one in report.tables if one.name == "gradients")
    assert whole.value.path().read_text() == to_csv(expected)
    table.get_by_role("searchbox").fill("")


def test_both_themes_and_a_phone_show_everything(visit):
    page = visit.page
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(22, 24, 29)")
    marker = page.locator(f"{SCATTER} .scatterlayer .point").last  # the first series is drawn last, on top
    assert "255, 120, 30" in marker.evaluate("one => getComputedStyle(one).fill")  # symplectic's, on dark
    page.get_by_role("button", name="Light theme").click()
    page.set_viewport_size(PHONE)
    page.wait_for_function("document.querySelector('.chart .main-svg').clientWidth < 390")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator(".chart .main-svg").first.bounding_box()["width"] > 300


def test_every_control_can_be_reached_with_the_keyboard(visit):
    page = visit.page
    page.locator(".skip").focus()
    assert page.locator(".skip").bounding_box()["x"] > 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Dark theme"
    unreachable = (
        "[...document.querySelectorAll('button, select, input, summary, a[href]')].filter(x => x.tabIndex < 0)"
    )
    assert page.evaluate(f"{unreachable}.filter(x => !x.closest('.chart')).length") == 0
    unnamed = page.evaluate(
        "[...document.querySelectorAll('select, input')].filter(x => !x.labels.length && !x.ariaLabel).length"
    )
    assert unnamed == 0


def test_a_site_opened_from_disk_shows_the_history_and_leads_back(browser, tmp_path):
    rows = group()
    later = an_environment(commit="fedcba987654", library_sha256="3" * 64)
    reports = [a_report(tmp_path, [replace(rows[0], f_calls_backward=999), *rows[1:]], environment=later)]
    write_site([[*reports, a_report(tmp_path, rows)]], tmp_path / "site")
    visit = Visit(browser).open(tmp_path / "site/small/index.html")
    page = visit.page
    assert page.locator("#history .scatterlayer .trace").count() == 6
    assert page.locator("#history .scatterlayer .point").count() == 11
    page.get_by_role("link", name="All suites").click()
    page.wait_for_selector("html[data-ready]")
    assert page.get_by_role("link", name="A small suite").count() == 1
    assert [Path(url).name for url in visit.requests] == ["index.html", "plotly.min.js", "index.html"]
    assert visit.complaints == []


def test_markup_in_any_field_is_only_text(visit):
    page = visit.page
    choose(page, "problem", HOSTILE)
    assert HOSTILE.split()[0] in hover(page)  # its lines are wrapped
    for name in (HOSTILE, f"{HOSTILE}2"):
        page.get_by_role("button", name=f"Pin {HOSTILE} {name}", exact=True).click()
    assert page.locator(".ratio").inner_text().count(HOSTILE) == 4
    for where in ("h1", "main > p", ".facts", "[data-table=failures]", "[data-table=gradients]"):
        assert HOSTILE in page.locator(where).first.text_content(), where
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x], main b").count() == 0
