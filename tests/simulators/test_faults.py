import numpy as np
import pytest

from simulators.faults import Faults, hot_light, stripe_shadows


def test_no_fault_by_default() -> None:
    faults = Faults()
    assert not any((faults.bleaching, faults.drift_um, faults.dropped, faults.hot_pixels, faults.stripes))


def test_hot_pixels_are_as_many_as_asked_for_and_always_the_same() -> None:
    light = hot_light((20, 30), 7, seed=[1])
    assert light.shape == (20, 30)
    assert (light > 0).sum() == 7
    assert light[light > 0].min() >= 0.5
    assert np.array_equal(light, hot_light((20, 30), 7, seed=[1]))
    assert not np.array_equal(light, hot_light((20, 30), 7, seed=[2]))
    assert not hot_light((20, 30), 0, seed=[1]).any()
    with pytest.raises(ValueError, match="7 hot pixels are more than the 4 pixels"):
        hot_light((2, 2), 7, seed=[1])


@pytest.mark.parametrize("rows", [8, 100, 256])
def test_the_darkest_row_loses_what_is_asked_for(rows: int) -> None:
    shadows = stripe_shadows(rows, 0.4, seed=[3])
    assert shadows.shape == (rows, 1)
    assert shadows.min() == pytest.approx(0.6)
    assert shadows.max() <= 1
    assert np.median(shadows) > 0.8
    assert (stripe_shadows(rows, 0.0, seed=[3]) == 1).all()
    assert np.array_equal(shadows, stripe_shadows(rows, 0.4, seed=[3]))


@pytest.mark.parametrize(
    ("fault", "value"),
    [("bleaching", 1.0), ("dropped", -0.1), ("stripes", float("nan")), ("drift_um", float("inf")), ("hot_pixels", -1)],
)
def test_faults_that_cannot_be(fault: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{fault} is {value}"):
        Faults(**{fault: value})
