"""One page as one file: the template with its style, its script, its data and the library that draws its charts."""

import base64
import gzip
import json
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from symplectic_bench.rows.record import to_json_value

SCRIPTS = ("tables.js", "charts.js", "scatter.js", "page.js")
"""The parts of the page's script, in the order in which they are run."""

LIBRARY_FILE = "plotly.min.js"
"""The name of the library's file in a site, whose pages share it."""

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def document(title: str, data: dict[str, Any], library: str | None = None) -> str:
    """Return the text of a page that shows `data`, with everything that it needs in it.

    library: the address of LIBRARY_FILE relative to the page, for pages that share it; it is then not in the page. An
    empty address is that of a page without charts.
    """
    folder = files("symplectic_bench.html")
    template, style, *scripts = (
        folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *SCRIPTS)
    )
    plotly = _embedded_library() if library is None else library and f'<script src="{escape(library)}"></script>'
    return Template(template).substitute(
        title=escape(title), style=style, library=plotly, data=script_json(data), script="\n".join(scripts)
    )


def script_json(data: Any) -> str:
    """Return the data as JSON that may stand in a script element: no text in it can end the element.

    NaN and infinities become strings, as in rows.
    """
    text = json.dumps(to_json_value(data), allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 is escaped too
    return "".join(_UNSAFE.get(character, character) for character in text)


def library_text() -> str:
    """Return the library's source, a script for browsers."""
    return get_plotlyjs()


@cache
def _embedded_library() -> str:
    """Return an element that holds the library. Compressed, since it takes 4.8 MB; the script unpacks it."""
    packed = base64.b64encode(gzip.compress(library_text().encode(), mtime=0)).decode()
    return f'<script type="application/gzip" id="library">{packed}</script>'
