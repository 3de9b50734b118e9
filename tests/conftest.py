"""What every test runs under: few threads, no traces in the home directory, helpers importable in subprocesses too."""

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

TESTS = Path(__file__).parent

# Set before anything imports torch, numpy or ray.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = os.environ.get("AMAGO_RAY_TEST_THREADS", "1")

# Ray refuses a path that holds no token yet, and without a path writes one into the home directory.
_private = Path(tempfile.mkdtemp(prefix="amago_ray_tests_"))
atexit.register(shutil.rmtree, _private, ignore_errors=True)
(_private / "token").write_text(secrets.token_hex(32))
os.environ["RAY_AUTH_TOKEN_PATH"] = str(_private / "token")

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))

# The same examples on every machine, however slow; nothing written beside the tests: the checkout may be read-only.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
