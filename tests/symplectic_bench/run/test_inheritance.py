"""What the server of measuring processes must not have when it forks one."""

import os
import subprocess
import sys

import pytest

from symplectic_bench.run.inheritance import CUDA_DEVICE, has_open
from symplectic_bench.run.processes import SERVER_SETTINGS, Limits, run
from tests.clone import PYTHONPATH

PROGRAM = """
from symplectic_bench.run import processes
from symplectic_bench.run.executors.executor import ExecutorError
processes.PRELOAD = ("symplectic_bench.run.inheritance", "beforehand")  # few, to be quick
try:
    print(processes.run(abs, (-1,), processes.Limits(60.0)).values)
except ExecutorError as why:
    print(why)
"""


def after_importing(beforehand, tmp_path, **files):
    """Return what a process gives that is forked from a server that has imported the module `beforehand`."""
    for name, text in {"beforehand": beforehand, **files}.items():
        (tmp_path / f"{name}.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([PYTHONPATH, str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
RAW_THREAD = (
    "import _thread, time\n_thread.start_new_thread(time.sleep, (600,))\nwhile not _thread._count(): time.sleep(0.01)\n"
)
CUDA = "import torch\ntorch.cuda.is_initialized = lambda: True\n"


@pytest.mark.parametrize(
    ("beforehand", "found"),
    [
        (CUDA, "initialised CUDA"),
        ("import jax\n" + THREAD, "imported JAX and started 1 more Python thread"),
        (RAW_THREAD + THREAD, "started 2 more Python threads"),
    ],
    ids=["cuda", "jax", "threads"],
)
def test_a_server_that_does_more_than_import_is_found_before_it_forks(beforehand, found, tmp_path):
    (sentence,) = after_importing(beforehand, tmp_path, jax="")
    assert sentence.startswith(f"the server of measuring processes has {found}, which") and "sitecustomize" in sentence


def test_a_server_that_only_imports_forks(tmp_path):
    assert after_importing("import json", tmp_path) == ["[1]"]


def what_the_environment_says():
    return {name: os.environ.get(name) for name in SERVER_SETTINGS}


def test_a_forked_process_asks_for_cuda_without_initialising_it_and_this_one_is_unchanged(monkeypatch):
    for before in (None, "0"):
        for name in SERVER_SETTINGS:
            monkeypatch.delenv(name, raising=False)
            if before is not None:
                monkeypatch.setenv(name, before)
        assert run(what_the_environment_says, (), Limits(60)).values == [SERVER_SETTINGS]
        assert what_the_environment_says() == dict.fromkeys(SERVER_SETTINGS, before)


def test_cuda_that_another_library_initialised_shows_in_the_open_files(tmp_path):
    for number, target in enumerate(["/dev/null", "pipe:[7]", "/dev/nvidiactl", "/dev/nvidia0"]):
        (tmp_path / str(number)).symlink_to(target)
    (tmp_path / "not-a-link").touch()
    assert not has_open(CUDA_DEVICE, tmp_path)  # the last two are NVML's
    (tmp_path / "9").symlink_to(CUDA_DEVICE)
    assert has_open(CUDA_DEVICE, tmp_path)
    assert not has_open(CUDA_DEVICE, tmp_path / "missing")
