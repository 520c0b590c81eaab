"""Freed memory is kept where it is used again, and given back where it is not."""

import json
import subprocess
import sys

import pytest

FREED_AND_TAKEN_AGAIN = """
import json, resource, torch
from otf_stream.heap import keep_memory

def faults():
    torch.ones(2**24) + 1  # 64 MB each
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
kept = keep_memory()
print(json.dumps([kept, before, faults()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults of glibc's allocator")
def test_freed_memory_is_kept():
    done = subprocess.run([sys.executable, "-c", FREED_AND_TAKEN_AGAIN], capture_output=True, text=True, check=True)
    kept, before, after = json.loads(done.stdout)
    assert kept
    assert before > 1000
    assert after < before / 10  # the heap may grow once more, not every time


FREED_IN_PIECES = """
import json, os, psutil
from otf_stream.heap import release_memory

kept, freed = [], []
for _ in range(100_000):  # what is freed lies between what is not
    kept.append(bytearray(32))
    freed.append(bytearray(4_000))
for _ in range(8):
    kept.append(bytearray(4_000))
resident = psutil.Process().memory_info().rss
freed.clear()
freed_only = psutil.Process().memory_info().rss
print(json.dumps([release_memory(), resident, freed_only, psutil.Process().memory_info().rss]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_given_back():
    done = subprocess.run([sys.executable, "-c", FREED_IN_PIECES], capture_output=True, text=True, check=True)
    released, resident, freed, after = json.loads(done.stdout)
    assert released
    assert freed > 0.8 * resident  # left alone, the system gets nothing of it
    assert after < 0.5 * resident
