"""tox plugin: the environments of tox.ini are one folder with several commands.

They need the same packages, and torch alone takes 0.8 GB and 20 s to install. tox discards a folder that another
environment made, by the name written there; here all environments write the same name.
"""

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
