"""What is seen of a sample with a known truth, and what each fault does to it."""

from dataclasses import replace

import numpy as np
import pytest
import useq

from simulators.core import acquire_stack, unload, virtual_microscope
from simulators.faults import Faults
from simulators.scenes import View
from simulators.specimen import Setup, Specimen

SETUP = Setup("confocal", planes=4, side=40, seed=5)
STEP = SETUP.instrument.z_step_um
PIXEL = SETUP.instrument.pixel_um
CAMERA = SETUP.instrument.camera
GREY = CAMERA.gain * CAMERA.photons

Index = tuple[int, int, int, int]


def acquired(setup: Setup, *, time_points: int = 1, triggered: bool = False) -> dict[Index, np.ndarray]:
    """Return the frames of a real acquisition by (t, p, c, z)."""
    core = virtual_microscope(Specimen(setup), triggered=triggered)
    frames: dict[Index, np.ndarray] = {}

    def keep(image: np.ndarray, event: useq.MDAEvent) -> None:
        index = tuple(event.index.get(axis, 0) for axis in "tpcz")
        assert index not in frames
        frames[index] = image.copy()

    core.mda.events.frameReady.connect(keep)
    acquire_stack(
        core,
        planes=setup.planes,
        z_step_um=setup.instrument.z_step_um,
        channels=setup.channel_names,
        positions_um=setup.positions_um,
        time_points=time_points,
    )
    unload(core)
    return frames


def light(frame: np.ndarray) -> np.ndarray:
    """Photoelectrons of a frame, as fractions of those of a voxel of truth 1.0."""
    return (frame.astype(np.float64) - CAMERA.offset) / GREY


def same(one: dict[Index, np.ndarray], other: dict[Index, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[index], other[index]) for index in one)


@pytest.mark.parametrize("triggered", [False, True], ids=["stepped", "triggered"])
def test_frames_come_from_the_right_plane_channel_and_position(triggered: bool) -> None:
    setup = replace(SETUP, channels=2, positions=2)
    frames = acquired(setup, time_points=2, triggered=triggered)
    assert len(frames) == 2 * 2 * 2 * 4
    specimen = Specimen(setup)
    expected = {
        (p, c, z): light
        for p in range(2)
        for c in range(2)
        for z, light in enumerate(specimen.light[p, c][:: setup.instrument.z_step])
    }
    for (_, *index), frame in frames.items():
        # The noise is that of the camera about this plane, and more about any other.
        variance = (expected[tuple(index)] * CAMERA.photons + CAMERA.read_noise**2) / CAMERA.photons**2
        errors = {place: ((light(frame) - plane) ** 2 / variance).mean() for place, plane in expected.items()}
        assert min(errors, key=lambda place: errors[place]) == tuple(index)
        assert errors[tuple(index)] == pytest.approx(1, abs=0.15)


def test_the_truth_is_sharper_along_z_and_as_bright() -> None:
    specimen = Specimen(SETUP)
    truth, seen = specimen.truth(0, 0), specimen.light[0, 0]
    assert truth.shape == seen.shape == SETUP.shape == (13, 40, 40)
    assert truth.mean() == pytest.approx(seen.mean(), rel=0.05)
    axial, lateral = (np.diff(truth, axis=axis).std() / np.diff(seen, axis=axis).std() for axis in (0, 2))
    assert axial > 1.3 * lateral > 1


def test_a_seed_gives_the_same_frames_with_noise_of_their_own() -> None:
    setup = replace(SETUP, faults=Faults(bleaching=0.01, drift_um=0.1, dropped=0.1, hot_pixels=3, stripes=0.2))
    frames = acquired(setup, time_points=3)
    assert same(frames, acquired(setup, time_points=3))
    assert not same(frames, acquired(replace(setup, seed=6), time_points=3))
    still = acquired(SETUP, time_points=2)
    change = light(still[1, 0, 0, 2]) - light(still[0, 0, 0, 2])
    expected = 2 * (light(still[0, 0, 0, 2]).mean() * CAMERA.photons + CAMERA.read_noise**2) / CAMERA.photons**2
    assert change.var() == pytest.approx(expected, rel=0.15)
    assert abs(change.mean()) < 4 * np.sqrt(expected / change.size)


def test_how_it_is_stepped_does_not_matter() -> None:
    setup = replace(SETUP, channels=2, faults=Faults(bleaching=0.01, drift_um=0.2))
    assert same(acquired(setup, time_points=2), acquired(setup, time_points=2, triggered=True))


def test_every_plane_costs_the_stated_light() -> None:
    faded = acquired(replace(SETUP, faults=Faults(bleaching=0.1)), time_points=2)
    fresh = acquired(SETUP, time_points=2)
    for number, index in enumerate(sorted(fresh)):
        assert light(faded[index]).sum() / light(fresh[index]).sum() == pytest.approx(0.9**number, abs=0.04)


def test_channels_and_positions_bleach_by_themselves() -> None:
    setup = replace(SETUP, channels=2, positions=2, faults=Faults(bleaching=0.2))
    faded, fresh = acquired(setup), acquired(replace(setup, faults=Faults()))
    for _, p, c, z in fresh:
        ratio = light(faded[0, p, c, z]).sum() / light(fresh[0, p, c, z]).sum()
        assert ratio == pytest.approx(0.8**z, abs=0.06)


def test_drift_shifts_the_sample_and_its_truth() -> None:
    setup = replace(SETUP, room=12, faults=Faults(drift_um=2.4 * PIXEL))
    specimen = Specimen(setup)
    pixels = [0, 2, 5, 7]  # whole ones, towards larger x
    truths = [specimen.truth(0, 0, t) for t in range(4)]
    frames = acquired(setup, time_points=4)
    for t in range(1, 4):
        assert np.array_equal(truths[t][:, :, pixels[t] :], truths[0][:, :, : -pixels[t]])
        before, after = light(frames[0, 0, 0, 2]), light(frames[t, 0, 0, 2])
        fits = {
            shift: np.corrcoef(after[:, shift:].ravel(), before[:, : 40 - shift].ravel())[0, 1] for shift in range(12)
        }
        assert max(fits, key=lambda shift: fits[shift]) == pixels[t]


def test_lost_frames_are_missing_and_the_others_keep_their_index() -> None:
    setup = replace(SETUP, channels=2, faults=Faults(dropped=0.3))
    whole = acquired(replace(setup, faults=Faults()), time_points=3)
    left = acquired(setup, time_points=3)
    assert 10 < len(left) < 23
    assert all(np.array_equal(frame, whole[index]) for index, frame in left.items())


def test_a_burst_with_lost_frames_ends_all_the_same() -> None:
    specimen = Specimen(replace(SETUP, faults=Faults(dropped=0.3)))
    core = virtual_microscope(specimen, triggered=True)
    frames: list[np.ndarray] = []
    core.mda.events.frameReady.connect(lambda image: frames.append(image.copy()))
    acquire_stack(core, planes=4, z_step_um=STEP, time_points=5)
    unload(core)
    assert specimen.exposed == 20
    assert 0 < specimen.dropped == 20 - len(frames) < 20


def test_hot_pixels_stay_put() -> None:
    setup = replace(SETUP, positions=2, faults=Faults(hot_pixels=6))
    hot, without = acquired(setup), acquired(replace(setup, faults=Faults()))
    bright = {index: light(hot[index]) - light(without[index]) > 0.35 for index in hot}
    (first, *others) = bright.values()
    assert first.sum() == 6
    assert all(np.array_equal(first, other) for other in others)


def test_stripes_darken_rows() -> None:
    striped = acquired(replace(SETUP, faults=Faults(stripes=0.6)))
    without = acquired(SETUP)
    left = sum(light(frame) for frame in striped.values()).sum(1) / sum(light(f) for f in without.values()).sum(1)
    assert left.min() == pytest.approx(0.4, abs=0.05)
    assert left.max() == pytest.approx(1, abs=0.08)


def test_a_second_look_begins_a_time_point() -> None:
    specimen = Specimen(SETUP)
    here, below = View(0, 0, 0, 0), View(0, 0, STEP, 0)
    looks = [specimen.expose(view) for view in (here, below, here, below, here)]
    assert specimen.time_point == 2
    assert len({look.tobytes() for look in looks}) == 5


def test_the_stages_move_the_view() -> None:
    specimen = Specimen(replace(SETUP, room=10))
    still, moved = specimen.expose(View(0, 0, 0, 0)), specimen.expose(View(6 * PIXEL, -4 * PIXEL, 0, 0))
    one, other = light(still)[: 40 - 4, 6:], light(moved)[4:, : 40 - 6]
    unshifted = np.corrcoef(light(still).ravel(), light(moved).ravel())[0, 1]
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > max(0.5, unshifted + 0.2)


@pytest.mark.parametrize("planes", [-1.5, 0.5, 3.5])
def test_any_height_is_seen(planes: float) -> None:
    specimen = Specimen(SETUP)
    sample = specimen.light[0, 0]
    at = abs(planes) * 4 if planes < 3 else 10.0  # its end is at voxel 12, and 14 its mirror image
    expected = sample[int(at)]
    seen = light(specimen.expose(View(0, 0, planes * STEP, 0)))
    variance = (expected * CAMERA.photons + CAMERA.read_noise**2) / CAMERA.photons**2
    assert ((seen - expected) ** 2 / variance).mean() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"modality": "unknown"}, "choose from confocal"),
        ({"channels": 4}, "FITC, Rhodamine, Cy5"),
        ({"planes": 1}, "planes must be at least 2"),
        ({"positions": 0}, "positions 1"),
    ],
)
def test_setups_that_cannot_be(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Setup(**wrong)


def test_more_hot_pixels_than_pixels() -> None:
    with pytest.raises(ValueError, match="1600 pixels"):
        Specimen(replace(SETUP, faults=Faults(hot_pixels=2000)))
