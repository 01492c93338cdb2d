"""The command line that the examples share."""

import argparse
import importlib
import time
from collections.abc import Callable, Sequence

import torch

LIBRARIES = ("symplectic_adjoint", "torchdiffeq")
LINES = 10

Report = Callable[[int, float], None]
"""What a training calls after every iteration, with its number and its loss."""


def silent(iteration: int, loss: float) -> None:
    del iteration, loss


def run(
    train: Callable[..., list[float]], description: str | None, iterations: int, argv: Sequence[str] | None = None
) -> None:
    """Trains as the arguments say, and prints the loss some ten times on the way."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=LIBRARIES, default=LIBRARIES[0], help="default: %(default)s")
    parser.add_argument("--iterations", type=positive, default=iterations, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the data and the first weights; default: %(default)s")
    chosen = parser.parse_args(argv)

    torch.set_num_threads(1)  # networks of this size lose time on more
    every = -(-chosen.iterations // LINES)

    def report(iteration: int, loss: float) -> None:
        if iteration % every == 0 or iteration == chosen.iterations:
            print(f"iteration {iteration:5d}  loss {loss:.6g}", flush=True)

    start = time.perf_counter()
    train(importlib.import_module(chosen.library), iterations=chosen.iterations, seed=chosen.seed, report=report)
    print(f"{chosen.library}: {chosen.iterations} iterations in {time.perf_counter() - start:.1f} s")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
