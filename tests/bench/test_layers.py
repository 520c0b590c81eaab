"""The contest of layers: fair in time and share, and told as it was."""

import json
import time

import pytest
import torch

from otf_stream.bench import layers
from otf_stream.bench.cases import Case
from otf_stream.bench.layers import draw, forward_order, last_layers, page, race, random_layers, run_layers
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import NAFNet, deblurring_network
from otf_stream.learn.training import layers_of

CPU = choose_compute("cpu")


class Runner:
    """Trains nothing, and takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.progress: list[float] = []

    def step(self, progress: float) -> None:
        self.progress.append(progress)
        time.sleep(self.seconds)


def test_all_train_for_the_same_time() -> None:
    quick, slow, late = Runner(0.005), Runner(0.02), Runner(0.005)
    race({"quick": quick, "slow": slow, "late": late}, 0.2, {"late": 0.15})
    assert len(quick.progress) > 2 * len(slow.progress) > 2 * 4
    assert quick.progress[0] == slow.progress[0] == 0
    assert late.progress[0] == pytest.approx(0.75)
    for runner in (quick, slow, late):
        assert runner.progress == sorted(runner.progress)
        assert runner.progress[-1] < 1


def test_layers_are_put_in_the_order_of_the_image() -> None:
    network = NAFNet(width=4, enc_blk_nums=(1, 1), dec_blk_nums=(1, 1), guide_channels=2)
    order = forward_order(network)
    assert set(order) == set(layers_of(network))
    assert len(order) == len(set(order))
    passed = ["intro", "encoders.0.0", "downs.0", "encoders.1.0", "downs.1", "middle_blks.0", "ups.0.0", "decoders.0.0"]
    assert [name for name in order if name in [*passed, "ending"]] == [*passed, "ending"]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 1.0])
def test_the_rivals_keep_to_the_share(share) -> None:
    network = deblurring_network()
    sizes = {name: sum(p.numel() for p in owned) for name, owned in layers_of(network).items()}
    order = forward_order(network)
    for chosen in (random_layers(network, share, 0), last_layers(network, share)):
        assert 0 < sum(sizes[name] for name in chosen) <= share * sum(sizes.values())
    last = last_layers(network, share)
    assert list(last) == order[::-1][: len(last)]
    assert random_layers(network, share, 1) == random_layers(network, share, 1)


def test_a_run_is_kept_and_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(layers, "shipped_network", lambda name: NAFNet(width=4, guide_channels=1))
    monkeypatch.setattr(layers, "_WARM_UP", 0.0)
    case, results = Case("confocal", "low", 4), tmp_path / "layers.jsonl"
    found = run_layers([case], results, CPU, seconds=0.2, share=0.3, seeds=1)
    monkeypatch.setattr(layers, "_run", lambda *a, **k: pytest.fail("is there already"))
    assert run_layers([case], results, CPU, seconds=0.2, share=0.3, seeds=1) == json.loads(json.dumps(found))
    monkeypatch.setattr(layers, "version_of_ours", lambda: "others")
    with pytest.raises(pytest.fail.Exception, match="there already"):  # but not of another version of ours
        run_layers([case], results, CPU, seconds=0.2, share=0.3, seeds=1)
    (result,) = found
    assert set(result["gain"]) == {"none", "last", "random", "zest", "all"}
    assert result["trained"]["all"] == 1
    assert result["trained"]["zest"] <= 0.3
    assert set(result["selected"]) <= set(result["layers"])
    draw(tmp_path / "images" / "layers.png", found)
    assert (tmp_path / "images" / "layers.png").stat().st_size > 5_000


def test_the_page_tells_medians_and_extremes() -> None:
    def result(modality: str, seed: int, zest: float) -> dict:
        return {
            "case": modality, "modality": modality, "seed": seed, "seconds": 30.0, "share": 0.3, "selecting": 0.5,
            "gain": {"none": 0.0, "last": 1.0, "random": 1.5, "zest": zest, "all": 2.25},
            "steps": {"last": 40, "random": 30, "zest": 20, "all": 10},
            "trained": {"last": 0.25, "random": 0.3, "zest": 0.28, "all": 1.0},
            "selected": ["intro"], "layers": ["intro", "ending"], "machine": "2 cores",
        }  # fmt: skip

    told = page([result("confocal", seed, gain) for seed, gain in enumerate((2.0, 4.0, 2.5))], "the command", "a.png")
    assert "| confocal | 0.00 (0.00 … 0.00) |" in told
    assert "| 2.50 (2.00 … 4.00) | 2.25 (2.25 … 2.25) |" in told
    assert "| parameters trained | 0 % | 25 % | 30 % | 28 % | 100 % |" in told
    assert "| steps | 0 | 40 | 30 | 20 | 10 |" in told
    assert "`the command` on 2 cores" in told
    assert "(a.png)" in told


def test_the_same_seed_draws_the_same_pairs() -> None:
    case = Case("confocal", "low", 4)
    training, held_out = layers._sources(case, CPU)
    assert all(torch.equal(a, b) for a, b in zip(held_out(3)(), held_out(3)(), strict=True))
    assert not torch.equal(training(0)()[1], training(1)()[1])
    assert len(training(0).clean) + len(held_out(0).clean) < 32
