"""Classical restoration on the isotropic grid: exact places, and no plane needed that never came."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels import gaussian
from scipy.ndimage import gaussian_filter1d
from volumes import everywhere, sample, whole

from otf_stream.acquisition import VoxelSize, isotropic_depth
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import Grid, interpolate, interpolated, richardson_lucy


@pytest.mark.parametrize(
    ("planes", "step", "depth"), [(26, 2.5, 63), (32, 4.0, 125), (25, 1.103, 27), (1, 4.0, 1), (5, 0.5, 3)]
)
def test_the_grid_starts_where_the_planes_start(planes, step, depth):
    assert isotropic_depth(planes, VoxelSize(z=step, y=1, x=1)) == depth
    raw = torch.arange(planes, dtype=torch.float32)[:, None, None].expand(planes, 2, 3) * step
    volume = interpolated(Grid(range(planes), step, depth), raw)
    torch.testing.assert_close(volume[:, 1, 2], torch.arange(depth, dtype=torch.float32), atol=1e-3, rtol=0)


@given(
    there=st.sets(st.integers(0, 39), min_size=1),
    step=st.floats(0.3, 9),
    ends=st.tuples(st.integers(-30, 400), st.integers(-30, 400)),
    multiple=st.sampled_from([1, 4, 8]),
    first=st.integers(0, 5),
)
def test_a_part_has_the_planes_on_either_side_at_their_places(there, step, ends, multiple, first):
    start = int(np.ceil(first * step))
    depth = isotropic_depth(46, VoxelSize(z=step, y=1, x=1)) - start
    grid = Grid([first + z for z in sorted(there)], step, depth, start)
    one, other = sorted(min(end, depth - 1) for end in ends)
    inner, part = grid.part(one, other, multiple)
    begin = part.start - grid.start
    assert begin % multiple == 0
    assert 0 <= begin <= begin + part.depth <= depth
    places = np.array([z * step - start for z in grid.planes])
    kept = places[inner]
    np.testing.assert_allclose(part.positions(torch.device("cpu")), kept - begin, atol=1e-3)
    # What lies beyond is told by planes between it and what is wanted.
    assert begin <= max(one, 0)
    assert kept[0] <= max(one, places[0]) or (places[places >= 0][:1] == kept[0]).all()
    assert kept[-1] >= min(other, places[-1])
    assert begin + part.depth > min(other, depth - 1) or kept[-1] >= other


def test_richardson_lucy_sharpens_and_keeps_the_light():
    truth = sample(61, 16)
    imaged = torch.from_numpy(gaussian_filter1d(truth.numpy(), 2.0, axis=0)[::4].copy())
    grid = Grid(range(16), 4.0, 61)
    errors = [
        float((whole(method, imaged) - truth).square().mean())
        for method in (interpolate(grid), richardson_lucy(grid, gaussian(2.0), 100.0))
    ]
    assert errors[1] < 0.8 * errors[0]
    volume = whole(richardson_lucy(grid, gaussian(2.0), 100.0), imaged)
    assert float((volume - 100).sum() / (interpolated(grid, imaged) - 100).sum()) == pytest.approx(1, abs=0.03)


def test_fidelity_is_one_for_the_truth_and_tells_of_lost_light():
    rng = np.random.default_rng(0)
    truth = sample(61, 64)
    grid = Grid(range(16), 4.0, 61)
    noise = NoiseModel(2.0, 100.0, 4.0)
    expected = (grid.imaging(gaussian(2.0), torch.device("cpu")) @ truth.flatten(1)).reshape(16, 64, 64)
    raw = (
        expected + torch.from_numpy(rng.normal(size=(16, 64, 64)).astype(np.float32)) * noise.variance(expected).sqrt()
    )
    honest, dim = (Fidelity(grid, noise, gaussian(2.0)) for _ in range(2))
    for half in (slice(0, 32), slice(32, 64)):
        honest.add(raw[:, half], truth[:, half], everywhere(raw[:, half]))
        dim.add(raw[:, half], (truth[:, half] - 100) * 0.7 + 100, everywhere(raw[:, half]))
    assert honest.residual == pytest.approx(1, abs=0.02)
    assert honest.flux_ratio == pytest.approx(1, abs=0.03)
    assert dim.residual > 1.5
    assert dim.flux_ratio == pytest.approx(0.7, abs=0.03)
