"""The memory that a network frees stays with the process."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, threading
from separator import heap
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 4 KiB
keep = "{keep}"
if keep:
    assert getattr(heap, keep)()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    block = bytearray({megabytes} << 20)
    block[::4096] = block[::4096]
def often():
    use()
    before = faults()
    for _ in range(10):
        use()
    print(faults() - before)
thread = threading.Thread(target=often)
thread.start()
thread.join()
"""

RELEASE = """
from pathlib import Path
from separator.heap import keep_freed_memory, release_freed_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
assert keep_freed_memory()
before = resident()
blocks = [bytearray(b"x") * (1 << 20) for _ in range(100)]
del blocks
kept = resident() - before
release_freed_memory()
print(kept >> 20, (resident() - before) >> 20)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")


@glibc
def test_what_was_kept_can_be_released():
    said = subprocess.check_output([sys.executable, "-c", RELEASE], text=True)
    kept, left = map(int, said.split())
    assert left < 20 < 80 < kept


@glibc
@pytest.mark.parametrize(
    ("keep", "megabytes"), [("keep_freed_memory", 30), ("keep_all_freed_memory", 200)]
)
def test_freed_memory_is_used_again_without_page_faults(keep, megabytes):
    programs = [PROGRAM.format(keep=name, megabytes=megabytes) for name in ("", keep)]
    faults = [int(subprocess.check_output([sys.executable, "-c", code])) for code in programs]
    assert faults[1] < 1000 < faults[0]
