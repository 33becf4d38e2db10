"""What the engine asks of the C library's allocator."""

import os
import platform
import subprocess
import sys

import pytest

_ROUNDS = 40
_SCRIPT = f"""
import ctypes, resource, sys, threading
from worker.inference.devices import keep_freed_memory
size = 15 << 20
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
keep_freed_memory()
def rounds(count):
    for _ in range(count):
        blocks = [libc.malloc(size) for _ in range(3)]
        for block in blocks:
            libc.memset(block, 1, size)
        for block in blocks:
            libc.free(block)
def lane():
    rounds(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    rounds({_ROUNDS})
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=lane)
thread.start()
thread.join()
"""


def _faults(**told: str) -> int:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=plain | told, capture_output=True, text=True, check=True
    )
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such thresholds")
def test_what_a_batch_frees_is_there_for_the_next_one_unless_the_environment_says_otherwise() -> None:
    # 128 KiB are what glibc starts with: every larger block is mapped, page by page, and given back.
    mapped = _faults(MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="131072")
    kept = _faults()
    assert mapped > _ROUNDS * 10
    assert kept < mapped / 10
