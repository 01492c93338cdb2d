import pytest
import torch

pytest_plugins = ["pytester", "tests.coverage_guard"]


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)
