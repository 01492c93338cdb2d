import getpass
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from symplectic_bench.rows.environment import capture, describe
from symplectic_bench.rows.store import read_environment, write_environment
from tests.clone import PYTHONPATH
from tests.symplectic_bench.sample_rows import an_environment


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "other"},
        {"cores": 4},
        {"torch": "2.14"},
        {"library_sha256": "3" * 64},
        {"gpus": ["H100"]},
        {"peers": {"torchode": "1.0.1"}},
    ],
)
def test_machine_versions_and_library_make_the_id(change):
    assert an_environment(**change).id != an_environment().id


@pytest.mark.parametrize("change", [{"commit": None}, {"uncommitted_changes": True}, {"suite_sha256": "3" * 64}])
def test_the_commit_does_not(change):
    assert an_environment(**change).id == an_environment().id


def test_the_environment_here_says_what_it_is_and_not_whose():
    environment = capture()
    assert environment.id == capture().id
    assert environment.python == ".".join(map(str, sys.version_info[:3]))
    assert environment.torch != "not installed"
    written = json.dumps(asdict(environment))
    private = [str(Path.home()), str(Path.cwd()), f'"{socket.gethostname()}"', f"/{getpass.getuser()}/"]
    assert [word for word in private if word in written] == []


def test_peers_that_are_not_installed_are_not_named(monkeypatch):
    monkeypatch.setattr("symplectic_bench.rows.environment.PEERS", ("no_such_package", "torchdiffeq"))
    assert capture().peers == {"torchdiffeq": capture().torchdiffeq}


def test_a_peer_that_is_only_on_the_path_is_named_by_its_source(monkeypatch, tmp_path):
    (tmp_path / "some_peer").mkdir()
    (tmp_path / "some_peer" / "__init__.py").write_text("a = 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("symplectic_bench.rows.environment.PEERS", ("some_peer",))
    before = capture().peers["some_peer"]
    (tmp_path / "some_peer" / "__init__.py").write_text("a = 2")
    assert before.startswith("with source ") and capture().peers["some_peer"] != before


def test_the_command_line_does_not_wait_for_torch():
    imported = "import sys, symplectic_bench.commands.app, symplectic_bench.rows.environment as e"
    program = f"{imported}; e.capture(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": PYTHONPATH}, check=True)


def test_a_caption_names_machine_versions_commit_scale_and_id(tmp_path):
    environment = an_environment(gpus=["Some GPU"], uncommitted_changes=True, peers={"torchode": "1.0.1"})
    write_environment(tmp_path, environment, "smoke")
    assert describe(read_environment(tmp_path)) == (
        "Measured on Some CPU, 2 cores, 8 GiB, Some GPU, Linux x86_64; Python 3.11.7, torch 2.13.0 (built for cpu),"
        " torchdiffeq 0.2.5, torchode 1.0.1; commit 0123456789ab with uncommitted changes, scale smoke,"
        f" environment {environment.id}."
    )
