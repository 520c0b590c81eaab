"""Where is computed, and that memory is not asked for twice."""

import json
import subprocess
import sys

import pytest

from otf_stream.learn.compute import choose_compute

FREED_AND_TAKEN_AGAIN = """
import json, resource, torch
from otf_stream.learn.compute import keep_memory

def faults():
    torch.ones(2**24) + 1  # 64 MB each
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
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
    assert after < before / 20


def test_cuda_is_refused_where_there_is_none():
    assert choose_compute("cpu").device.type == "cpu"
    if choose_compute("auto").device.type != "cuda":
        with pytest.raises(RuntimeError, match="--device cpu"):
            choose_compute("cuda")
