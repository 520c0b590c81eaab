"""Regions cover the field of view, and are cut where memory is short."""

import numpy as np
import pytest

from otf_stream.restore.regions import Region, blocks, split_further, split_into_regions


def covered(regions):
    seen = np.zeros((700, 1300), int)
    for region in regions:
        seen[region.y, region.x] += 1
        assert region.y.start % 256 == region.x.start % 256 == 0
        assert (region.height, region.width) == (700, 1300)
    return seen


def test_regions_cover_the_field_of_view_once():
    regions = list(split_into_regions(500, 700, 1300, block=256))
    assert (covered(regions) == 1).all()
    assert len(regions) > 1
    assert sum(region.share for region in regions) == pytest.approx(1)
    assert [region.is_first for region in regions] == [True] + [False] * (len(regions) - 1)
    assert (covered(small for region in regions for small in split_further(region, block=256)) == 1).all()
    single = list(blocks(Region(slice(0, 700), slice(0, 1300), 700, 1300), block=256))
    assert (covered(single) == 1).all()
    assert len(single) == 3 * 6


def test_a_small_stack_is_one_region_and_no_region_is_larger_than_the_memory():
    (whole,) = split_into_regions(125, 512, 512, block=256)
    assert whole.is_whole
    assert whole.grown(y=48, x=48) == whole
    for region in split_into_regions(125, 4096, 4096, block=256):
        assert 125 * (region.y.stop - region.y.start) * (region.x.stop - region.x.start) <= 2**27
        assert not region.is_whole


def test_a_halo_ends_with_the_field_of_view():
    region = Region(slice(0, 256), slice(256, 512), 600, 520)
    grown = region.grown(y=50, x=50)
    assert (grown.y, grown.x) == (slice(0, 306), slice(206, 520))
    assert region.grown(x=50).y == region.y
