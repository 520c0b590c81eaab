"""Pre-training: it learns, it can be repeated, and it says how well it did on what it never saw."""

import numpy as np
import pytest
import torch

from otf_stream.learn.checkpoints import save_weights
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.modelcard import card_text, model_card
from otf_stream.learn.nafnet import deblurring_network
from otf_stream.learn.pairs import PATCH
from otf_stream.learn.pretrain import draw_scene, held_out, pretrain

CPU = choose_compute("cpu")


def new():
    torch.manual_seed(0)
    return deblurring_network()


@pytest.fixture(scope="module")
def trained():
    return list(pretrain(new(), CPU, steps=100, seed=0, scenes=8))


def test_it_beats_interpolation_on_images_it_never_saw(trained):
    reports = [report for report, _ in trained]
    assert [report.steps for report in reports] == list(range(5, 101, 5))
    assert reports[-1].gain_db > 0.2
    assert reports[-1].gain_db > reports[0].gain_db


def test_the_same_seed_gives_the_same_weights(trained):
    again = dict(next(pretrain(new(), CPU, steps=100, seed=0, scenes=8))[1].state_dict())
    for name, value in trained[0][1].state_dict().items():
        assert torch.equal(value, again[name])


def test_an_untrained_network_gains_nothing():
    assert held_out(CPU, 5, scenes=1)(new().eval()) == pytest.approx(0, abs=0.02)


def test_scenes_differ():
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    scenes = [draw_scene(rng, CPU, generator) for _ in range(3)]
    assert len({scene.blur.sigma for scene in scenes}) == 3
    degraded, clean = scenes[0]()
    assert degraded.shape == clean.shape == (8, 1, PATCH, PATCH)


def test_the_card_says_what_was_done(trained, tmp_path):
    card = model_card(trained[-1][1], [report for report, _ in trained], steps=100, seed=0, compute=CPU)
    save_weights(trained[-1][1], tmp_path / "w.safetensors", card)
    text = card_text(card, "otf-stream pretrain w.safetensors --steps 100")
    assert "--steps 100" in text
    assert f"| 100 | {trained[-1][0].seconds:.0f} | {trained[-1][0].gain_db:+.2f} |" in text
