"""The network is shown the same slice twice: as the physics restores it, and as it was seen."""

import torch
from kernels import gaussian

from otf_stream.learn.slices import CHANNELS, shown
from otf_stream.optics.deconvolution import deconvolved
from otf_stream.optics.forward import imaging_matrix, interpolation_matrix, plane_positions


def test_the_channels_are_deconvolved_and_interpolated():
    positions = plane_positions(8, 4.0)
    imaging, interpolation = imaging_matrix(29, positions, gaussian(2.0)), interpolation_matrix(29, positions)
    planes = torch.rand(3, 8, 20, generator=torch.Generator().manual_seed(0))
    slices = shown(imaging, interpolation, planes)
    assert slices.shape == (3, CHANNELS, 29, 20)
    torch.testing.assert_close(slices[:, 0], deconvolved(imaging, interpolation, planes))
    torch.testing.assert_close(slices[:, 1, ::4], planes)
