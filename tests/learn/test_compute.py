"""Where is computed, and that memory is not asked for twice."""

import json
import subprocess
import sys
import threading

import pytest
import torch

from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import deblurring_network
from otf_stream.learn.training import apply_network

FREED_AND_TAKEN_AGAIN = """
import json, resource, torch
from otf_stream.learn.compute import keep_memory

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


def test_cuda_is_refused_where_there_is_none():
    assert choose_compute("cpu").device.type == "cpu"
    if choose_compute("auto").device.type != "cuda":
        with pytest.raises(RuntimeError, match="--device cpu"):
            choose_compute("cuda")


@pytest.mark.parametrize("cores", [1, 3])
def test_what_is_computed_side_by_side_comes_in_order(cores):
    compute = choose_compute("cpu", cores)
    before = torch.get_num_threads()
    threads = set()

    def square(number):
        threads.add((threading.current_thread().name, torch.get_num_threads()))
        return number**2

    assert list(compute.map(square, range(50))) == [n**2 for n in range(50)]
    assert torch.get_num_threads() == before
    if cores > 1:
        assert {used for _, used in threads} == {1}
        assert len(threads) <= cores


def test_an_error_on_the_side_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(choose_compute("cpu", 2).map(lambda n: 1 // (n - 3), range(10)))


def test_slices_do_not_depend_on_how_many_are_computed_at_a_time():
    torch.manual_seed(0)
    network, images = deblurring_network(), [torch.rand(1, 2, 40, 48) for _ in range(6)]
    torch.nn.init.normal_(network.ending.weight)
    one, three = (
        list(compute.map(lambda image, compute=compute: apply_network(network.eval(), image, compute), images))
        for compute in (choose_compute("cpu", 1), choose_compute("cpu", 3))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_who_has_the_device_alone_waits_for_what_runs():
    compute = choose_compute("cpu", 2)
    runs, go_on, entered = threading.Event(), threading.Event(), threading.Event()

    def wait(number):
        runs.set()
        return go_on.wait(10) and number

    def alone():
        with compute.alone():
            entered.set()

    other = threading.Thread(target=alone)
    results = compute.map(wait, range(3))
    taking = threading.Thread(target=lambda: list(results))
    taking.start()
    assert runs.wait(10)
    other.start()
    assert not entered.wait(0.3)
    go_on.set()
    assert entered.wait(10)
    for thread in (taking, other):
        thread.join()
