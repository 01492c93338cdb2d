"""Tests on a CUDA card: tox run -e gpu, or python -m pytest tests/gpu. One table at the end says what was measured."""

from pathlib import Path

import pytest
import torch

from tests.gpu.problems import AVAILABLE, DEVICE, ON_CARD

FOLDER = Path(__file__).parent
TABLE = pytest.StashKey()
HEADINGS = ("group", "measured", "value", "bound")


class Table:
    """What the tests measured: of values with the same name the largest."""

    def __init__(self):
        self.rows = {}

    def add(self, group, what, value, bound=None):
        """Add a number that has no bound, or whose bound is checked by the test itself."""
        before = self.rows.get((group, what))
        if before is None or value > before[0]:
            self.rows[group, what] = (value, bound)

    def at_most(self, group, what, value, bound):
        """Add a number, and assert that it is at most its bound."""
        self.add(group, what, value, bound)
        assert value <= bound, f"{group}, {what}: {value:.6g} is more than {bound:.6g}"

    def lines(self):
        cells = [HEADINGS, *((*key, _text(value), _text(bound)) for key, (value, bound) in self.rows.items())]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return ["  ".join(x.ljust(width) for x, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _text(number):
    return "" if number is None else f"{number:.4g}" if isinstance(number, float) else f"{number:,}"


def pytest_configure(config):
    config.stash[TABLE] = Table()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if ON_CARD:  # which warnings torch gives there is not known for every version
                item.add_marker(pytest.mark.filterwarnings("default"))
            if not AVAILABLE:
                item.add_marker(pytest.mark.skip(reason=f"{item.name} needs a CUDA card"))


def pytest_sessionfinish(session):
    """Under pytest-xdist, hand what this worker measured to the process that prints the table."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["table"] = [(*key, *row) for key, row in config.stash[TABLE].rows.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take a worker's table (pytest-xdist's hook)."""
    for row in getattr(node, "workeroutput", {}).get("table", ()):
        node.config.stash[TABLE].add(*row)


def pytest_terminal_summary(terminalreporter, config):
    table = config.stash[TABLE]
    if not table.rows:
        return
    name = torch.cuda.get_device_name() if ON_CARD else "the CPU, in place of a card"
    terminalreporter.section(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    for line in table.lines():
        terminalreporter.write_line(line)


@pytest.fixture
def table(request):
    return request.config.stash[TABLE]


@pytest.fixture
def device():
    return DEVICE


@pytest.fixture
def card():
    """Skip the test if there is no card."""
    if not ON_CARD:
        pytest.skip("needs a CUDA card")
    return DEVICE


@pytest.fixture(autouse=True)
def _draws_still_work():
    """Every test leaves a card that can be used: no capture is open, and random numbers can be drawn."""
    yield
    if ON_CARD:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        assert not torch.cuda.is_current_stream_capturing()
        assert torch.randn(2, device=DEVICE).isfinite().all()
