"""The command line shared by the examples."""

import argparse
import importlib
import time
from collections.abc import Callable, Sequence

import torch

LIBRARIES = ("symplectic_adjoint", "torchdiffeq")
LINES = 10
"""The approximate number of losses to print."""

Report = Callable[[int, float], None]
"""Called after every iteration of a training with the iteration's number and loss."""


def silent(iteration: int, loss: float) -> None:
    """Report nothing."""
    del iteration, loss


def run(
    train: Callable[..., list[float]], description: str | None, iterations: int, argv: Sequence[str] | None = None
) -> None:
    """Train according to the command-line arguments, and print the loss about LINES times."""
    parser = training_parser(description, iterations)
    parser.add_argument("--library", choices=LIBRARIES, default=LIBRARIES[0], help="default: %(default)s")
    arguments = parser.parse_args(argv)

    start = time.perf_counter()
    train(
        importlib.import_module(arguments.library),
        iterations=arguments.iterations,
        seed=arguments.seed,
        report=printing(arguments.iterations),
    )
    print(f"{arguments.library}: {arguments.iterations} iterations in {time.perf_counter() - start:.1f} s")


def training_parser(description: str | None, iterations: int) -> argparse.ArgumentParser:
    """Return a parser of the options of every training, which runs on one thread."""
    torch.set_num_threads(1)  # networks of this size are slower on more
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=positive, default=iterations, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the data and the initial weights; default: %(default)s")
    return parser


def printing(iterations: int) -> Report:
    """Return a report that prints about LINES of the losses, and the last one."""
    every = -(-iterations // LINES)

    def report(iteration: int, loss: float) -> None:
        if iteration % every == 0 or iteration == iterations:
            print(f"iteration {iteration:5d}  loss {loss:.6g}", flush=True)

    return report


def positive(text: str) -> int:
    """Parse a positive integer. Raise ArgumentTypeError for any other."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
