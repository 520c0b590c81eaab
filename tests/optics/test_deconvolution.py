"""Deconvolution along z sharpens, keeps the light, never goes below zero, and treats batches like single lines."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import gaussian

from otf_stream.optics.deconvolution import deconvolved
from otf_stream.optics.forward import imaging_matrix, interpolation_matrix, plane_positions


def matrices(planes, step, sigma):
    depth, positions = (planes - 1) * step + 1, plane_positions(planes, step)
    return imaging_matrix(depth, positions, gaussian(sigma)), interpolation_matrix(depth, positions)


def test_two_points_that_are_nearly_merged_are_told_apart():
    imaging, interpolation = matrices(31, 2, 3.0)
    truth = torch.zeros(61, 1)
    truth[[26, 34]] = 100.0
    seen = imaging @ truth
    blurred, sharp = (interpolation @ seen)[:, 0], deconvolved(imaging, interpolation, seen)[:, 0]
    assert float(blurred[30]) > 0.75 * float(blurred[26])
    assert float(sharp[30]) < 0.6 * float(sharp[26])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(1, 7), st.floats(0.6, 6), st.integers(0, 1000))
def test_the_light_stays_and_nothing_is_negative(planes, step, sigma, seed):
    imaging, interpolation = matrices(planes, step, sigma)
    seen = torch.rand(planes, 5, generator=torch.Generator().manual_seed(seed)) * 100
    sharp = deconvolved(imaging, interpolation, seen)
    assert float(sharp.min()) >= 0
    assert float((imaging @ sharp).sum()) == pytest.approx(float(seen.sum()), rel=0.05)


@pytest.mark.parametrize("planes", [range(20), range(6, 32), [*range(10), *range(18, 32)]])
def test_where_planes_never_came_the_light_goes_on(planes):
    positions = torch.tensor([4.0 * k for k in planes])
    imaging, interpolation = imaging_matrix(125, positions, gaussian(2.0)), interpolation_matrix(125, positions)
    sharp = deconvolved(imaging, interpolation, torch.full((len(planes), 3), 50.0))
    assert float(sharp.min()) > 20
    assert float(sharp.mean()) == pytest.approx(50, rel=0.1)


def test_slices_of_a_batch_do_not_know_of_each_other():
    imaging, interpolation = matrices(9, 3, 2.0)
    seen = torch.rand(4, 9, 7, generator=torch.Generator().manual_seed(0))
    together = deconvolved(imaging, interpolation, seen)
    for one, line in zip(together, seen, strict=True):
        torch.testing.assert_close(one, deconvolved(imaging, interpolation, line))
