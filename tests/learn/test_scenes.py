"""Scenes hold together: what is seen is the truth, blurred and sampled, with as much light."""

import numpy as np
import pytest
import torch

from otf_stream.learn.scenes import SHAPE, draw_scene


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(1)
    return [draw_scene(rng) for _ in range(6)]


def test_planes_lie_on_the_isotropic_grid(scenes):
    for scene in scenes:
        assert scene.truth.shape == SHAPE
        assert scene.seen.shape == (len(range(0, SHAPE[0], scene.anisotropy)), *SHAPE[1:])
        assert (scene.seen >= 0).all()
        assert 0.9 < float(np.percentile(scene.seen, 99.9)) < 1.1


def test_blur_takes_no_light_and_no_detail_is_added(scenes):
    for scene in scenes:
        assert float(scene.seen.mean() / scene.truth.mean()) == pytest.approx(1, abs=0.1)
        truth = scene.truth[:: scene.anisotropy]
        assert float(scene.seen.diff(dim=1).abs().mean()) < 1.05 * float(truth.diff(dim=1).abs().mean())


def test_a_seed_gives_the_same_scene(scenes):
    again = draw_scene(np.random.default_rng(1))
    assert torch.equal(again.seen, scenes[0].seen)
    assert again.noise == scenes[0].noise
    assert len({scene.noise.gain for scene in scenes}) == len(scenes)
