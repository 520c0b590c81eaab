"""The exam: who is nearest on held-out planes is used."""

import pytest
import torch
from kernels import family

from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import deblurring_network
from otf_stream.learn.pairs import AxialPairs, patch_side
from otf_stream.learn.planes import PlanePool
from otf_stream.restore.trust import Trust, examine

CPU = choose_compute("cpu")


def pairs_of(errors=0.0):
    generator = torch.Generator().manual_seed(0)
    planes = torch.rand(2, 1, 160, 160, generator=generator)
    planes = torch.nn.functional.avg_pool2d(planes, 5, stride=1, padding=2) ** 4 * 10
    pool = PlanePool(CPU.device, smallest=patch_side(4.0))
    pool.add(planes, generator)
    return AxialPairs(pool, torch.randn(24, 96, 96, generator=generator) * errors, family(2.0), 4.0, generator)


def test_a_network_that_does_nothing_gains_what_its_first_guess_gains():
    trust = examine(deblurring_network().eval(), pairs_of(), CPU, planes=2)
    assert trust.richardson_lucy > 0.5
    assert trust.network == pytest.approx(trust.richardson_lucy, abs=0.05)
    assert trust.planes == 2


def test_a_network_that_spoils_its_first_guess_is_not_trusted():
    network = deblurring_network().eval()
    torch.nn.init.constant_(network.ending.bias, 1.0)
    trust = examine(network, pairs_of(), CPU, planes=2)
    assert trust.network < 0
    assert trust.best == "richardson-lucy"


def test_in_noise_richardson_lucy_is_not_trusted_either():
    trust = examine(deblurring_network().eval(), pairs_of(errors=0.5), CPU, planes=2)
    assert trust.richardson_lucy < 0


@pytest.mark.parametrize(
    ("network", "lucy", "best"),
    [(3.0, 1.0, "network"), (1.0, 3.0, "richardson-lucy"), (-1.0, -2.0, "interpolate"), (-1.0, 0.5, "richardson-lucy")],
)
def test_the_best_is_used(network, lucy, best):
    assert Trust(network, lucy, 1).best == best
