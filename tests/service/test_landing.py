"""Regions land whatever stands in their way: too little memory, or a disk that fails once."""

import numpy as np
import pytest
import torch
from stacks import small_stack

from otf_stream.learn.compute import choose_compute
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import interpolate
from otf_stream.restore.regions import Method
from otf_stream.restore.turns import Turn
from otf_stream.service.landing import landing, writing
from otf_stream.service.source import StackSource
from otf_stream.store.restored import RestoredWriter, read_restored

CPU = choose_compute("cpu")


def land(store, method, room=None, told=lambda stage, share: None):
    source = StackSource(store, (0, 0))
    grid = source.grid()
    writer = RestoredWriter.create(store, dtype="uint16")
    fidelity = Fidelity(grid, NoiseModel(1.0, 100.0, 1.0), torch.ones(1))
    room = room or (lambda write: writing(store.journal, write, patient=False))
    turns = list(landing(source, grid, method, fidelity, writer, CPU, told, room))
    return read_restored(store.path, (0, 0)), fidelity, turns


def wide_stack():
    return np.tile(small_stack(planes=6, side=100), (1, 6, 8))  # 600 × 800 pixels


def starved(grid, most, error):
    """Interpolate, in a memory of so many pixels."""
    inner = interpolate(grid)
    seen = []

    def restore(raw, region):
        if raw[0].numel() > most:
            raise error
        seen.append(raw.shape)
        return inner.restore(raw, region)

    return Method("starved", restore), seen


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory")]
)
def test_what_is_too_large_for_the_memory_is_cut(session, error):
    stack = wide_stack()
    whole, expected = land(session({(0, 0): stack}, name="whole"), interpolate(_grid(session, stack)))[:2]
    store = session({(0, 0): stack}, name="cut")
    method, seen = starved(StackSource(store, (0, 0)).grid(), 256 * 256, error)
    shares = []
    volume, fidelity, _ = land(store, method, told=lambda stage, share: shares.append(share))
    np.testing.assert_array_equal(volume, whole)
    assert len(seen) == 3 * 4
    assert fidelity.flux_ratio == pytest.approx(expected.flux_ratio)
    assert max(shares) < 1
    assert shares == sorted(shares)


def _grid(session, stack):
    return StackSource(session({(0, 0): stack}, name="grid"), (0, 0)).grid()


def test_where_not_even_a_block_fits_the_error_is_told(session):
    store = session({(0, 0): wide_stack()})
    method, _ = starved(StackSource(store, (0, 0)).grid(), 100, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        land(store, method)


def test_an_error_of_another_kind_is_not_taken_for_want_of_memory(session):
    store = session({(0, 0): wide_stack()})
    method, seen = starved(StackSource(store, (0, 0)).grid(), 100, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        land(store, method)
    assert seen == []


def test_other_stacks_may_have_the_device_between_two_regions(session):
    store = session({(0, 0): wide_stack()})
    method, seen = starved(StackSource(store, (0, 0)).grid(), 256 * 256, MemoryError())
    _, _, turns = land(store, method)
    assert turns.count(Turn.READY) >= len(seen)


def test_a_region_that_could_not_be_written_is_written_again(session, monkeypatch):
    stack = wide_stack()
    store = session({(0, 0): stack})
    write, failed = RestoredWriter.write, []

    def fail_once(self, index, region, volume):
        if region not in failed:
            failed.append(region)
            raise OSError(28, "No space left on device")
        write(self, index, region, volume)

    monkeypatch.setattr(RestoredWriter, "write", fail_once)
    monkeypatch.setattr("otf_stream.service.landing._ROOM_POLL", 0.0)
    volume, _, _ = land(
        store, interpolate(StackSource(store, (0, 0)).grid()), room=lambda w: writing(store.journal, w, patient=True)
    )
    assert failed
    assert (volume.reshape(21, -1).max(axis=1) > 0).all()
    assert (volume[:, -50:, -50:] > 0).any()
