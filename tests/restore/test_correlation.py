"""To what detail volumes agree: against what can be worked out for white samples, Gaussian blurs and white noise."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from otf_stream.restore.correlation import correlate
from simulators.microscope import image
from simulators.phantom import phantom

RNG = np.random.default_rng(0)
WHITE = RNG.normal(size=(128, 128, 128))
SMALL = gaussian_filter(RNG.normal(size=(32, 40, 48)), 0.8)


def noise(amplitude: float, seed: int, shape: tuple[int, ...] = WHITE.shape) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, amplitude, shape)


def period_of(transfer: float, sigma: float) -> float:
    """The period at which a Gaussian blur passes ``transfer`` of the amplitude."""
    return math.pi * sigma * math.sqrt(2 / -math.log(transfer))


@pytest.mark.parametrize("sigma", [1.5, 2.5])
@pytest.mark.parametrize(("amplitude", "threshold"), [(0.2, 1 / 7), (0.2, 0.5), (0.05, 0.5)])
def test_an_axial_blur_in_noise_crosses_where_it_should(sigma: float, amplitude: float, threshold: float) -> None:
    blurred = gaussian_filter1d(WHITE, sigma, axis=0, mode="wrap") + noise(amplitude, 1)
    found = correlate(blurred, WHITE, threshold=threshold)
    # H / √(H² + noise²) = threshold, where H is the transfer of the blur.
    expected = period_of(amplitude * threshold / math.sqrt(1 - threshold**2), sigma)
    # The cone also holds frequencies with up to 6 % less of z in them.
    assert 0.9 * expected < found.axial_resolution < 1.04 * expected
    assert found.lateral_resolution == 2


@pytest.mark.parametrize("sigma", [1.5, 2.5])
def test_two_noisy_volumes_cross_where_they_should(sigma: float) -> None:
    blurred = gaussian_filter1d(WHITE, sigma, axis=0, mode="wrap")
    found = correlate(blurred + noise(0.2, 1), blurred + noise(0.2, 2))
    # H² / (H² + noise²) = 1/7
    assert found.axial_resolution == pytest.approx(period_of(0.2 / math.sqrt(6), sigma), rel=0.08)


def test_the_curve_is_that_of_theory() -> None:
    sigma, amplitude = 1.5, 0.2
    blurred = gaussian_filter(WHITE, sigma, mode="wrap") + noise(amplitude, 1)
    found = correlate(blurred, WHITE)
    transfer = np.exp(-2 * (math.pi * sigma * found.frequencies) ** 2)
    expected = transfer / np.hypot(transfer, amplitude)
    np.testing.assert_allclose(found.lateral, expected, atol=0.06)
    # The cone around z holds a fifth as many frequencies as the band across.
    np.testing.assert_allclose(found.axial[4:], expected[4:], atol=0.15)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_an_isotropic_blur_is_as_fine_along_as_across(sigma: float) -> None:
    found = correlate(gaussian_filter(WHITE, sigma, mode="wrap") + noise(0.1, 1), WHITE)
    assert found.axial_resolution == pytest.approx(found.lateral_resolution, rel=0.05)
    assert found.lateral_resolution > 2


@pytest.mark.parametrize("shape", [(45, 64, 64), (64, 31, 50), (8, 8, 8), (9, 130, 20)])
def test_a_volume_agrees_with_itself_to_the_last_voxel(shape: tuple[int, int, int]) -> None:
    volume = noise(1, 0, shape)
    found = correlate(volume, volume)
    assert found.axial_resolution == found.lateral_resolution == 2
    for curve in (found.axial, found.lateral):
        assert curve.shape == found.frequencies.shape
        np.testing.assert_allclose(curve, 1)
    assert 0.5 - 1 / min(shape) < found.frequencies[-1] <= 0.5


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.01, 1000), offset=st.floats(-1000, 1000), which=st.booleans())
def test_gain_and_offset_do_not_count(gain: float, offset: float, which: bool) -> None:
    blurred = gaussian_filter1d(SMALL, 2, axis=0) + noise(0.02, 0, SMALL.shape)
    before = correlate(blurred, SMALL)
    pair = (gain * blurred + offset, SMALL) if which else (blurred, gain * SMALL + offset)
    after = correlate(*pair)
    np.testing.assert_allclose(after.axial, before.axial, atol=1e-6)
    assert after.axial_resolution == pytest.approx(before.axial_resolution, rel=1e-6)
    assert after.lateral_resolution == pytest.approx(before.lateral_resolution, rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_correlations_are_correlations_whichever_is_the_reference(seed: int) -> None:
    other = SMALL + noise(0.2, seed, SMALL.shape)
    found, swapped = correlate(other, SMALL), correlate(SMALL, other)
    for curve, again in ((found.axial, swapped.axial), (found.lateral, swapped.lateral)):
        assert np.abs(curve).max() <= 1 + 1e-12
        np.testing.assert_allclose(curve, again, atol=1e-12)


def test_unrelated_volumes_agree_on_nothing() -> None:
    found = correlate(noise(1, 1), noise(1, 2))
    # The coarsest shells hold too few frequencies to tell chance.
    assert np.abs(found.lateral[4:]).max() < 1 / 7
    assert np.abs(found.axial[30:]).max() < 1 / 7
    assert not found.lateral_resolution < 128 / 6


def test_a_weak_image_without_noise_costs_nothing() -> None:
    blurred = gaussian_filter1d(WHITE, 1, axis=0, mode="wrap")  # 0.7 % of the amplitude is left at the finest period
    assert correlate(blurred, WHITE).axial_resolution == 2


def test_an_interpolated_stack_agrees_as_far_as_its_planes_do() -> None:
    truth = phantom((125, 96, 96), seed=3)
    planes = image(truth, anisotropy=4, seed=0).astype(np.float32)
    at = np.arange(125) / 4
    low = np.minimum(at.astype(int), len(planes) - 2)
    part = (at - low)[:, None, None]
    interpolated = planes[low] * (1 - part) + planes[low + 1] * part
    found = correlate(interpolated, truth, threshold=0.5)
    # Planes 4 voxels apart show periods of 8; between them the sample is made up.
    assert 6.5 < found.axial_resolution < 9
    assert found.lateral_resolution < 4


def test_a_constant_volume_tells_nothing() -> None:
    found = correlate(np.full(SMALL.shape, 0.1), SMALL)
    assert not found.axial.any()
    assert math.isnan(found.axial_resolution)
    assert math.isnan(found.lateral_resolution)


def test_integers_are_compared_as_numbers() -> None:
    counts = np.rint(SMALL * 1000 + 5000).astype(np.uint16)
    assert correlate(counts, SMALL).lateral_resolution == 2
    assert correlate(counts, counts[::-1].copy()).lateral_resolution != 2


@pytest.mark.parametrize("corner", [slice(20, 50), slice(-50, -20)])
def test_every_part_of_a_large_volume_counts(corner: slice) -> None:
    volume = noise(1, 0, (130, 140, 150))
    other = volume.copy()
    other[corner, corner, corner] = noise(1, 1, (30, 30, 30))
    found = correlate(volume, other)
    assert found.lateral.max() < 0.999


def test_a_memory_map_is_read_block_by_block(tmp_path: Path) -> None:
    shape = (512, 128, 128)
    volume = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float32, shape)
    for start in range(0, shape[0], 128):
        volume[start : start + 128] = noise(1, start, (128, 128, 128))
    tracemalloc.start()
    try:
        found = correlate(volume, volume)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.lateral_resolution == 2
    assert peak < 160e6  # 360 MB as a single block


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="same grid"):
        correlate(SMALL[1:], SMALL)
    with pytest.raises(ValueError, match="z, y, x"):
        correlate(SMALL[0], SMALL[0])
    with pytest.raises(ValueError, match="at least 8 voxels"):
        correlate(SMALL[:7], SMALL[:7])
    for value in (np.nan, np.inf):
        broken = SMALL.copy()
        broken[3, 3, 3] = value
        with pytest.raises(ValueError, match="not finite"):
            correlate(broken, SMALL)
    for threshold in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="threshold"):
            correlate(SMALL, SMALL, threshold=threshold)
    for half_angle in (0.0, 46.0):
        with pytest.raises(ValueError, match="half angle"):
            correlate(SMALL, SMALL, half_angle=half_angle)
