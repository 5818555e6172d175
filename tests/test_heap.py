"""The memory that a network frees stays with the process."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from separator.heap import keep_freed_memory
keep = {keep}
if keep:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    block = bytearray(30 << 20)
    block[::4096] = block[::4096]
use()
before = faults()
for _ in range(10):
    use()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_used_again_without_page_faults():
    faults = [
        int(subprocess.check_output([sys.executable, "-c", PROGRAM.format(keep=keep)]))
        for keep in (False, True)
    ]
    assert faults[1] < 1000 < faults[0]
