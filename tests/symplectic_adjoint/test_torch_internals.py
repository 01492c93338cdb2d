"""The private names of torch: all are gathered in one module, all exist, and every fallback does the same."""

import ast
import ctypes
import re
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.autograd import forward_ad
from torch.autograd.graph import get_gradient_edge
from torch.autograd.profiler import record_function

from symplectic_adjoint import _torch_internals as installed

ROOT = Path(__file__).parents[2]
LIBRARY, SUITE = ROOT / "symplectic_adjoint", ROOT / "benchmarks" / "symplectic_bench"
HOME = LIBRARY / "_torch_internals.py"
SOURCES = [path for package in (LIBRARY, SUITE) for path in sorted(package.rglob("*.py")) if path != HOME]
NAMES = [*installed.REQUIRED, *installed.OPTIONAL, *installed.COMPILER]

with_and_without = pytest.mark.parametrize("gone", [False, True], ids=["present", "gone"])


@contextmanager
def removed(*names):
    """Delete the names from torch for a while; of "Variable._engine.run" the part that begins with "_"."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            module, _, attributes = name.partition(":")
            holder, chain = resolve_name(module), attributes.split(".")
            while len(chain) > 1 and not chain[0].startswith("_"):
                holder = getattr(holder, chain.pop(0))
            patch.delattr(holder, chain[0])
        yield


def internals_without(*names):
    """Return a second copy of the module, imported while torch lacks the names."""
    spec = spec_from_file_location("internals_without", HOME)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    with removed(*names):
        spec.loader.exec_module(module)
    return module


def internals(gone, *names):
    return internals_without(*names) if gone else installed


# ---- names ----


def test_every_name_that_is_looked_up_is_listed_once():
    assert set(re.findall(r'"(torch[\w.]*:[\w.]+)"', HOME.read_text())) == set(NAMES)
    assert len(set(NAMES)) == len(NAMES) and all((installed.REQUIRED, installed.OPTIONAL, installed.COMPILER))


@pytest.mark.parametrize("name", NAMES)
def test_a_private_name_exists_in_the_installed_torch(name):
    resolve_name(name)


@pytest.mark.parametrize("name", installed.REQUIRED)
def test_a_missing_name_without_a_fallback_is_an_error_at_import(name):
    with pytest.raises(ImportError, match=r"that torch .* lacks: install a torch from 2.11") as raised:
        internals_without(name)
    assert name.replace(":", ".") in str(raised.value) and torch.__version__ in str(raised.value)


@pytest.mark.parametrize("name", installed.COMPILER)
def test_a_missing_name_of_the_compiler_is_an_error_when_it_is_used(name):
    resolve_name(name)
    internals_without(name)
    with removed(name), pytest.raises(ImportError, match=name.replace(":", ".")):
        installed.require_compiler_names()


def test_the_library_does_not_import_the_compiler():
    code = "import sys, symplectic_adjoint; sys.exit(any(m.startswith('torch._inductor') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("thing", "names"),
    [
        (torch.ones(1), installed.TENSOR_ATTRIBUTES),
        (nn.Module(), installed.MODULE_ATTRIBUTES),
        (torch.ones(1, requires_grad=True).clone().grad_fn, installed.NODE_ATTRIBUTES),
        (torch.ops.aten.bernoulli.p, installed.OPERATOR_ATTRIBUTES),
    ],
    ids=["tensor", "module", "node", "operator"],
)
def test_private_attributes_exist_in_the_installed_torch(thing, names):
    assert all(hasattr(thing, name) for name in names)


# ---- one place ----


def private(dotted):
    """Whether a dotted name passes through a private one; "__version__" is public."""
    return any(part.startswith("_") and not part.endswith("__") for part in dotted.split("."))


def dotted_name(node):
    """Return "a.b.c" for that chain of attributes, None for a chain that starts with anything but a name."""
    if isinstance(node, ast.Attribute):
        owner = dotted_name(node.value)
        return None if owner is None else f"{owner}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def private_names_of_torch(source):
    """Yield the private names that a source reaches through what it imports of torch."""
    of_torch = {}
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "torch":
                    of_torch[alias.asname or "torch"] = alias.name if alias.asname else "torch"
                    yield from [alias.name] if private(alias.name) else []
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            for alias in node.names:
                of_torch[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield from [f"{node.module}.{alias.name}"] if private(f"{node.module}.{alias.name}") else []
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and (dotted := dotted_name(node)):
            first, _, rest = dotted.partition(".")
            if first in of_torch and private(rest):
                yield f"{of_torch[first]}.{rest}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch\ntorch._C._set_grad_enabled(True)", {"torch._C", "torch._C._set_grad_enabled"}),
        ("import torch._dynamo", {"torch._dynamo"}),
        ("import torch.nn as nn\nnn.modules._functions", {"torch.nn.modules._functions"}),
        ("from torch._C import _log", {"torch._C._log"}),
        ("from torch import _foreach_add_ as add", {"torch._foreach_add_"}),
        ("from torch.autograd import forward_ad as ad\nad._level", {"torch.autograd.forward_ad._level"}),
        ("def f():\n    from torch._inductor import compile", {"torch._inductor.compile"}),
        ("import torch\ntorch.__version__\ntorch.ones(1)._version", set()),
    ],
)
def test_private_names_are_found_in_a_source(source, expected):
    assert set(private_names_of_torch(source)) == expected


def test_private_names_of_torch_are_used_in_one_module_only():
    reached = {str(path): set(private_names_of_torch(path.read_text())) for path in SOURCES}
    assert len(reached) > 100 and {path: names for path, names in reached.items() if names} == {}


def test_private_attributes_of_tensors_modules_and_nodes_are_listed():
    """An attribute of self is the library's own; so is any that torch's objects do not have."""
    of_torch = {name for kind in (torch.Tensor, nn.Module(), torch.autograd.graph.Node) for name in dir(kind)}
    read = {
        node.attr
        for path in SOURCES
        if LIBRARY in path.parents
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and dotted_name(node.value) != "self"
    }
    listed = {*installed.TENSOR_ATTRIBUTES, *installed.MODULE_ATTRIBUTES, *installed.NODE_ATTRIBUTES}
    assert {name for name in read & of_torch if private(name)} == listed


# ---- fallbacks ----


def graph():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    unused = torch.ones((), requires_grad=True)
    return x, unused, x**3


@pytest.fixture
def without_engine():
    return internals_without("torch.autograd:Variable._execution_engine.run_backward")


@pytest.mark.parametrize("as_edge", [False, True])
def test_backward_without_the_engine_returns_the_same_gradients(without_engine, as_edge):
    assert without_engine.run_backward is not installed.run_backward
    expected, got = [], []
    for module, out in ((installed, expected), (without_engine, got)):
        x, unused, y = graph()
        roots, seeds = (get_gradient_edge(y) if as_edge else y,), (torch.ones(2),)
        out += module.run_backward(
            roots, seeds, False, False, (x, unused), allow_unreachable=True, accumulate_grad=False
        )
        assert x.grad is None
    assert torch.equal(got[0], expected[0]) and torch.equal(got[0], torch.tensor([3.0, 12.0]))
    assert got[1] is expected[1] is None


def test_backward_without_the_engine_accumulates_in_grad_and_keeps_the_graph(without_engine):
    x, unused, y = graph()
    for _ in range(2):
        without_engine.run_backward(
            (y,), (torch.ones(2),), True, False, (x, unused), allow_unreachable=True, accumulate_grad=True
        )
    assert x.grad is not None and torch.equal(x.grad, torch.tensor([6.0, 24.0])) and unused.grad is None


def test_backward_without_the_engine_creates_a_graph(without_engine):
    x, _, y = graph()
    (bar,) = without_engine.run_backward(
        (y,), (torch.ones(2),), True, True, (x,), allow_unreachable=True, accumulate_grad=False
    )
    (second,) = torch.autograd.grad(bar.sum(), x)
    assert torch.equal(second, torch.tensor([6.0, 12.0]))


@with_and_without
def test_grad_mode_is_switched_by_the_call(gone):
    set_grad_enabled = internals(gone, "torch._C:_set_grad_enabled").set_grad_enabled
    with torch.no_grad():
        set_grad_enabled(True)
        assert torch.is_grad_enabled()
        set_grad_enabled(False)
        assert not torch.is_grad_enabled()


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, *grad_outputs):
        return 2 * grad_outputs[0]


@with_and_without
def test_hooks_on_saved_tensors_are_seen(gone):
    top = internals(gone, "torch._C._autograd:_top_saved_tensors_default_hooks").top_saved_tensors_hooks
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        assert top(False) is not None
    assert gone or top(False) is None


@with_and_without
def test_nodes_of_python_functions_are_recognised(gone):
    PythonNode = internals(gone, "torch._C:_FunctionBase").PythonNode
    x = torch.ones((), requires_grad=True)
    assert isinstance(Double.apply(x).grad_fn, PythonNode)  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance((2 * x).grad_fn, PythonNode) == gone  # the fallback takes every node for one


@with_and_without
def test_parts_are_added_to_their_totals_in_place(gone):
    foreach_add_ = internals(gone, "torch:_foreach_add_").foreach_add_
    totals, parts = [torch.zeros(2), torch.ones(3)], [torch.ones(2), torch.ones(3)]
    first, versions = totals[0], [x._version for x in totals]
    foreach_add_(totals, parts)
    foreach_add_(totals, parts, alpha=0.5)
    assert first.tolist() == [1.5, 1.5] and totals[1].tolist() == [2.5] * 3
    assert all(x._version > before for x, before in zip(totals, versions, strict=True))  # as parameter aliases need


@with_and_without
def test_tensors_are_copied_and_set_to_zero_in_place(gone):
    names = "torch:_foreach_copy_", "torch:_foreach_zero_"
    module, xs, ys = internals(gone, *names), [torch.zeros(2), torch.zeros(3)], [torch.ones(2), torch.full((3,), 2.0)]
    module.foreach_copy_(xs, ys)
    assert [x.tolist() for x in xs] == [[1.0] * 2, [2.0] * 3]
    module.foreach_zero_(xs)
    assert [x.tolist() for x in xs] == [[0.0] * 2, [0.0] * 3] and ys[0].tolist() == [1.0] * 2


@with_and_without
def test_a_function_is_kept_from_the_tracer_with_all_that_it_calls(gone):
    names = [name for name in installed.OPTIONAL if "eval_frame" in name]
    untraced = internals(gone, *names).untraced
    counter = CompileCounter()

    def called(x):
        return 2 * x.sin()

    @untraced
    def kept(x):
        return called(x) + 1

    x = torch.ones(3)
    around = torch.compile(lambda x: kept(x.cos()).tan(), backend=counter)
    assert torch.equal(around(x), kept(x.cos()).tan()) and counter.op_count == 2
    assert torch.equal(torch.compile(kept, backend=counter)(x), kept(x)) and counter.op_count == 2
    torch._dynamo.reset()


@with_and_without
def test_a_copy_that_keeps_the_version_leaves_a_graph_usable(gone):
    name = "torch.autograd.grad_mode:_unsafe_preserve_version_counter"
    copy_keeping_version = internals(gone, name).copy_keeping_version
    buffer, x = torch.tensor(3.0), torch.ones((), requires_grad=True)
    y = x * buffer
    copy_keeping_version(buffer, torch.tensor(5.0))
    assert buffer.item() == 5.0
    y.backward()  # raises if the version of the saved buffer has changed


@with_and_without
def test_an_open_forward_mode_level_is_seen(gone, monkeypatch):
    if gone:
        public = {name: value for name, value in vars(forward_ad).items() if not name.startswith("_")}
        monkeypatch.setattr(installed, "forward_ad", SimpleNamespace(**public))
    assert not installed.forward_mode_is_active()
    with forward_ad.dual_level():
        assert installed.forward_mode_is_active()
        assert installed.forward_mode_is_active()  # the first look left the level open
    assert not installed.forward_mode_is_active()


@pytest.mark.parametrize("name", [name for name in installed.OPTIONAL if "profiler" in name])
def test_the_public_profiler_records_the_same_allocations(name):
    copy = internals_without(name)
    assert copy.allocation_events is not installed.allocation_events
    recorded = [events_of(module) for module in (installed, copy)]
    assert recorded[0] == recorded[1] == [("[memory]", 4000), ("[memory]", -4000), ("mark", 0)]


def events_of(module):
    with module.allocation_events() as events, record_function("mark"):
        torch.empty(1000)
    return sorted(((e.name, e.nbytes) for e in events if e.name in ("[memory]", "mark")), key=lambda e: (e[0], -e[1]))


def test_a_torch_without_the_variable_of_its_log_level_keeps_its_level(monkeypatch):
    level = installed.log_level()
    assert level.value == installed.WARNING
    program = ctypes.CDLL(None)  # it and what it is linked with: not torch
    monkeypatch.setattr(installed.ctypes, "CDLL", lambda _: program)
    installed.log_level().value = installed.ERROR
    assert level.value == installed.WARNING
