"""The pool keeps within its bound, keeps every plane equally likely, and cuts true patches."""

import pytest
import torch

from otf_stream.learn.planes import PlanePool, random_patches, random_window, random_windows


def pool_of(planes, smallest=8, capacity=10**6):
    pool = PlanePool(torch.device("cpu"), smallest=smallest, capacity=capacity)
    pool.add(planes, torch.Generator().manual_seed(0))
    return pool


def test_patches_are_pieces_of_planes_mirrored_and_turned():
    plane = torch.arange(20 * 30, dtype=torch.float32).reshape(1, 1, 20, 30)
    pool = pool_of(plane)
    patches = pool.patches(64, 6, 4, torch.Generator().manual_seed(1))
    assert patches.shape == (64, 1, 6, 4)
    steps = set()
    for patch in patches[:, 0]:
        down, right = float(patch[1, 0] - patch[0, 0]), float(patch[0, 1] - patch[0, 0])
        steps.add((down, right))
        torch.testing.assert_close(patch.diff(dim=0), torch.full((5, 4), down))
        torch.testing.assert_close(patch.diff(dim=1), torch.full((6, 3), right))
    assert steps == {(a, b) for a in (30, -30) for b in (1, -1)} | {(b, a) for a in (30, -30) for b in (1, -1)}


@pytest.mark.parametrize("expected", [0, 3, 20])
def test_the_pool_is_bounded_and_fair(expected):
    counts = torch.zeros(20)
    for seed in range(200):
        pool = PlanePool(torch.device("cpu"), smallest=8, capacity=5 * 64, expected=expected)
        generator = torch.Generator().manual_seed(seed)
        for k in range(20):
            pool.add(torch.full((1, 1, 8, 8), float(k)), generator)
        assert len(pool) == 5
        counts[pool.planes[:, 0, 0, 0].long()] += 1
    assert counts.min() > 25  # 50 expected; the first planes are as likely to stay as the last
    assert counts.max() < 80


def test_there_is_room_for_planes_that_are_expected_and_for_more():
    pool = PlanePool(torch.device("cpu"), smallest=8, expected=4)
    then = []
    for k in range(6):
        pool.add(torch.full((1, 1, 8, 8), float(k)), torch.Generator())
        then.append(pool.planes)
        assert pool.planes[:, 0, 0, 0].tolist() == list(range(k + 1))
    assert len({planes.data_ptr() for planes in then}) == 3  # it moved for the fifth and for the sixth


@pytest.mark.parametrize("side", [1, 3, 8, 20])
def test_small_planes_are_mirrored_until_patches_fit(side):
    pool = pool_of(torch.rand(2, 1, side, 20), smallest=24)
    assert pool.patches(3, 24, 24, torch.Generator().manual_seed(0)).shape == (3, 1, 24, 24)


def test_an_empty_pool_says_so():
    with pytest.raises(ValueError, match="no plane"):
        _ = PlanePool(torch.device("cpu"), smallest=8).planes


def test_axes_that_mean_different_things_are_not_exchanged():
    sections = torch.arange(9, dtype=torch.float32)[None, None, :, None].expand(2, 3, 9, 40).contiguous()
    patches = random_patches(sections, 16, 8, 32, torch.Generator().manual_seed(0), turned=False)
    assert patches.shape == (16, 3, 8, 32)
    assert (patches.diff(dim=3) == 0).all()
    assert (patches.diff(dim=2).abs() == 1).all()


def test_channels_stay_together():
    planes = torch.rand(4, 1, 30, 30, generator=torch.Generator().manual_seed(0)).expand(4, 2, 30, 30)
    patches = random_patches(planes * torch.tensor([1.0, 2.0])[:, None, None], 8, 16, 16, torch.Generator())
    torch.testing.assert_close(patches[:, 1], 2 * patches[:, 0])


def test_windows_say_which_axis_their_rows_run_along():
    along_y = torch.arange(30.0).expand(2, 1, 30, 30).mT
    windows = random_windows(along_y, 32, 8, 12, torch.Generator().manual_seed(0))
    patches = windows.of(along_y)[:, 0]
    turned = windows.turned[:, 0, 0]
    assert 4 < int(turned.sum()) < 28
    assert (patches[~turned].diff(dim=1).abs() == 1).all()
    assert (patches[turned].diff(dim=2).abs() == 1).all()


def test_a_window_lies_anywhere_in_a_plane_and_where_all_fits_nothing_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert random_window(30, 20, 30, generator) == (slice(0, 30), slice(0, 20))
    assert torch.equal(generator.get_state(), before)
    drawn = [random_window(40, 20, 30, generator) for _ in range(200)]
    assert all(x == slice(0, 20) for _, x in drawn)
    assert {y.start for y, _ in drawn} == set(range(11))
    assert all(y.stop - y.start == 30 for y, _ in drawn)
