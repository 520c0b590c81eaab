"""The point spread function is found in the stack: its width, and its haze."""

from pathlib import Path

import numpy as np
import pytest
import torch

from otf_stream.acquisition import Optics, VoxelSize
from otf_stream.optics.forward import convolved
from otf_stream.optics.isotropy import _transfer, estimate_psf
from otf_stream.optics.noise import NoiseModel, estimate_noise
from otf_stream.optics.pointspread import Microscope, focus_width, likely_psfs, point_spread
from otf_stream.optics.psf import full_width, split_psf
from otf_stream.store.recordings import open_recording
from simulators.gaussian import gaussian_psf
from simulators.microscope import Camera, expected
from simulators.phantom import phantom
from simulators.tissues import foam

CAMERA = Camera(photons=400)
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def noisy(planes, seed=0):
    counts = CAMERA.expose(np.clip(planes, 0, None).astype(np.float32), seed=seed).astype(np.float32)
    return counts, NoiseModel(CAMERA.gain, CAMERA.offset, CAMERA.gain * CAMERA.read_noise)


@pytest.fixture(scope="module")
def truth():
    return phantom((121, 128, 128), seed=3)


@pytest.fixture(scope="module")
def tissue():
    return torch.from_numpy(foam((121, 128, 128), seed=4))


@pytest.mark.parametrize("sigma", [2.0, 3.0, 4.0])
@pytest.mark.parametrize("anisotropy", [3, 4])
def test_a_gaussian_blur_is_found_within_its_bar(truth, sigma, anisotropy):
    stack, noise = noisy(expected(truth, anisotropy=anisotropy, axial_sigma=sigma))
    psf, found = estimate_psf(stack, anisotropy, likely_psfs("confocal", Optics(), 0.1), noise)
    assert found
    # The truth is as blurred as the focus already, by one pixel.
    assert psf.width == pytest.approx(2.3548 * np.hypot(sigma, 1), rel=0.15)
    assert full_width(psf.kernel) == pytest.approx(2.3548 * sigma, rel=0.2)


@pytest.mark.parametrize(
    "microscope",
    [
        Microscope("confocal", 1.15),
        Microscope("multiphoton", 1.05, excitation_um=0.92),
        Microscope("light-sheet", 1.0, sheet_um=2.0),
        Microscope("widefield", 1.1),
    ],
    ids=lambda microscope: microscope.modality,
)
def test_width_and_haze_of_physical_microscopes_are_found(tissue, microscope):
    pixel = focus_width(microscope) / 2.3548
    whole = torch.from_numpy(point_spread(microscope, (97, 49), z_um=pixel, pixel_um=pixel))
    stack, noise = noisy(convolved(tissue, whole)[::4].numpy())
    psf, found = estimate_psf(stack, 4.0, likely_psfs(microscope.modality, Optics(), pixel), noise)
    true = split_psf(whole, 1.0)
    assert found
    assert psf.width == pytest.approx(true.width, rel=0.15)
    assert psf.core_share == pytest.approx(true.core_share, abs=0.12)


@pytest.mark.parametrize(
    ("microscope", "pixel"),
    [
        (Microscope("multiphoton", 0.95, excitation_um=0.92), 0.5),  # a wide field, sampled too coarsely
        (Microscope("multiphoton", 0.3, excitation_um=0.92), 0.5),  # the aperture that such pixels suit
        (Microscope("widefield", 0.3), 0.65),
    ],
    ids=lambda value: f"{value.modality}-{value.numerical_aperture}" if isinstance(value, Microscope) else f"{value}",
)
def test_the_stack_tells_whether_large_pixels_suit_the_focus_or_are_wider(tissue, microscope, pixel):
    """Both are usual; one aperture blurs a hundred times as far along z as the other."""
    whole = torch.from_numpy(point_spread(microscope, (97, 49), z_um=pixel, pixel_um=pixel))
    true = split_psf(whole, focus_width(microscope) / 2.3548 / pixel)
    stack, noise = noisy(convolved(tissue, whole)[::4].numpy())
    psf, found = estimate_psf(stack, 4.0, likely_psfs(microscope.modality, Optics(), pixel), noise)
    assert found
    assert psf.width == pytest.approx(true.width, rel=0.15)
    assert psf.core_share == pytest.approx(true.core_share, abs=0.12)


@pytest.mark.parametrize("modality", ["confocal", "light-sheet"])
def test_where_there_is_no_haze_hardly_any_is_found(tissue, modality):
    """As in stacks that were simulated with Gaussians, or whose background was subtracted by filters."""
    stack, noise = noisy(convolved(tissue, torch.from_numpy(gaussian_psf(1.0, 3.5)))[::4].numpy())
    psf, found = estimate_psf(stack, 4.0, likely_psfs(modality, Optics(), 0.1), noise)
    assert found
    assert psf.core_share > 0.98
    assert psf.width == pytest.approx(2.3548 * 3.5, rel=0.1)


@pytest.mark.parametrize(
    "microscope",
    [Microscope("confocal", 1.15), Microscope("light-sheet", 1.0, sheet_um=2.0)],
    ids=lambda microscope: microscope.modality,
)
def test_another_draw_of_the_noise_hardly_moves_the_width(tissue, microscope):
    """The best of a grid of guesses jumps from one to the next, 5 % wider; what a volume is taught must not."""
    pixel = focus_width(microscope) / 2.3548
    whole = torch.from_numpy(point_spread(microscope, (97, 49), z_um=pixel, pixel_um=pixel))
    light, usual = convolved(tissue, whole)[::4].numpy(), likely_psfs(microscope.modality, Optics(), pixel)
    drawn = [noisy(light, seed) for seed in range(6)]
    widths = [estimate_psf(stack, 4.0, usual, noise)[0].width for stack, noise in drawn]
    assert max(widths) / min(widths) < 1.03


@pytest.mark.parametrize("stretch", [1.0, 1.4, 2.0, 2.5])
def test_a_wide_point_spread_function_passes_nothing_fine(stretch):
    """Its transform repeats itself beyond what its samples can tell: some widths were found because of that."""
    folds = np.linspace(0.2, 0.8, 61)[None]
    core, _ = _transfer(split_psf(torch.from_numpy(gaussian_psf(1.0, 3.0)), 1.0), folds * stretch, np.array([0.0]))
    assert np.abs(core).max() < 1e-2


@pytest.mark.parametrize(
    ("recording", "modality", "voxel_size", "widest_um"),
    [
        ("confocal/chromosomes.tif", "confocal", VoxelSize(z=0.15, y=0.0339, x=0.0339), 1.0),
        ("brain_2p", "multiphoton", VoxelSize(z=5.0, y=2.0, x=2.0), 10.0),
    ],
)
def test_real_stacks_are_not_taken_for_blurrier_than_their_microscopes_are(recording, modality, voxel_size, widest_um):
    """Chromosomes were, for what a wide kernel seemed to pass; the brain was, for its pixels: 1.3 and 27 µm."""
    if not REAL.is_dir():
        pytest.skip(f"real stacks are expected in {REAL}")
    opened = open_recording(REAL / recording, voxel_size=voxel_size, modality=modality)
    try:
        stack = np.stack([opened.plane((0, 0, z)) for z in range(opened.acquisition.sizes.z)])
    finally:
        opened.close()
    psf, found = estimate_psf(
        stack.astype(np.float32), voxel_size.z / voxel_size.x, likely_psfs(modality, Optics(), voxel_size.x),
        estimate_noise(stack[:8]),
    )  # fmt: skip
    assert found
    assert 0.5 < psf.width * voxel_size.x < widest_um


@pytest.mark.parametrize("shape", [(7, 64, 64), (16, 30, 64)])
def test_too_little_to_tell_gives_the_usual_one(shape):
    usual = likely_psfs("confocal", Optics(), 0.1)
    psf, found = estimate_psf(np.random.default_rng(0).normal(size=shape), 4.0, usual, NoiseModel(0.0, 0.0, 1.0))
    assert not found
    assert psf is usual[0]


def test_noise_alone_tells_nothing():
    usual = likely_psfs("confocal", Optics(), 0.1)
    noise = np.random.default_rng(0).normal(size=(20, 64, 64)).astype(np.float32)
    assert not estimate_psf(noise, 4.0, usual, NoiseModel(0.0, 0.0, 1.0))[1]
    assert not estimate_psf(np.ones((20, 64, 64), np.float32), 4.0, usual, NoiseModel(0.0, 0.0, 0.0))[1]


def test_what_is_known_of_the_optics_is_not_varied():
    known = Optics(numerical_aperture=0.8, refractive_index=1.33, sheet_um=2.0)
    assert len(likely_psfs("light-sheet", known, 0.2)) == 1
    assert len(likely_psfs("light-sheet", Optics(), 0.2)) == 9
    with pytest.raises(ValueError, match="not below the refractive index"):
        likely_psfs("confocal", Optics(numerical_aperture=1.4, refractive_index=1.33), 0.1)
