"""tox plugin: the environments of tox.ini are one folder with several commands, and each has a budget of minutes.

They need the same packages, and torch alone takes 0.8 GB and 20 s to install. tox discards a folder that another
environment made, by the name written there; here all environments write the same name.
"""

import time

from tox.plugin import impl
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner


class SharedInfo(Info):
    """The file that tox writes into the folder, with one name for all environments."""

    def compare(self, value, section, sub_section=None):
        if section == "ToxEnv":
            value = {**value, "name": "shared"}
        return super().compare(value, section, sub_section)


class SharedRunner(VirtualEnvRunner):
    """A runner whose environments share one folder."""

    @staticmethod
    def id():
        return "shared"

    @property
    def cache(self):
        return SharedInfo(self.env_dir)


@impl
def tox_register_tox_env(register):
    """Register the runner as "shared"."""
    register.add_run_env(SharedRunner)


class Budgets:
    """The minutes that environments took, one after the other, with their installation, and those that they may."""

    def __init__(self):
        self.end = time.monotonic()
        self.taken = self.allowed = 0.0

    def line(self, name, allowed, end):
        """Return what to print of an environment that ended at `end`, in seconds, and began where the last one did."""
        taken, self.end = (end - self.end) / 60, end
        self.taken += taken
        self.allowed += allowed
        over = "OVER ITS BUDGET: " if taken > allowed else ""
        return f"{name}: {over}{taken:.1f} of {allowed:.1f} min (so far {self.taken:.1f} of {self.allowed:.1f})"


BUDGETS = Budgets()


@impl
def tox_add_env_config(env_conf, state):
    """Let an environment say how long it may take on two cores. A slower machine is told so; nothing fails."""
    env_conf.add_config("budget_minutes", float, 0.0, "the minutes that it may take on two cores; 0: any number")


@impl
def tox_after_run_commands(tox_env, exit_code, outcomes):
    """Print how long the environment took."""
    allowed = tox_env.conf["budget_minutes"]
    if allowed > 0.0:
        print(BUDGETS.line(tox_env.conf.name, allowed, time.monotonic()), flush=True)
