"""Adapters give their packages tensors of the cell's device. No package is called: stand-ins receive the tensors."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symplectic_bench.contenders import torchdiffeq as torchdiffeq_adapter
from symplectic_bench.contenders.paper import FUNCTIONS, PACKAGE
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.problems import PROBLEMS, build
from symplectic_bench.spec.failure import Diverged
from tests.symplectic_bench.contenders.against_ours import installed
from tests.symplectic_bench.sample_cells import FIXED, make_cell

ELSEWHERE = torch.device("meta")
"""A device that every machine has and that is not the CPU. Its tensors have no values, which would have to be copied
from a card."""


class Received(Exception):
    """The end of a stand-in's work."""


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from (*value.parameters(), *value.buffers())
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(one)


class StandIn(ModuleType):
    """A package all of whose functions and classes keep the tensors that they are given."""

    def __init__(self, name: str, ends: tuple[str, ...]) -> None:
        super().__init__(name)
        self.ends, self.received = ends, []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def called(*arguments: Any, **keywords: Any) -> Any:
            self.received += tensors_in([arguments, keywords])
            if name in self.ends:
                raise Received
            return Part(self)

        return called


class Part:
    """What a stand-in returns: an object whose methods do as its functions."""

    def __init__(self, package: StandIn) -> None:
        self.package = package

    def to(self, device: torch.device) -> "Part":
        assert device == ELSEWHERE
        return self

    def solve(self, *arguments: Any, **keywords: Any) -> None:
        self.package.received += tensors_in([arguments, keywords])
        raise Received


PACKAGES = {
    "paper": (PACKAGE, tuple(FUNCTIONS.values())),
    "torchode": ("torchode", ()),
    "rampde": ("rampde", ("odeint",)),
    "torchdiffeqpack": ("TorchDiffEqPack", ("odesolve_adjoint", "odesolve_adjoint_sym12")),
}
GIVEN = [
    ("paper", "symplectic", {"method": "dopri5"}),
    ("paper", "backprop", {"method": "rk4", **FIXED, "steps": 4}),
    ("rampde", "aca", {"method": "rk4", **FIXED, "steps": 4}),
    ("torchode", "backprop", {"method": "dopri5"}),
    ("torchode", "backprop", {"method": "euler", **FIXED, "steps": 4}),
    ("torchdiffeqpack", "aca", {"method": "dopri5", "sizes": {"outputs": 1}}),
    ("torchdiffeqpack", "mali", {"sizes": {"outputs": 1}, **FIXED, "steps": 4}),
]


def on_another_device(cell):
    return PROBLEMS["mlp"].build(cell.sizes_dict, cell.batch, cell.dtype, str(ELSEWHERE))


@pytest.mark.parametrize(("contender", "gradient", "how"), GIVEN)
def test_every_tensor_that_a_package_is_given_is_on_the_device_of_the_cell(contender, gradient, how, monkeypatch):
    name, ends = PACKAGES[contender]
    package = StandIn(name, ends)
    monkeypatch.setitem(sys.modules, name, package)
    cell = make_cell(contender=contender, gradient=gradient, dtype="float32", **how)
    with pytest.raises(Received):
        CONTENDERS[contender].gradient(on_another_device(cell), cell).complete()
    assert len(package.received) > 1 and {one.device for one in package.received} == {ELSEWHERE}


@pytest.mark.parametrize("gradient", ["backprop", "continuous"])
@pytest.mark.parametrize("how", [{}, {"method": "rk38", **FIXED, "steps": 4}], ids=["adaptive", "fixed"])
def test_torchdiffeq_is_given_times_on_the_device_of_the_cell(gradient, how, monkeypatch):
    package = StandIn("torchdiffeq", ("odeint", "odeint_adjoint"))
    monkeypatch.setattr(torchdiffeq_adapter, "_torchdiffeq", lambda: package)
    cell = make_cell(contender="torchdiffeq", gradient=gradient, dtype="float32", **how)
    with pytest.raises(Received):
        CONTENDERS["torchdiffeq"].gradient(on_another_device(cell), cell).complete()
    assert len(package.received) > 1 and {one.device for one in package.received} == {ELSEWHERE}


RUNS_ON_A_CARD = ("euler", "midpoint")
METHODS = (*RUNS_ON_A_CARD, "rk4", "rk38", "bosh3", "dopri5")
ON_A_CARD = [(method, gradient) for method in METHODS for gradient in ("symplectic", "aca", "continuous")]
ON_A_CARD.remove(("euler", "symplectic"))  # which fails on the CPU too


@pytest.mark.parametrize(("their_method", "their_gradient"), ON_A_CARD)
def test_the_papers_code_gives_up_on_a_card(their_method, their_gradient, tmp_path, monkeypatch):
    """There torch.nextafter refuses the times' neighbour, which is on the CPU: here it refuses a complex one."""
    installed("paper")
    misc = importlib.import_module(f"{PACKAGE}._impl.integrators.misc")
    for name in ("_inf", "_neginf"):
        monkeypatch.setattr(misc._PerturbFunc, name, torch.tensor(1j))
    accuracy = {} if their_method in ("bosh3", "dopri5") else {**FIXED, "steps": 4}
    cell = make_cell(contender="paper", gradient=their_gradient, method=their_method, **accuracy)
    if their_method in RUNS_ON_A_CARD:
        return CONTENDERS["paper"].gradient(build(cell, tmp_path), cell).complete()
    with pytest.raises(Diverged, match="nextafter"):
        CONTENDERS["paper"].gradient(build(cell, tmp_path), cell).complete()


def test_an_error_elsewhere_in_the_papers_code_is_an_error(tmp_path, monkeypatch):
    def broken(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("Expected all tensors to be on the same device")

    package = ModuleType(PACKAGE)
    package.odeint = broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, PACKAGE, package)
    cell = replace(make_cell(contender="paper", gradient="backprop"), sizes=())
    with pytest.raises(RuntimeError, match="same device") as raised:
        CONTENDERS["paper"].gradient(build(cell, tmp_path), cell).complete()
    assert not isinstance(raised.value, Diverged)
