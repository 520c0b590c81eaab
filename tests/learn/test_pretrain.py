"""Pre-training: it learns, it can be repeated, and it says how well it did on what it never saw."""

from functools import cache
from itertools import islice

import pytest
import torch

from otf_stream.learn import pretrain as pretraining
from otf_stream.learn.checkpoints import save_weights, shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import NEIGHBOURS, denoising_network
from otf_stream.learn.modelcard import card_text, model_card
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pretrain import drawn_scenes, held_out, pretrain
from otf_stream.learn.scene_pairs import axial_pairs, noisy_pairs

CPU = choose_compute("cpu")


def new():
    """A denoising network that is smaller than the one that ships."""
    torch.manual_seed(0)
    return NAFNet(guide_channels=2 * NEIGHBOURS + 1, width=12, enc_blk_nums=(1, 1), dec_blk_nums=(1, 1))


@pytest.fixture(scope="module", autouse=True)
def drawn_once():
    """Draw a scene once: that takes a second, and it depends on its seed and number alone, as another process shows."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pretraining, "_scene", cache(pretraining._scene))
        yield


@pytest.fixture(scope="module")
def trained():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pretraining, "_REPORTS", 4)
        return list(pretrain(new(), noisy_pairs, CPU, steps=40, seed=0, scenes=2))


def test_it_learns_what_it_can_use_on_scenes_it_never_saw(trained):
    reports = [report for report, _ in trained]
    assert [report.steps for report in reports] == [0, 10, 20, 30, 40]
    assert reports[-1].gain_db > 2
    assert reports[0].gain_db == pytest.approx(0, abs=0.02)  # an untrained network changes nothing
    assert reports[-1].gain_db > reports[1].gain_db


def test_the_same_seed_gives_the_same_weights(trained):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pretraining, "_REPORTS", 4)
        _, (_, again) = islice(pretrain(new(), noisy_pairs, CPU, steps=40, seed=0, scenes=2), 2)
    for name, value in trained[1][1].state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_scenes_are_the_same_whoever_draws_them():
    mine = list(islice(drawn_scenes(7), 2))
    with pretraining._drawing(1) as draw:
        theirs = list(islice(draw(7), 2))
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one.truth, other.truth)
        assert torch.equal(one.seen, other.seen)
        assert torch.equal(one.psf.tail, other.psf.tail)
        assert (one.noise, one.anisotropy) == (other.noise, other.anisotropy)


def test_several_scenes_teach_a_step():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pretraining, "_REPORTS", 1)
        _, (report, _) = pretrain(new(), noisy_pairs, CPU, steps=20, seed=0, scenes=3, together=2)
    assert report.steps == 20
    assert report.gain_db > 0.5


def test_an_untrained_network_gains_nothing():
    assert held_out(noisy_pairs, CPU, 5, scenes=1)(denoising_network().eval()) == pytest.approx(0, abs=0.02)


def test_the_weights_that_ship_do_what_they_were_trained_for():
    assert held_out(noisy_pairs, CPU, 11, scenes=3)(shipped_network("denoise")) > 6
    large, small = shipped_network("deblur-large"), shipped_network("deblur")
    lateral, mixed = (
        held_out(axial_pairs(shipped_network("denoise"), CPU, lateral=share), CPU, 12, scenes=3) for share in (1, 0.25)
    )
    assert lateral(large) > lateral(small) > 0.2  # over deconvolution
    assert mixed(small) > 0.2


def test_the_card_says_what_was_done(trained, tmp_path):
    reports = [report for report, _ in trained]
    card = model_card(
        trained[-1][1], reports, command="otf-stream pretrain denoise w.safetensors --steps 40",
        steps=40, scenes=2, together=1, seed=0, compute=CPU,
    )  # fmt: skip
    save_weights(trained[-1][1], tmp_path / "w.safetensors", card)
    text = card_text("denoise", card)
    assert "--steps 40" in text
    assert "**Before**" not in text
    assert f"| 40 | {reports[-1].seconds:.0f} | {reports[-1].gain_db:+.2f} |" in text


def test_the_card_tells_all_that_training_went_on_from(trained):
    reports, card = [report for report, _ in trained], None
    for seed in (3, 4, 5):
        card = model_card(
            trained[-1][1], reports, command=f"otf-stream pretrain --seed {seed}", steps=40, scenes=2, together=1,
            seed=seed, compute=CPU, before=card,
        )  # fmt: skip
    told = card_text("deblur", card).split("**Reproduce**")
    assert [part.split("`")[1] for part in told[1:]] == [f"otf-stream pretrain --seed {seed}" for seed in (4, 3, 5)]
