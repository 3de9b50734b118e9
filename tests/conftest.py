"""What every test runs under: few threads, no traces in the home directory, helpers importable in subprocesses too."""

import os
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent

# Set before anything imports torch, numpy or ray.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["RAY_AUTH_TOKEN_PATH"] = str(Path(tempfile.mkdtemp(prefix="amago_ray_tests_")) / "token")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
