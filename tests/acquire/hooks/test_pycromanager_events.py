import pytest
from pycromanager import multi_d_acquisition_events

from otf_stream.acquire.hooks.pycromanager_events import Places, Plan, plans


def only(events: list[dict], **settings: float) -> Plan:
    (plan,) = plans(events, Places(), **settings).values()
    return plan


STACK = multi_d_acquisition_events(z_start=0, z_end=8, z_step=2)


def test_a_stack() -> None:
    plan = only(STACK)
    assert plan.announced() == {
        "sizes": {"t": 1, "c": 1, "z": 5},
        "z_step_um": 2.0,
        "channels": ("0",),
        "z_ranges": (),
        "every": (),
        "interval_s": None,
        "stage_um": None,
    }
    assert [plan.index(event["axes"]) for event in STACK] == [(0, 0, z) for z in range(5)]


@pytest.mark.parametrize("order", ["tpcz", "tpzc", "ptcz", "pczt"])
def test_any_order_gives_the_same_plan(order: str) -> None:
    events = multi_d_acquisition_events(
        num_time_points=3,
        time_interval_s=4,
        z_start=-1,
        z_end=1,
        z_step=0.5,
        channel_group="Channel",
        channels=["DAPI", "FITC"],
        xyz_positions=[(0, 0, 50), (7, 8, 90)],
        order=order,
    )
    planned = plans(events, Places())
    assert list(planned) == [(0, 0), (1, 0)]
    for (position, _), plan in planned.items():
        assert plan.announced()["sizes"] == {"t": 3, "c": 2, "z": 5}
        assert plan.names == ("DAPI", "FITC")
        assert plan.z_step_um == pytest.approx(0.5)
        assert plan.interval_s == pytest.approx(4)
        assert plan.stage_um == ((0, 0), (7, 8))[position]
        assert plan.index({"time": 2, "channel": "FITC", "z": 4, "position": position}) == (2, 1, 4)


def test_indices_that_begin_elsewhere() -> None:
    events = [{"axes": {"time": t, "z": z}, "z": 10 - 0.3 * z} for t in (4, 5) for z in range(-3, 3)]
    plan = only(events[5:] + events[:5])
    assert plan.index({"time": 4, "z": -3}) == (0, 0, 0)
    assert plan.index({"time": 5, "z": 2}) == (1, 0, 5)
    assert plan.z_step_um == pytest.approx(0.3)
    with pytest.raises(ValueError, match="no event has the axes"):
        plan.index({"time": 5, "z": 3})


def test_channels_with_planes_and_times_of_their_own() -> None:
    def event(t: int, channel: str, z: int | None) -> dict:
        axes = {"time": t, "channel": channel} | ({} if z is None else {"z": z})
        return {"axes": axes, "z": 0.0 if z is None else float(z)}

    events = [
        event(t, channel, z)
        for t in range(4)
        for channel, zs, every in (("A", range(6), 1), ("B", range(2, 4), 2), ("C", [None], 4))
        if t % every == 0
        for z in zs
    ]
    plan = only(events)
    assert plan.names == ("A", "B", "C")
    assert plan.z_ranges == ((0, 6), (2, 4), (0, 1))
    assert plan.every == (1, 2, 4)
    assert plan.index({"time": 0, "channel": "C"}) == (0, 2, 0)


def test_channels_without_a_rhythm_announce_none() -> None:
    events = [{"axes": {"time": t, "channel": c, "z": z}, "z": z} for t, c in enumerate("AABA") for z in (0, 1)]
    assert only(events).every == ()


def test_numbered_channels_are_named_by_their_presets() -> None:
    events = [
        {"axes": {"channel": c, "z": z}, "z": z, "config_group": ["Channel", ("DAPI", "GFP")[c]]}
        for c in range(2)
        for z in range(2)
    ]
    assert only(events).names == ("DAPI", "GFP")


def test_labels_and_tiles_are_numbered_as_they_come() -> None:
    places = Places()
    axes = [{"position": p, "row": r, "column": c} for p in ("B2", "A1") for r in (-1, 0) for c in (5, 6)]
    assert [places.of(a) for a in axes] == [(p, g) for p in range(2) for g in range(4)]
    assert places.of({"position": "B2", "row": 0, "column": 5}) == (0, 2)


def test_positions_without_a_stack_are_left_out() -> None:
    events = [{"axes": {"position": 0}}] + [{"axes": {"position": 1, "z": z}, "z": z} for z in (0, 1)]
    assert list(plans(events, Places())) == [(1, 0)]


def test_a_z_step_that_the_events_do_not_tell() -> None:
    events = [{"axes": {"z": z}, "stage_positions": [["Piezo", z]]} for z in range(4)]
    with pytest.raises(ValueError, match="give z_step_um"):
        plans(events, Places())
    assert only(events, z_step_um=0.7).z_step_um == 0.7


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([{"axes": {"time": 0}}], "less than 2 z positions"),
        ([{"axes": {"z": i}, "z": z} for i, z in enumerate((0, 1, 3))], "lie 1 to 2 µm apart"),
        ([{"axes": {"z": 0, "angle": 90}, "z": 0}], "'angle'"),
        ([{"axes": {"z": 0, "position": -1}, "z": 0}], "position is -1"),
    ],
)
def test_events_that_are_no_stack(events: list[dict], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plans(events, Places())
