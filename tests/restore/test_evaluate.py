import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from otf_stream.restore.evaluate import evaluate, fit_gain_offset, psnr, resolution, ssim
from simulators.microscope import image
from simulators.phantom import phantom

SAMPLE = phantom((45, 64, 64), seed=2)


def interpolated(planes: np.ndarray, anisotropy: int) -> np.ndarray:
    depth = (len(planes) - 1) * anisotropy + 1
    at = np.arange(depth) / anisotropy
    low = np.minimum(at.astype(int), len(planes) - 2)
    part = (at - low)[:, None, None]
    return planes[low] * (1 - part) + planes[low + 1] * part


def test_a_perfect_volume() -> None:
    result = evaluate(SAMPLE, SAMPLE)
    assert result.psnr > 100
    assert result.ssim == pytest.approx(1)
    assert result.gain == pytest.approx(1)
    assert result.resolution == result.reference_resolution
    assert result.correlation.axial_resolution == result.correlation.lateral_resolution == 2


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.01, 1000), offset=st.floats(-1000, 1000))
def test_gain_and_offset_do_not_count(gain: float, offset: float) -> None:
    restored = gaussian_filter1d(SAMPLE, 1.5, axis=0).astype(np.float64)
    changed = gain * restored + offset
    assert psnr(changed, SAMPLE) == pytest.approx(psnr(restored, SAMPLE), abs=1e-3)
    fitted = fit_gain_offset(changed, SAMPLE)
    once = fit_gain_offset(restored, SAMPLE)
    assert fitted[0] * gain == pytest.approx(once[0], rel=1e-4)


def test_psnr_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    reference = rng.uniform(0, 10, (20, 30, 40))
    noise = rng.normal(0, 0.1, reference.shape)
    # Noise in the volume lowers the fitted gain by little only.
    peak = np.subtract(*np.percentile(reference, [99.9, 0.1]))
    assert psnr(reference + noise, reference) == pytest.approx(20 * math.log10(peak / 0.1), abs=0.05)


def test_one_hot_voxel_does_not_flatter() -> None:
    blurred = gaussian_filter1d(SAMPLE, 2, axis=0)
    hot = SAMPLE.copy()
    hot[5, 5, 5] *= 1000
    assert psnr(blurred, hot) < psnr(blurred, SAMPLE)


def test_ssim_falls_with_blur() -> None:
    values = [ssim(gaussian_filter1d(SAMPLE, sigma, axis=0), SAMPLE) for sigma in (0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9


def test_axial_resolution_falls_with_axial_blur() -> None:
    found = [resolution(gaussian_filter1d(SAMPLE, sigma, axis=0)) for sigma in (0.4, 1, 1.5, 2, 3)]
    axial = [r.axial for r in found]
    assert axial == sorted(axial)
    assert axial[-1] > 1.8 * axial[0]
    assert max(r.lateral for r in found) < 1.25 * min(r.lateral for r in found)


def test_an_isotropic_sample_is_as_sharp_along_as_across() -> None:
    found = [resolution(phantom((64, 64, 64), seed=seed)) for seed in range(4)]
    assert np.mean([r.anisotropy for r in found]) == pytest.approx(1, abs=0.12)
    # The phantom's own point-spread function has a width of 2.35 voxels.
    assert np.mean([r.lateral for r in found]) == pytest.approx(2.35, abs=0.4)


def test_resolution_bears_noise() -> None:
    noisy = SAMPLE + np.random.default_rng(0).normal(0, 0.02, SAMPLE.shape)
    clean = resolution(SAMPLE)
    assert resolution(noisy).axial == pytest.approx(clean.axial, rel=0.1)
    assert resolution(noisy).lateral == pytest.approx(clean.lateral, rel=0.1)


def test_an_interpolated_stack_is_told_from_the_truth() -> None:
    result = evaluate(interpolated(image(SAMPLE, anisotropy=4, seed=0).astype(np.float32), 4), SAMPLE)
    assert 28 < result.psnr < 42
    assert 0.5 < result.ssim < 1
    assert result.resolution.anisotropy > 1.4 * result.reference_resolution.anisotropy
    assert result.correlation.axial_resolution > 1.4 * result.correlation.lateral_resolution


def test_made_up_structure_is_sharp_but_agrees_no_further() -> None:
    blurred = gaussian_filter1d(SAMPLE, 2.5, axis=0) + np.random.default_rng(0).normal(0, 0.02, SAMPLE.shape)
    other = phantom(SAMPLE.shape, seed=7)
    invented = blurred + 0.5 * (other - gaussian_filter1d(other, 2.5, axis=0))
    honest, made_up = evaluate(blurred, SAMPLE), evaluate(invented, SAMPLE)
    assert made_up.resolution.axial < honest.resolution.axial
    assert made_up.correlation.axial_resolution >= honest.correlation.axial_resolution


def test_integers_are_compared_as_numbers() -> None:
    restored = np.rint(SAMPLE * 1000 + 100).astype(np.uint16)
    assert psnr(restored, SAMPLE) > 60
    # An unsigned difference would wrap around.
    assert psnr(restored, restored[::-1].copy()) < 40


def test_the_result_is_json() -> None:
    blurred = gaussian_filter1d(SAMPLE, 2, axis=0)
    result = evaluate(blurred, SAMPLE)
    told = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert told["psnr_db"] == result.psnr
    assert f"{result.psnr:.2f} dB" in result.as_text()
    assert told["fsc_axial_resolution_voxels"] == result.correlation.axial_resolution
    assert told["fsc_lateral_resolution_voxels"] == result.correlation.lateral_resolution
    assert f"down to: axial {result.correlation.axial_resolution:.2f}, lateral" in result.as_text()
    empty = evaluate(np.zeros_like(SAMPLE), SAMPLE)
    assert empty.gain == 0
    assert empty.as_dict()["axial_resolution_voxels"] is None
    assert empty.as_dict()["fsc_axial_resolution_voxels"] is None


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="shape"):
        psnr(SAMPLE[1:], SAMPLE)
    with pytest.raises(ValueError, match="constant"):
        psnr(SAMPLE, np.ones_like(SAMPLE))
    broken = SAMPLE.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        psnr(broken, SAMPLE)
    with pytest.raises(ValueError, match="at least 8"):
        evaluate(SAMPLE[:7], SAMPLE[:7])
    with pytest.raises(ValueError, match="at least 7"):
        ssim(SAMPLE[:6], SAMPLE[:6])


def test_another_sample_is_told_from_a_poor_volume() -> None:
    other = evaluate(np.random.default_rng(0).normal(size=SAMPLE.shape), SAMPLE)
    assert other.explained < 0.01
    assert "hardly of the same sample" in other.as_text()
    assert "nan" not in other.as_text()
    poor = evaluate(gaussian_filter(SAMPLE.astype(np.float32), 4), SAMPLE)
    assert poor.explained > 0.05
    assert "hardly" not in poor.as_text()
