"""Drawn images: varied, of one scale of intensity, and the same for the same seed."""

import numpy as np
import pytest

from otf_stream.learn import imagery
from otf_stream.learn.imagery import draw_image


def test_a_seed_gives_the_same_image():
    first, second, other = (draw_image(64, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_images_are_normalised_and_in_focus():
    rng = np.random.default_rng(0)
    for _ in range(12):
        image = draw_image(96, rng)
        assert image.shape == (96, 96)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        dark, bright = np.percentile(image, (1, 99.9))
        assert (dark, bright) == pytest.approx((0, 1), abs=1e-5)
        # The point-spread function leaves nothing at the pixel's own frequency.
        power = np.abs(np.fft.rfft(image - image.mean(), axis=1)) ** 2
        assert power[:, -4:].sum() < 0.01 * power.sum()


@pytest.mark.parametrize("kind", ["_leaves", "_fractal", "_filaments", "_membranes", "_cells"])
def test_every_kind_draws_something(kind):
    image = getattr(imagery, kind)(128, np.random.default_rng(1))
    assert image.shape == (128, 128)
    assert image.min() >= 0
    assert image.std() > 0.01
