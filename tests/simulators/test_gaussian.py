import numpy as np
import pytest

from simulators.gaussian import cone_psf, gaussian_psf, imaged


def along(psf: np.ndarray) -> tuple[float, float]:
    """Centre and standard deviation along z."""
    light, z = psf.sum((1, 2)), np.arange(len(psf)) - len(psf) // 2
    centre = float((light * z).sum())
    return centre, float(np.sqrt((light * (z - centre) ** 2).sum()))


@pytest.mark.parametrize("psf", [gaussian_psf(0.6, 3.0), gaussian_psf(1.2, 5.0, tail=0.15), cone_psf(1.1, 4.7)])
def test_light_is_kept_and_lies_in_the_middle(psf) -> None:
    assert psf.sum() == pytest.approx(1.0, rel=1e-4)
    assert all(side % 2 for side in psf.shape)
    assert np.allclose(psf, psf[::-1, ::-1, ::-1], atol=1e-8)


def test_widths_are_those_asked_for() -> None:
    psf = gaussian_psf(1.3, 4.0)
    assert along(psf)[1] == pytest.approx(4.0, rel=0.01)
    assert along(psf.transpose(2, 1, 0))[1] == pytest.approx(1.3, rel=0.01)
    cone = cone_psf(1.0, 4.0)
    middle = len(cone) // 2
    across = [along(plane.transpose(1, 0)[:, :, None] / plane.sum())[1] for plane in (cone[middle], cone[middle + 4])]
    assert across[1] / across[0] == pytest.approx(np.sqrt(2), rel=0.02)
    assert np.allclose(cone.sum((1, 2)), cone.sum((1, 2))[middle], rtol=0.3)


def test_a_tail_to_one_side_leaves_the_centre_of_mass_where_it_is() -> None:
    psf = gaussian_psf(1.0, 3.0, aside=4.0)
    centre, width = along(psf)
    assert centre == pytest.approx(0.0, abs=0.02)
    assert width == pytest.approx(5.0, rel=0.02)
    light = psf.sum((1, 2))
    assert light.argmax() < len(light) // 2


def test_tails_take_their_share_of_the_light() -> None:
    plain, tailed = gaussian_psf(1.0, 3.0).sum((1, 2)), gaussian_psf(1.0, 3.0, tail=0.2).sum((1, 2))
    far = np.abs(np.arange(len(plain)) - len(plain) // 2) > 12
    assert plain[far].sum() < 1e-3
    assert 0.02 < tailed[far].sum() < 0.2


def test_a_point_is_seen_as_the_psf_and_nothing_comes_from_outside() -> None:
    psf = gaussian_psf(1.0, 3.0)
    inner = (30, 20, 20)
    sample = np.zeros([n + m - 1 for n, m in zip(inner, psf.shape, strict=True)], np.float32)
    at = [m // 2 + n // 2 for n, m in zip(inner, psf.shape, strict=True)]
    sample[tuple(at)] = 1.0
    seen = imaged(sample, psf)
    assert seen.shape == inner
    assert np.unravel_index(seen.argmax(), inner) == (15, 10, 10)
    assert seen[15, 10, 10] == pytest.approx(psf.max(), rel=1e-4)
