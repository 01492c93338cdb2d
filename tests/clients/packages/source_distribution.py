"""The source distribution of an installed package, for the tests that it ships, which are run where it is unpacked."""

import subprocess
import sys
import tarfile
from importlib.metadata import version


def unpack(package, folder):
    """Download the source distribution of the installed version into the folder; return where it is unpacked."""
    pinned = f"{package}=={version(package)}"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package, pinned]
    subprocess.run(download, cwd=folder, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked
