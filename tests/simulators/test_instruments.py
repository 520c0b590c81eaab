import numpy as np
import pytest

from otf_stream.acquisition import Modality
from simulators.instruments import INSTRUMENTS, instrument_psf
from simulators.scenes import View
from simulators.specimen import Setup, Specimen


def half_width(line: np.ndarray) -> int:
    """Full width at half maximum, in voxels."""
    return int((line > line.max() / 2).sum())


@pytest.mark.parametrize("modality", INSTRUMENTS)
def test_pixels_sample_the_focus_and_planes_the_depth_of_focus(modality: Modality) -> None:
    instrument, psf = INSTRUMENTS[modality], instrument_psf(modality)
    middle = [n // 2 for n in psf.shape]
    assert psf.sum() == pytest.approx(1, abs=1e-4)
    assert 0.08 < instrument.pixel_um < 0.2
    assert instrument.z_step_um == pytest.approx(instrument.z_step * instrument.pixel_um)
    lateral, axial = half_width(psf[middle[0], middle[1]]), half_width(psf[:, middle[1], middle[2]])
    assert lateral in (2, 3)
    assert axial >= 1.6 * lateral
    assert axial > instrument.z_step


@pytest.mark.parametrize("modality", INSTRUMENTS)
def test_stacks_are_plausible(modality: Modality) -> None:
    setup = Setup(modality, planes=8, side=96)
    specimen, camera = Specimen(setup), setup.instrument.camera
    stack = np.stack([specimen.expose(View(0, 0, k * setup.instrument.z_step_um, 0)) for k in range(8)])
    assert stack.dtype == np.uint16
    assert stack.max() < 30_000  # far from saturation
    grey = camera.gain * camera.photons
    background = (np.percentile(stack, 1) - camera.offset) / grey
    assert -0.1 < background < 0.15
    assert (np.percentile(stack, 99.9) - camera.offset) / grey > 0.07  # something is there
    # Brightness follows the truth: its planes are those that are blurred.
    seen = (stack - camera.offset) / grey
    truth = specimen.truth(0, 0)[:: setup.instrument.z_step]
    assert np.corrcoef(seen.ravel(), truth.ravel())[0, 1] > (0.3 if modality == "widefield" else 0.6)


def test_light_is_scarce_where_it_is_in_real_life() -> None:
    photons = {modality: instrument.camera.photons for modality, instrument in INSTRUMENTS.items()}
    assert photons["multiphoton"] < photons["confocal"] < photons["light-sheet"]
