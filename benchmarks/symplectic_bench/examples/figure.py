"""The command line of the examples that end with a figure."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure as Figure
from torch import Tensor

from symplectic_bench.examples.command_line import printing, training_parser

Result = TypeVar("Result")


def run_and_draw(
    train: Callable[..., Result],
    draw: Callable[[Figure, Result], None],
    description: str | None,
    *,
    name: str,
    iterations: int,
    argv: Sequence[str] | None = None,
) -> None:
    """Train according to the command-line arguments, printing the loss about ten times, and write the figure."""
    parser = training_parser(description, iterations)
    parser.add_argument("--figure", type=Path, default=Path(f"{name}.svg"), help="default: %(default)s")
    arguments = parser.parse_args(argv)

    start = time.perf_counter()
    result = train(iterations=arguments.iterations, seed=arguments.seed, report=printing(arguments.iterations))
    print(f"{arguments.iterations} iterations in {time.perf_counter() - start:.1f} s")
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    draw(figure, result)
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.figure)
    print(f"wrote {arguments.figure}")


def draw_losses_and_images(
    figure: Figure, losses: Sequence[float], label: str, images: Tensor, titles: Sequence[int] | None = None
) -> None:
    """Draw the losses on the left and 24 images, (24, height, width), with their titles on the right."""
    grid = figure.add_gridspec(4, 12)
    axes = figure.add_subplot(grid[:, :6])
    axes.plot(losses)
    axes.set(xlabel="iteration", ylabel=label)
    for i, image in enumerate(images):
        axes = figure.add_subplot(grid[i // 6, 6 + i % 6])
        axes.imshow(image.numpy(), cmap="gray_r")
        axes.axis("off")
        if titles is not None:
            axes.set_title(str(titles[i]), fontsize="small")
