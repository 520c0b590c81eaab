import pytest

from otf_stream.report.history import history
from otf_stream.store.journal import Event, PlaneRecord

RECORDS = [PlaneRecord((0, 0, z), 0, 100.0 + z, 50.0 + z) for z in range(5)]


def test_times_count_from_the_first_plane_and_exposures_from_the_first_exposure():
    told = history(RECORDS, [], 110.0)
    assert told.began == 100
    assert told.arrived == (0, 1, 2, 3, 4)
    assert told.taken == (0, 1, 2, 3, 4)


def test_exposures_are_told_only_where_all_are_known():
    assert history([*RECORDS, PlaneRecord((0, 0, 5), 0, 106.0)], [], 110.0).taken == ()


def test_a_stage_lasts_until_the_next_and_none_after_the_volume_is_there():
    events = [
        Event(101, "stage", {"stage": "denoise"}),
        Event(103, "stage", {"stage": "restore"}),
        Event(107, "restored", {"method": "finetune"}),
        Event(107, "stage", {"stage": "restored"}),
    ]
    spans = [(span.stage, span.start, span.stop) for span in history(RECORDS, events, 120.0).spans]
    assert spans == [("denoise", 1, 3), ("restore", 3, 7)]


def test_a_stage_that_has_not_ended_lasts_until_now():
    (span,) = history(RECORDS, [Event(101, "stage", {"stage": "denoise"})], 120.0).spans
    assert (span.start, span.stop) == (1, 20)


def test_a_curve_that_was_begun_anew_is_told_from_there():
    steps = [(1, 0.9), (5, 0.7), (2, 0.8), (4, 0.6)]
    events = [Event(101 + i, "training", {"stage": "denoise", "steps": s, "loss": v}) for i, (s, v) in enumerate(steps)]
    (curve,) = history(RECORDS, events, 120.0).curves
    assert curve.steps == (2, 4)
    assert curve.losses == (0.8, 0.6)


def test_decisions_come_with_reason_and_figures_and_failures_with_their_last_line():
    events = [
        Event(101, "decision", {"decision": "learn", "reason": "there is time", "to_spare_s": 12.3456}),
        Event(102, "failure", {"trace": "Traceback …\nValueError: why\n"}),
        Event(103, "training", {"stage": "examined", "gain_db": 1.5}),
    ]
    told = history(RECORDS, events, 120.0)
    learn, failure = told.happenings
    assert (learn.what, learn.why, learn.figures) == ("learn", "there is time", "to_spare_s 12.35")
    assert failure.why == "ValueError: why"
    assert told.gains == ((pytest.approx(3), 1.5),)
