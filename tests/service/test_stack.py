"""One stack through all stages: reproducible, complete whatever comes, and honest about it."""

import itertools
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from stacks import small_stack, write

from otf_stream.learn.checkpoints import digest, network_to_deblur, save_weights
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import NAFNet, deblurring_network
from otf_stream.learn.training import layers_of
from otf_stream.restore.methods import Grid
from otf_stream.restore.methods import interpolated as interpolated_planes
from otf_stream.restore.trust import Trust
from otf_stream.service.budget import Budget, Schedule
from otf_stream.service.costs import Costs
from otf_stream.service.memory import Memory
from otf_stream.service.settings import Settings
from otf_stream.service.stack import EmptyStackError, restore_stack
from otf_stream.store.restored import read_provenance, read_restored
from simulators.microscope import image
from simulators.phantom import phantom

CPU = choose_compute("cpu")


@pytest.fixture
def few(weights):
    """Two steps of a small network."""
    return Settings(budget=Budget(steps=2), weights=weights)


def interpolated(stack, anisotropy):
    depth = int((len(stack) - 1) * anisotropy + 1e-6) + 1
    raw = torch.from_numpy(stack.astype(np.float32))
    return interpolated_planes(Grid(range(len(stack)), anisotropy, depth), raw).numpy()


def test_a_fixed_number_of_steps_gives_the_same_volume_bit_for_bit_and_another_seed_another(session, few, monkeypatch):
    monkeypatch.setattr(Trust, "best", "network")
    volumes = {}
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        store = session({(0, 0): small_stack()}, name=name)
        provenance = restore_stack(store, (0, 0), replace(few, seed=seed), CPU)
        assert provenance["method"] == "finetune"
        assert provenance["training"]["steps"] == provenance["training"]["denoiser_steps"] == 2
        volumes[name] = read_restored(store.path, (0, 0))
    assert volumes["first"].shape == (37, 72, 72)
    assert volumes["first"].dtype == np.uint16
    assert np.array_equal(volumes["first"], volumes["second"])
    assert not np.array_equal(volumes["first"], volumes["third"])


def test_of_a_selection_of_layers_the_others_stay_and_the_provenance_tells(session, weights):
    store = session({(0, 0): small_stack()})
    settings = Settings(budget=Budget(steps=3), weights=weights, layers="zest")
    training = restore_stack(store, (0, 0), settings, CPU)["training"]
    assert 0 < len(training["layers"]) < len(layers_of(network_to_deblur(weights)))
    assert training["weights_sha256"] == digest(weights)
    assert training["steps"] == 3


def test_a_network_that_wins_light_is_not_used(session, tmp_path):
    # Weights that double what they are shown, and no time to learn better.
    torch.manual_seed(0)
    network = deblurring_network()
    with torch.no_grad():
        network.ending.bias.fill_(0.5)
    save_weights(network, tmp_path / "bright.safetensors", {})
    stack = small_stack()
    store = session({(0, 0): stack})
    settings = Settings(method="pretrained", budget=Budget(total=60, tail=0), weights=tmp_path / "bright.safetensors")
    costs = Costs()
    provenance = restore_stack(store, (0, 0), settings, CPU, costs=costs)
    assert provenance["method"] != "pretrained"
    assert provenance["warnings"]
    assert abs(provenance["flux_ratio"] - 1) < 0.03
    # What the network took is no cost of interpolating.
    assert (
        costs.interpolating(10**6) - costs.interpolating(0)
        < 1e6 * provenance["timing"]["stages_s"]["restore"] / 37 / 72**2
    )


def test_a_network_that_is_a_little_too_bright_is_scaled_to_the_light_of_the_planes(session, tmp_path, monkeypatch):
    monkeypatch.setattr(Trust, "best", "network")
    torch.manual_seed(0)
    network = deblurring_network()  # as it comes it changes nothing
    with torch.no_grad():
        network.ending.bias.fill_(0.008)
    save_weights(network, tmp_path / "bright.safetensors", {})
    volumes = {}
    for scales in (True, False):
        if not scales:
            monkeypatch.setattr("otf_stream.service.stack.LIGHT_LOST", 1.0)
            monkeypatch.setattr("otf_stream.service.stack._MOST_LIGHT_LOST", 1.0)
        store = session({(0, 0): small_stack()}, name=f"scales {scales}")
        settings = Settings(method="pretrained", budget=Budget(steps=1), weights=tmp_path / "bright.safetensors")
        told = restore_stack(store, (0, 0), settings, CPU)
        assert told["method"] == "pretrained"
        volumes[scales] = told, read_restored(store.path, (0, 0)).astype(float)
    (told, found), (before, brighter) = volumes[True], volumes[False]
    assert 1.03 < before["flux_ratio"] < 1.25
    assert told["flux_ratio"] == pytest.approx(1.0, abs=0.005)
    assert any("scaled to theirs" in warning for warning in told["warnings"])
    background = told["noise"]["offset"]
    expected = (brighter - background) / before["flux_ratio"] + background
    np.testing.assert_allclose(found, np.clip(expected, 0, None), atol=1.5)


def test_the_network_is_fine_tuned_or_used_as_it_is_and_the_provenance_tells_how(session):
    stages = []
    for method in ("pretrained", "finetune"):
        store = session({(0, 0): small_stack()}, name=method)
        provenance = restore_stack(
            store, (0, 0), Settings(method=method, budget=Budget(steps=20)), CPU,
            progress=lambda stage, done, method=method: stages.append((method, stage)),
        )  # fmt: skip
        examined = provenance["trust"]
        wins = examined["network_gain_db"] > examined["richardson_lucy_gain_db"]
        assert wins or method == "pretrained"  # as it is, it may know too little of this stack
        assert provenance["method"] == (method if wins else "richardson-lucy")
        assert provenance["training"]["steps"] == (0 if method == "pretrained" else 20)
        assert provenance["training"]["denoiser_steps"] == provenance["training"]["steps"]
        kept = abs(provenance["flux_ratio"] - 1) < 0.03
        assert kept or (method == "pretrained" and any("light" in warning for warning in provenance["warnings"]))
        assert read_restored(store.path, (0, 0)).shape == (37, 72, 72)
        assert read_provenance(store.path)["t0c0"] == provenance
        assert provenance["settings"]["seed"] == 0
        assert set(provenance["versions"]) == {"otf_stream", "python", "numpy", "torch", "zarr"}
        assert provenance["timing"]["since_first_plane_s"] > 0
        assert provenance["missing_planes"] == []
        assert store.journal.state((0, 0)) == "restored"
    assert provenance["warnings"] == []
    assert 0 < provenance["residual"] < 2
    assert ("finetune", "finetune") in stages
    assert ("pretrained", "finetune") not in stages


def test_training_begins_while_planes_still_arrive(session, weights):
    stack = small_stack(planes=12)
    store = session({(0, 0): stack[:5]}, planes=12, close=False)
    seen = []

    def progress(stage, done):
        seen.append((stage, len(store.journal.planes_of((0, 0)))))
        if stage == "finetune" and not feeding.is_alive() and not feeding.ident:
            feeding.start()

    def feed():
        for z in range(5, 12):
            write(store, [((0, 0, z), stack[z])])
            time.sleep(0.05)

    feeding = threading.Thread(target=feed)
    restore_stack(store, (0, 0), Settings(budget=Budget(steps=3), weights=weights), CPU, progress=progress)
    feeding.join()
    assert ("finetune", 5) in seen  # trained before the rest had come
    assert {planes for stage, planes in seen if stage == "restore"} == {12}  # restored only when all was there
    assert read_restored(store.path, (0, 0)).shape == (45, 72, 72)


@pytest.mark.parametrize("planes", [1, 2, 4])
def test_very_few_planes_are_interpolated(session, few, planes):
    stack = small_stack(planes=planes)
    store = session({(0, 0): stack})
    provenance = restore_stack(store, (0, 0), few, CPU)
    assert provenance["method"] == "interpolate"
    assert "too few" in provenance["warnings"][0]
    np.testing.assert_allclose(read_restored(store.path, (0, 0)), interpolated(stack, 4.0), atol=0.51)


def test_a_constant_stack_is_interpolated(session, few):
    store = session({(0, 0): np.full((8, 40, 40), 7, np.uint16)})
    provenance = restore_stack(store, (0, 0), few, CPU)
    assert provenance["method"] == "interpolate"
    assert "no contrast" in provenance["warnings"][0]
    assert (read_restored(store.path, (0, 0)) == 7).all()


def test_a_missing_plane_is_bridged_and_told(session):
    stack = image(phantom((37, 72, 72), seed=1), anisotropy=4, seed=1)
    store = session({(0, 0): stack}, skip=(0, 4), modality="unknown")
    provenance = restore_stack(store, (0, 0), Settings(budget=Budget(steps=2)), CPU)
    assert provenance["missing_planes"] == [0, 4]
    assert any("2 of 10 planes never came" in warning for warning in provenance["warnings"])
    volume = read_restored(store.path, (0, 0)).astype(float)
    assert volume.shape == (37, 72, 72)
    assert volume[16].mean() == pytest.approx(0.5 * (volume[12].mean() + volume[20].mean()), rel=0.1)


def test_values_that_are_no_numbers_do_no_harm(session):
    stack = small_stack(dtype="float32")
    stack[3, 10:20, 10:20] = np.nan
    stack[5] -= 300  # negative values are welcome
    stack[6, 0, 0] = np.inf
    store = session({(0, 0): stack}, modality="unknown")
    provenance = restore_stack(store, (0, 0), Settings(budget=Budget(steps=2)), CPU)
    assert any("NaN" in warning for warning in provenance["warnings"])
    assert np.isfinite(read_restored(store.path, (0, 0))).all()


def test_saturation_is_told(session, few):
    stack = small_stack()
    stack[:, 30:40, 30:40] = 65535
    store = session({(0, 0): stack})
    assert any("saturated" in warning for warning in restore_stack(store, (0, 0), few, CPU)["warnings"])


def test_a_z_step_below_the_pixel_is_told(session, few):
    store = session({(0, 0): small_stack()}, voxel_size=(0.1, 0.2, 0.2))
    provenance = restore_stack(store, (0, 0), few, CPU)
    assert any("z step is smaller" in warning for warning in provenance["warnings"])
    assert read_restored(store.path, (0, 0)).shape == (5, 72, 72)


def test_without_time_the_stack_is_interpolated_and_says_so(session):
    stack = small_stack()
    store = session({(0, 0): stack})
    provenance = restore_stack(store, (0, 0), Settings(budget=Budget(total=0.1, tail=0.1)), CPU)
    assert provenance["method"] == "interpolate"
    assert "no time" in provenance["warnings"][0]
    np.testing.assert_allclose(read_restored(store.path, (0, 0)), interpolated(stack, 4.0), atol=0.51)


def test_whoever_asks_for_interpolation_is_not_told_that_there_is_no_time_for_the_network(session):
    store = session({(0, 0): small_stack(planes=6)})
    provenance = restore_stack(store, (0, 0), Settings(method="interpolate", budget=Budget(total=0.1, tail=0.1)), CPU)
    assert provenance["method"] == "interpolate"
    assert not [warning for warning in provenance["warnings"] if "no time" in warning]


def test_wherever_time_runs_out_there_is_a_whole_volume_and_it_is_told_what_of(session, tmp_path, monkeypatch):
    torch.manual_seed(0)
    weights = tmp_path / "small.safetensors"
    save_weights(NAFNet(guide_channels=1, width=8, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,)), weights, {})
    settings, stack = Settings(budget=Budget(steps=1), weights=weights), small_stack(planes=8, side=56)
    asked, at = 0, None

    def is_over(schedule):
        nonlocal asked
        asked += 1
        return asked == at

    monkeypatch.setattr(Schedule, "is_last_moment", is_over)
    monkeypatch.setattr(Schedule, "is_out_of_time", is_over)
    # With no haze and no step of training, Richardson-Lucy might win the exam.
    monkeypatch.setattr(Trust, "best", "network")

    def restored(name):
        nonlocal asked
        asked = 0
        store = session({(0, 0): stack}, name=name)
        return restore_stack(store, (0, 0), settings, CPU), read_restored(store.path, (0, 0))

    told, whole = restored("in time")
    assert told["method"] == "finetune"
    assert told["warnings"] == []
    turns, methods = asked, []
    for at in sorted({*range(1, turns, 30), turns - 3, turns - 1}):
        told, volume = restored(f"after {at}")
        methods.append(told["method"])
        if told["method"] == "interpolate":
            assert told["warnings"] == [
                "no time to restore with the network before the deadline: interpolated; a longer budget, or a machine "
                "that has less to do, helps"
            ]
            np.testing.assert_allclose(volume, interpolated(stack, 4.0), atol=0.51)
        else:
            assert told["warnings"] == ["time for XZ slices alone: YZ slices did not go through the network"]
            assert not np.array_equal(volume, whole)
    assert [method for method, _ in itertools.groupby(methods)] == ["interpolate", "finetune"]


def test_richardson_lucy_and_interpolation_can_be_asked_for(session):
    for method in ("richardson-lucy", "interpolate"):
        store = session({(0, 0): small_stack()}, name=method)
        provenance = restore_stack(store, (0, 0), Settings(method=method), CPU)
        assert provenance["method"] == method
        assert provenance["warnings"] == []
        assert provenance["flux_ratio"] == pytest.approx(1, abs=0.03)


def test_a_stack_without_a_plane_is_refused(session, few):
    store = session({(0, 0): small_stack(), (0, 1): small_stack()[:0]})
    with pytest.raises(EmptyStackError, match="c=1"):
        restore_stack(store, (0, 1), few, CPU)


def test_where_learning_fails_the_stack_is_interpolated_and_says_so(session, few):
    def fail(stage, done):
        if stage == "finetune":
            raise RuntimeError("out of memory")

    stack = small_stack()
    store = session({(0, 0): stack})
    provenance = restore_stack(store, (0, 0), few, CPU, progress=fail)
    assert provenance["method"] == "interpolate"
    assert "RuntimeError: out of memory" in provenance["warnings"][0]
    assert any("out of memory" in event.detail["trace"] for event in store.journal.events() if event.kind == "failure")
    np.testing.assert_allclose(read_restored(store.path, (0, 0)), interpolated(stack, 4.0), atol=0.51)


def test_where_even_the_noise_cannot_be_estimated_the_stack_is_interpolated(session, few, monkeypatch):
    def diverge(planes):
        raise np.linalg.LinAlgError("no convergence")

    monkeypatch.setattr("otf_stream.service.character.estimate_noise", diverge)
    stack = small_stack()
    store = session({(0, 0): stack})
    provenance = restore_stack(store, (0, 0), few, CPU)
    assert provenance["method"] == "interpolate"
    assert sum("no convergence" in warning for warning in provenance["warnings"]) == 2
    np.testing.assert_allclose(read_restored(store.path, (0, 0)), interpolated(stack, 4.0), atol=0.51)


def test_what_is_learnt_is_kept_only_while_another_time_point_may_come(session, few, monkeypatch):
    monkeypatch.setattr(Trust, "best", "network")
    stacks = {(t, 0): small_stack(planes=6, side=40, seed=t) for t in range(2)}
    store, memory = session(stacks), Memory()
    for t, kept in ((0, True), (1, False)):
        restore_stack(store, (t, 0), few, CPU, memory=memory)
        assert (memory.recall(store.session, (2, 0)) is not None) == kept
