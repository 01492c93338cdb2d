"""The mutants of a folder, which are cosmic-ray's, and a sample of them."""

import ast
import difflib
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One change of a source file: the place where one operator changes the program."""

    path: str
    operator: str
    occurrence: int
    place: tuple[int, int]


@dataclass(frozen=True)
class Change:
    """The lines of a file that a mutant takes away, and those that it puts there."""

    file: str
    line: str
    mutant: str
    is_python: bool = True
    """Whether the changed file can be compiled: a lone * among parameters is an operator to cosmic-ray."""

    @classmethod
    def between(cls, file: str, sound: str, mutated: str) -> "Change":
        lines = list(difflib.ndiff(sound.splitlines(), mutated.splitlines()))
        away, there = ("\n".join(line[2:].strip() for line in lines if line[0] == sign).strip() for sign in "-+")
        try:
            ast.parse(mutated)
        except SyntaxError:
            return cls(file, away, there, is_python=False)
        return cls(file, away, there)


def mutants(folder: Path, excluded: list[str]) -> list[Mutant]:
    """Return every mutant of the files in a folder, but none of the operators that match an excluded pattern."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    found = []
    for path in sorted(folder.rglob("*.py")):
        nodes = list(ast_nodes(get_ast_from_path(path)))
        for name in operator_names():
            kind = get_operator(name)
            if kind.arguments() or any(re.search(pattern, name) for pattern in excluded):
                continue
            operator = kind()
            places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
            found.extend(Mutant(str(path), name, n, start) for n, start in enumerate(places))
    return found


def sample(population: list[Mutant], size: int, seed: int) -> list[Mutant]:
    """Draw places, and one mutant of each: an operator of arithmetic has six mutants, and would count six times."""
    places = defaultdict(list)
    for mutant in population:
        places[mutant.path, mutant.place].append(mutant)
    draw = random.Random(seed)
    chosen = draw.sample(list(places.values()), min(size, len(places)))
    return [draw.choice(there) for there in chosen]


@contextmanager
def planted(mutant: Mutant) -> Iterator[Change]:
    """Change the file while the block runs."""
    from cosmic_ray.mutating import use_mutation
    from cosmic_ray.plugins import get_operator

    operator = get_operator(mutant.operator)()
    with use_mutation(Path(mutant.path), operator, mutant.occurrence) as (sound, mutated):
        assert mutated is not None, f"{mutant} is no longer there"
        yield Change.between(mutant.path, sound, mutated)
