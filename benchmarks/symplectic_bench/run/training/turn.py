"""The calls of a training run's processes: some iterations, a memory measurement, or the final evaluation."""

import gc
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint import watch_memory
from symplectic_bench.contenders.gradient_run import giving_up
from symplectic_bench.contenders.registry import TRAINERS
from symplectic_bench.measure.resident_memory import high_water_bytes, reset_high_water_bytes
from symplectic_bench.run.training.checkpoint import load, save
from symplectic_bench.run.training.integrator import Integrator, forward_only
from symplectic_bench.run.training.iteration_memory import IterationMemory
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import Diverged
from symplectic_bench.tasks import TASKS, Task


class CheckpointMissing(RuntimeError):
    """The trained network is not on disk."""


def train(cell: Cell, cache_dir: Path, file: Path, until: int) -> Iterator[dict[str, Any]]:
    """Train from the checkpoint until `until` iterations are done, yielding after each, and save the next checkpoint.

    On CUDA the memory of the process's second iteration is measured, unless the log has one.

    Raises Diverged if the solver gives up or a loss is not finite.
    """
    contender = TRAINERS[cell.contender]
    contender.load()
    task = TASKS[cell.problem].build(cell, cache_dir)
    optimizer = task.optimizer()
    log = load(file, task, optimizer)
    rates = [group["lr"] for group in task.optimizer().param_groups]
    integrate = Integrator(contender, cell)
    baseline, on_card = reset_high_water_bytes(), cell.device == "cuda"
    log.starts.append(log.iterations)
    for iteration in range(log.iterations, until):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * task.learning_rate_factor(iteration)
        watched = on_card and not log.memory and iteration > log.starts[-1]
        memory = IterationMemory.begin(task) if watched else None
        began = _now(cell)
        with giving_up(contender.gives_up):
            loss = task.loss(integrate, iteration)
        solved = _now(cell)
        if memory is not None:
            memory.after_forward()
        with giving_up(contender.gives_up):
            loss.backward()
        differentiated = _now(cell)
        if memory is not None:
            log.memory = {**memory.after_backward(), "parameter_bytes": _parameter_bytes(task)}
        optimizer.step()
        optimizer.zero_grad()
        ended = _now(cell)
        _append_loss(log.losses, loss, iteration)
        log.counts.append(asdict(integrate.take_counts()))
        log.forward_s.append(solved - began)
        log.backward_s.append(differentiated - solved)
        log.total_s.append(ended - began)
        yield {"iteration": iteration}
    if not on_card:  # where it is the driver's, not the gradient's
        log.peak_rss_bytes = max(log.peak_rss_bytes, high_water_bytes() - baseline)
    save(file, task, optimizer, log)
    yield asdict(log)


def _append_loss(losses: list[float], loss: Tensor, iteration: int) -> None:
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(f"the loss is {value} in iteration {iteration}")
    losses.append(value)


def _now(cell: Cell) -> float:
    if cell.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_memory(cell: Cell, cache_dir: Path, file: Path) -> dict[str, Any]:
    """Measure the bytes of live tensors in the checkpoint's next iteration, above those of network and data.

    Save them in the checkpoint's log, and return the log.
    """
    contender = TRAINERS[cell.contender]
    contender.load()
    task = TASKS[cell.problem].build(cell, cache_dir)
    optimizer = task.optimizer()
    log = load(file, task, optimizer)
    integrate = Integrator(contender, cell)
    losses: list[Tensor] = []

    def forward() -> None:
        losses.append(task.loss(integrate, log.iterations))

    def backward() -> None:
        losses.pop().backward()

    forward()  # memory allocated once per process does not count
    backward()
    task.release_iteration()
    integrate.take_counts()
    gc.collect()
    forward_memory, backward_memory = watch_memory(cell.device, forward, backward)
    log.memory = {
        "peak_tensor_bytes": max(forward_memory.peak_bytes, backward_memory.peak_bytes),
        "forward_peak_tensor_bytes": forward_memory.peak_bytes,
        "kept_tensor_bytes": forward_memory.left_bytes,
        "parameter_bytes": _parameter_bytes(task),
    }
    save(file, task, optimizer, log)
    return asdict(log)


def _parameter_bytes(task: Task) -> int:
    return sum(p.numel() * p.element_size() for p in task.parameters())


def evaluate(cell: Cell, cache_dir: Path, file: Path) -> dict[str, float]:
    """Return the task's metrics for the network in the checkpoint. Raise CheckpointMissing if there is none."""
    task = TASKS[cell.problem].build(cell, cache_dir)
    if not load(file, task).iterations:
        raise CheckpointMissing(f"{file.name} was removed after the training")
    with torch.no_grad():
        return task.metrics(forward_only(cell))
