"""Blur, sampling and interpolation as matrices: flux, positions and inverse are exact."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernels import gaussian

from otf_stream.acquisition import VoxelSize, isotropic_depth
from otf_stream.optics.forward import (
    convolved,
    fast_length,
    imaging_matrix,
    interpolation_matrix,
    mirrored,
    plane_positions,
    reading_matrix,
)

anisotropies = st.floats(0.5, 12.0)


@settings(deadline=None, max_examples=50)
@given(anisotropy=anisotropies, planes=st.integers(1, 20), sigma=st.floats(0, 8))
@example(anisotropy=1.9999999999999982, planes=2, sigma=0.0)
def test_a_flat_sample_stays_flat(anisotropy, planes, sigma):
    positions = plane_positions(planes, anisotropy)
    length = isotropic_depth(planes, VoxelSize(z=anisotropy, y=1, x=1))
    flat = torch.full((length,), 3.0)
    imaged = imaging_matrix(length, positions, gaussian(sigma)) @ flat
    torch.testing.assert_close(imaged, torch.full((planes,), 3.0))
    torch.testing.assert_close(interpolation_matrix(length, positions) @ imaged, flat)


@settings(deadline=None, max_examples=50)
@given(anisotropy=anisotropies, planes=st.integers(2, 20), slope=st.floats(-5, 5))
def test_interpolation_is_exact_on_ramps_so_nothing_shifts(anisotropy, planes, slope):
    positions = plane_positions(planes, anisotropy)
    length = isotropic_depth(planes, VoxelSize(z=anisotropy, y=1, x=1))
    ramp = slope * torch.arange(length, dtype=torch.float32)
    torch.testing.assert_close(
        interpolation_matrix(length, positions) @ (slope * positions), ramp, atol=1e-3, rtol=1e-4
    )


def test_a_point_is_imaged_where_it_is_with_the_width_it_should_have():
    positions = torch.arange(0, 81, dtype=torch.float32)
    line = torch.zeros(81)
    line[40] = 1
    imaged = imaging_matrix(81, positions, gaussian(3.0)) @ line
    centre = (imaged * positions).sum() / imaged.sum()
    width = ((imaged * (positions - centre) ** 2).sum() / imaged.sum()).sqrt()
    torch.testing.assert_close(torch.stack([centre, width]), torch.tensor([40.0, 3.0]), atol=1e-2, rtol=0)


def test_batches_are_independent():
    positions = torch.stack([plane_positions(5, 4.0), plane_positions(5, 4.0) - 2])
    widths = torch.tensor([1.0, 2.0]), torch.tensor([0.8, 1.5])
    together = imaging_matrix(20, positions, gaussian(2.0), *widths)
    alone = imaging_matrix(20, positions[1], gaussian(2.0), *(width[1] for width in widths))
    torch.testing.assert_close(together[1], alone)
    both = interpolation_matrix(15, positions)
    torch.testing.assert_close(both[1], interpolation_matrix(15, positions[1]))


def test_missing_planes_are_bridged_and_the_ends_repeat():
    positions = torch.tensor([4.0, 12.0])  # planes 1 and 3 of 0 … 4, four voxels apart
    line = interpolation_matrix(17, positions) @ torch.tensor([1.0, 3.0])
    assert line[0] == line[4] == 1
    assert line[8] == 2
    assert line[12] == line[16] == 3


def test_a_lopsided_kernel_spreads_light_to_its_own_side():
    line = torch.zeros(81)
    line[40] = 1
    positions = torch.arange(81, dtype=torch.float32)
    imaged = imaging_matrix(81, positions, gaussian(3.0), torch.tensor(1.0), torch.tensor(2.0)) @ line
    assert float(imaged[46]) > 2 * float(imaged[34])  # planes above the point are blurred twice as wide


def test_blurring_in_three_dimensions_keeps_light_and_place():
    psf = gaussian(2.0, 8)[:, None, None] * gaussian(1.0, 4)[:, None] * gaussian(1.5, 5)
    assert float(convolved(torch.ones(9, 20, 6), psf).mean()) == pytest.approx(1, abs=1e-5)
    point = torch.zeros(41, 31, 31)
    point[20, 10, 15] = 1
    torch.testing.assert_close(convolved(point, psf)[12:29, 6:15, 10:21], psf, atol=1e-6, rtol=0)


@given(st.integers(1, 5000))
def test_fast_lengths_are_no_shorter_and_have_small_factors(length):
    fast = rest = fast_length(length)
    assert length <= fast < 1.5 * length + 2
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    assert rest == 1


def test_a_line_is_read_between_its_voxels_and_beyond_its_ends_are_its_ends():
    line = torch.tensor([0.0, 1.0, 4.0, 9.0])
    read = reading_matrix(4, torch.tensor([-2.0, 0.0, 0.5, 1.75, 3.0, 7.0])) @ line
    assert read.tolist() == pytest.approx([0, 0, 0.5, 3.25, 9, 9])


def test_beyond_the_ends_of_a_line_its_mirror_image_goes_on():
    assert mirrored(torch.arange(-4, 8), 4).tolist() == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert mirrored(torch.arange(-2, 3), 1).tolist() == [0] * 5
