import torch
from kernels import gaussian

from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import Grid
from otf_stream.restore.regions import Region
from otf_stream.service.provenance import doubts


def test_a_network_that_changes_the_light_is_told():
    light = torch.full((8, 16, 16), 100.0)
    fidelity = Fidelity(Grid(range(8), 2.0, 15), NoiseModel(1.0, 0.0, 1.0), gaussian(1.0))
    fidelity.add(light, torch.full((15, 16, 16), 110.0), Region(slice(0, 16), slice(0, 16)))
    assert any("1.10 times the light" in doubt for doubt in doubts(fidelity))
