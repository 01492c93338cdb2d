"""tox plugin: the environments of tox.ini are one folder with several commands.

They need the same packages, and torch alone is 0.8 GB and 20 s of installation. tox takes a folder that
another environment made for a stale one, by the name it wrote there; here that name is the same for all.
"""

from tox.plugin import impl
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner


class SharedInfo(Info):
    def compare(self, value, section, sub_section=None):
        if section == "ToxEnv":
            value = {**value, "name": "shared"}
        return super().compare(value, section, sub_section)


class SharedRunner(VirtualEnvRunner):
    @staticmethod
    def id():
        return "shared"

    @property
    def cache(self):
        return SharedInfo(self.env_dir)


@impl
def tox_register_tox_env(register):
    register.add_run_env(SharedRunner)
