"""replace_torchdiffeq: what code that imports torchdiffeq gets, with torchdiffeq installed and without it."""

import importlib
import importlib.util
import subprocess
import sys
import textwrap
import types

import pytest
import torchdiffeq

import symplectic_adjoint as sa
from symplectic_adjoint.replacement import functions
from tests.clone import ROOT

OWN = {name: getattr(torchdiffeq, name) for name in ("odeint", "odeint_adjoint", "odeint_event", "odeint_dense")}


def names_of(*statements):
    scope = {}
    for statement in statements:
        exec(statement, scope)
    return scope


# The tests themselves hold torchdiffeq, and so do others: each replacement would say so.
pytestmark = pytest.mark.filterwarnings("ignore:imported before:symplectic_adjoint.NotReplacedWarning")


class TestImports:
    @pytest.mark.parametrize("name", OWN)
    @pytest.mark.parametrize(
        "statement",
        [
            "from torchdiffeq import {} as found",
            "import torchdiffeq; found = torchdiffeq.{}",
            "import torchdiffeq._impl as ode; found = ode.{}",
            "from torchdiffeq._impl import {} as found",
            "import importlib; found = importlib.import_module('torchdiffeq').{}",
            "from torchdiffeq import *; found = {}",
        ],
    )
    def test_every_way_to_import_a_function_gives_ours(self, statement, name):
        with sa.replace_torchdiffeq():
            assert names_of(statement.format(name))["found"] is getattr(functions, name)
        assert names_of(statement.format(name))["found"] is OWN[name]

    @pytest.mark.parametrize(
        ("module", "name"),
        [("odeint", "odeint"), ("odeint", "odeint_event"), ("odeint", "odeint_dense"), ("adjoint", "odeint_adjoint"),
         ("adjoint", "odeint")],
    )  # fmt: skip
    def test_the_private_modules_hold_the_functions_too(self, module, name):
        with sa.replace_torchdiffeq():
            found = names_of(f"from torchdiffeq._impl.{module} import {name} as found")["found"]
            assert found is getattr(functions, name)

    def test_the_name_odeint_of_impl_is_the_function_as_in_torchdiffeq(self):
        with sa.replace_torchdiffeq():
            assert names_of("import torchdiffeq._impl.odeint as odeint")["odeint"] is functions.odeint

    def test_a_package_that_looks_for_torchdiffeq_finds_it(self):
        with sa.replace_torchdiffeq():
            assert importlib.util.find_spec("torchdiffeq") is not None
            assert importlib.util.find_spec("torchdiffeq._impl.misc") is not None
            assert importlib.import_module("torchdiffeq").__version__ == torchdiffeq.__version__

    def test_feature_detection_works(self):
        with sa.replace_torchdiffeq():
            ours = importlib.import_module("torchdiffeq")
            assert hasattr(ours, "odeint") and not hasattr(ours, "odeint_of_the_future")
            assert getattr(ours, "odeint_of_the_future", 3) == 3
            with pytest.raises(AttributeError, match=r"torchdiffeq.odeint_of_the_future is not available"):
                _ = ours.odeint_of_the_future
            with pytest.raises(ImportError, match=r"torchdiffeq.odeint_of_the_future is not available"):
                names_of("from torchdiffeq import odeint_of_the_future")
            with pytest.raises(ModuleNotFoundError, match=r"torchdiffeq._impl.conv"):
                names_of("import torchdiffeq._impl.conv")


def test_what_only_torchdiffeq_has_is_its_own_with_a_warning():
    with sa.replace_torchdiffeq():
        with pytest.warns(sa.NotReplacedWarning, match=r"torchdiffeq._impl.dopri5.Dopri5Solver is torchdiffeq's own"):
            found = names_of("from torchdiffeq._impl.dopri5 import Dopri5Solver as found")["found"]
        assert found.__module__ == "torchdiffeq._impl.dopri5" and found.order == 5
        with pytest.warns(sa.NotReplacedWarning, match=r"SOLVERS"):
            assert "implicit_adams" in names_of("from torchdiffeq._impl.odeint import SOLVERS")["SOLVERS"]


def test_a_name_that_would_count_the_event_time_twice_is_refused():
    with sa.replace_torchdiffeq(), pytest.raises(ImportError, match=r"gradient of the event time is part of"):
        names_of("from torchdiffeq._impl.odeint import ImplicitFnGradientRerouting")


class TestItsEnd:
    def test_a_call_holds_until_it_is_restored(self):
        replaced = sa.replace_torchdiffeq()
        try:
            assert importlib.import_module("torchdiffeq").odeint is functions.odeint
        finally:
            replaced.restore()
        assert importlib.import_module("torchdiffeq") is torchdiffeq
        assert sys.modules["torchdiffeq._impl.misc"].__spec__.loader is not None

    def test_nested_replacements_end_in_order(self):
        with sa.replace_torchdiffeq():
            outer = sys.modules["torchdiffeq"]
            with sa.replace_torchdiffeq():
                pass
            assert sys.modules["torchdiffeq"] is outer
        assert sys.modules["torchdiffeq"] is torchdiffeq

    def test_an_error_in_the_block_ends_it_too(self):
        with pytest.raises(KeyError), sa.replace_torchdiffeq():
            raise KeyError
        assert sys.modules["torchdiffeq"] is torchdiffeq


@pytest.fixture
def earlier(request):
    """Return a module that imported torchdiffeq before it was replaced."""
    module = types.ModuleType("earlier_library")
    exec("import torchdiffeq\nfrom torchdiffeq import odeint as solve\nother = 1", vars(module))
    sys.modules[module.__name__] = module
    request.addfinalizer(lambda: sys.modules.pop(module.__name__))
    return module


class TestEarlierImports:
    def test_are_named_in_a_warning_and_kept(self, earlier):
        with pytest.warns(sa.NotReplacedWarning, match=r"earlier_library"), sa.replace_torchdiffeq():
            assert earlier.solve is OWN["odeint"] and earlier.torchdiffeq is torchdiffeq

    def test_are_replaced_on_request_and_put_back(self, earlier):
        with sa.replace_torchdiffeq(rebind=True):
            assert earlier.solve is functions.odeint
            assert earlier.torchdiffeq is sys.modules["torchdiffeq"] and earlier.other == 1
        assert earlier.solve is OWN["odeint"] and earlier.torchdiffeq is torchdiffeq


def run(tmp_path, script):
    """Run a script in a process where torchdiffeq and SciPy are not installed; return what it prints."""
    blocked = """
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("torchdiffeq", "scipy"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Blocked())
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(blocked) + textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, "-W", "error", path], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_works_where_torchdiffeq_is_not_installed(tmp_path):
    printed = run(
        tmp_path,
        """
        import torch, symplectic_adjoint as sa
        with sa.replace_torchdiffeq():
            from torchdiffeq import odeint
            from torchdiffeq._impl.adjoint import odeint_adjoint
            from torchdiffeq._impl.odeint import SOLVERS
            y0 = torch.ones(1, requires_grad=True)
            y = odeint(lambda t, y: y, y0, torch.tensor([0.0, 1.0]), method="rk4", options={"step_size": 0.1})[-1]
            print(f"{torch.autograd.grad(y, y0)[0].item():.4f}", "rk4" in SOLVERS, "rk38" in SOLVERS)
            for wanted in ("from torchdiffeq._impl.misc import _rms_norm",
                           "from torchdiffeq._impl.dopri5 import Dopri5Solver"):
                try:
                    exec(wanted)
                except ImportError as error:
                    print(error)
            try:
                odeint(lambda t, y: y, y0, torch.tensor([0.0, 1.0]), method="explicit_adams")
            except ValueError as error:
                print(error)
            try:
                SOLVERS["dopri5"](func=None, y0=None)
            except NotImplementedError as error:
                print(error)
        try:
            import torchdiffeq
        except ImportError as error:
            print(error)
        """,
    )
    lines = printed.splitlines()
    assert lines[0] == "2.7183 True False"
    assert lines[1].startswith("torchdiffeq._impl.misc._rms_norm is not available") and "install" in lines[1]
    assert lines[2].startswith("torchdiffeq._impl.dopri5.Dopri5Solver is not available")
    assert "Adams methods are not available" in lines[3]
    assert "solver class of 'dopri5'" in lines[4]
    assert lines[5] == "No module named 'torchdiffeq'"
