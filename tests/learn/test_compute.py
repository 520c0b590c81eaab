"""Where is computed, and what is computed side by side."""

import threading

import pytest
import torch

from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import deblurring_network
from otf_stream.learn.training import apply_network


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
