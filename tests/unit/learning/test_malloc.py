import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from amago_ray.learning.malloc import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.ones(30 * 2**18)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(29 * 2**18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again_without_page_faults():
    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, check=True, text=True).stdout
        )
        for mode in ("default", "keep")
    }
    assert faults["keep"] < 0.1 * faults["default"]
