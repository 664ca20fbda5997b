"""Files that the operating system does not let us read, also where the tests run as root."""

import os
import shutil
import subprocess

import pytest

DROP = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""Root without these capabilities obeys permission bits."""


def obeying_permissions() -> tuple[str, ...]:
    """Arguments for ``tests.servers.run`` and ``process`` that come first; skips the test where there is no way."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which(DROP[0]) or subprocess.run([*DROP, "true"], check=False).returncode:
        pytest.skip("root reads every file here: setpriv (util-linux) is missing or not allowed")
    return ("-c", f"import os, sys; os.execvp('setpriv', {DROP} + [sys.executable] + sys.argv[1:])")
