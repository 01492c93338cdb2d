"""A probe and the families of probes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from symplectic_bench.features.library import Library

Program = Callable[[Library], Any]


@dataclass(frozen=True)
class Probe:
    """A question of one line, and the program that asks it of a library in PyTorch."""

    name: str
    question: str
    program: Program


@dataclass(frozen=True)
class Family:
    """Probes of one subject, in the order of the table."""

    title: str
    probes: list[Probe] = field(default_factory=list)

    def probe(self, question: str) -> Callable[[Program], Program]:
        """Return a decorator that adds a program, under the name of its function."""

        def add(program: Program) -> Program:
            name = program.__name__  # pyright: ignore[reportFunctionMemberAccess]
            self.probes.append(Probe(name, question, program))
            return program

        return add
