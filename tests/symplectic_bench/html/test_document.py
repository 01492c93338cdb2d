"""The file of a page: self-contained, small enough, and closed to whatever its data say."""

import json
import re
from importlib.resources import files

import pytest

from symplectic_bench.html.document import document, script_json

STYLE = files("symplectic_bench.html").joinpath("page.css").read_text()


def test_no_text_of_the_data_can_end_the_script_or_begin_another():
    hostile = {"</script><script>alert(1)</script>": ["<!--", "&lt;", "\u2028\u2029", '"\\', float("nan")]}
    written = script_json(hostile)
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {next(iter(hostile)): ["<!--", "&lt;", "\u2028\u2029", '"\\', "NaN"]}


def test_a_page_is_one_file_below_five_megabytes_that_names_no_other():
    page = document("<b>title", {"title": "${style}", "sections": []})
    assert 1_000_000 < len(page.encode()) < 3_000_000
    assert "<title>&lt;b&gt;title</title>" in page
    assert '{"title":"${style}","sections":[]}' in page
    own = re.sub(r'<script type="application/gzip".*?</script>', "", page)
    assert len(own) < 100_000
    assert not re.findall(r"https?:|url\(|src=|@import", own)


def test_pages_of_a_site_share_the_library():
    page = document("t", {"sections": []}, library="../plotly.min.js")
    assert '<script src="../plotly.min.js"></script>' in page
    assert len(page) < 100_000


def theme(name):
    block = STYLE[STYLE.index({"light": ":root {", "dark": ':root[data-theme="dark"]'}[name]) :].split("}")[0]
    return dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", block))


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    """Return the ratio that WCAG 2.2 defines, at least 4.5 for text."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_every_text_has_enough_contrast(name):
    colors = theme(name)
    used = set(re.findall(r"[^-]color: var\(--([a-z]+)\)", STYLE))
    assert used == {"text", "muted", "link", "good", "bad", "warn"}
    low = {(t, b) for t in used for b in ("background", "surface") if contrast(colors[t], colors[b]) < 4.5}
    assert low == set()


def test_contrast_is_that_of_known_pairs():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") < 4.5 < contrast("#767676", "#ffffff")
