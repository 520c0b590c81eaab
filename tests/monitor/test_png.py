"""What is drawn is what a browser sees: read back by another library, bit for bit."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from otf_stream.monitor.png import grey_png


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 255)))
def test_a_picture_is_read_back_as_it_was(pixels):
    with Image.open(io.BytesIO(grey_png(pixels))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(picture), pixels)


def test_a_camera_s_noise_takes_less_than_a_library_makes_of_it():
    pixels = np.random.default_rng(0).poisson(100, (512, 512)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    assert len(grey_png(pixels)) < len(file.getvalue())
