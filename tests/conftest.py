import gc
import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from symplectic_adjoint.errors import forget_warnings

pytest_plugins = ["pytester", "tests.coverage_guard", "tests.generated.refusal_guard"]

# A generated problem is solved five times: its time means nothing, and a slow one is no reason to fail.
EVERYWHERE = {"deadline": None, "database": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=100, derandomize=True, **EVERYWHERE)
settings.register_profile("nightly", max_examples=2000, **EVERYWHERE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=50, help="how many random kills tests/chaos makes")
    parser.addoption("--generated-cases", type=int, default=1000, help="how many cases tests/generated runs")


@pytest.fixture(scope="module", autouse=True)
def _little_garbage_to_look_through():
    """Keep full collections, of which every measurement of memory makes one, from looking through all other objects.

    pytest's items and the imported libraries are a million of them: a collection would take a second, not 5 ms.
    """
    gc.collect(1)
    gc.freeze()


@pytest.fixture(autouse=True)
def _every_warning_anew():
    """Warnings given once a process would otherwise depend on which test comes first."""
    forget_warnings()


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)
