"""The demo's own files, and nobody else's."""

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from otf_stream.demo import DemoError, draw_slices, run_demo

QUIET = Console(quiet=True)


def test_an_earlier_demo_is_kept_unless_told(tmp_path):
    (tmp_path / "truth.tif").touch()
    with pytest.raises(FileExistsError, match="--overwrite"):
        run_demo(tmp_path, overwrite=False, seed=0, console=QUIET)


def test_a_folder_with_other_files_is_never_deleted(tmp_path):
    for name in ("truth.tif", "thesis.txt"):
        (tmp_path / name).touch()
    with pytest.raises(DemoError, match=r"thesis\.txt"):
        run_demo(tmp_path, overwrite=True, seed=0, console=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt", "truth.tif"]


def test_the_picture_shows_three_slices(tmp_path):
    volume = np.random.default_rng(0).normal(100, 10, (33, 40, 64)).astype(np.float32)
    draw_slices(tmp_path / "slices.png", volume, volume, volume)
    picture = imread(tmp_path / "slices.png")[..., :3]
    assert picture.shape[1] > 2 * picture.shape[0]
    thirds = np.array_split(picture, 3, axis=1)
    assert all(third.std() > 0.1 for third in thirds)
