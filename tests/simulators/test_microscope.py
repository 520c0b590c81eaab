import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otf_stream.acquisition import VoxelSize, isotropic_depth
from simulators.microscope import Camera, expected, image, planes_within
from simulators.phantom import phantom


def flat(level: float, depth: int = 9, side: int = 200) -> np.ndarray:
    return np.full((depth, side, side), level, np.float32)


def test_noise_is_that_of_the_camera() -> None:
    camera = Camera(photons=300, gain=2.5, offset=120, read_noise=3)
    for level in (0.1, 1.0):
        planes = image(flat(level), anisotropy=4, camera=camera, seed=0).astype(float)
        photons = 300 * level
        assert planes.mean() == pytest.approx(120 + 2.5 * photons, rel=5e-3)
        # Rounding adds 1/12.
        assert planes.var() == pytest.approx(2.5**2 * (photons + 3**2) + 1 / 12, rel=0.03)


def test_a_seed_gives_one_image() -> None:
    truth = flat(0.3, side=8)
    assert np.array_equal(image(truth, anisotropy=3, seed=1), image(truth, anisotropy=3, seed=1))
    assert not np.array_equal(image(truth, anisotropy=3, seed=1), image(truth, anisotropy=3, seed=2))


def test_grey_values_are_clipped() -> None:
    planes = image(flat(1.0, side=4), anisotropy=2, camera=Camera(photons=1e6), seed=0)
    assert planes.dtype == np.uint16
    assert (planes == 65535).all()


@given(
    depth=st.integers(1, 40),
    anisotropy=st.floats(1, 7),
    sigma=st.one_of(st.none(), st.floats(0.5, 5)),
)
def test_an_even_truth_stays_as_it_is(depth: int, anisotropy: float, sigma: float | None) -> None:
    planes = expected(flat(0.7, depth, side=2), anisotropy=anisotropy, axial_sigma=sigma)
    assert planes.shape == (planes_within(depth, anisotropy), 2, 2)
    assert np.allclose(planes, 0.7, rtol=1e-5)


def test_flux_is_kept() -> None:
    truth = phantom((61, 48, 48), seed=0)
    planes = expected(truth, anisotropy=4, axial_sigma=2)
    assert planes.mean() == pytest.approx(truth.mean(), rel=0.03)


@pytest.mark.parametrize("anisotropy", [2.0, 3.3, 4.75])
def test_planes_lie_where_they_should(anisotropy: float) -> None:
    # A point at voxel 20 is seen by plane k as a Gaussian of the plane's exact distance.
    truth = np.zeros((60, 1, 1), np.float32)
    truth[20] = 1
    sigma = 2.0
    seen = expected(truth, anisotropy=anisotropy, axial_sigma=sigma)[:, 0, 0]
    distance = anisotropy * np.arange(len(seen)) - 20
    truly = np.exp(-0.5 * (distance / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
    assert np.allclose(seen, truly, atol=1e-4)


def test_the_ends_mirror_the_truth() -> None:
    ramp = np.arange(30, dtype=np.float32)[:, None, None]
    extended = np.pad(ramp, ((16, 16), (0, 0), (0, 0)), mode="reflect")
    seen = expected(ramp, anisotropy=4, axial_sigma=2)
    assert np.allclose(seen, expected(extended, anisotropy=4, axial_sigma=2)[4 : 4 + len(seen)], atol=1e-4)


@given(planes=st.integers(1, 200), dz=st.floats(0.1, 3), dxy=st.floats(0.03, 0.1))
def test_the_isotropic_grid_is_that_of_the_planes(planes: int, dz: float, dxy: float) -> None:
    voxel_size = VoxelSize(z=dz, y=dxy, x=dxy)
    assert planes_within(isotropic_depth(planes, voxel_size), voxel_size.anisotropy) == planes


def test_blur_is_the_main_error_at_the_reference_setting() -> None:
    truth = phantom((61, 128, 128), seed=1)
    camera = Camera()
    clean = expected(truth, anisotropy=4)
    noisy = (image(truth, anisotropy=4, camera=camera, seed=0) - camera.offset) / (camera.gain * camera.photons)
    noise = np.mean((noisy - clean) ** 2)
    blur = np.mean((clean - truth[::4]) ** 2)
    assert blur > 2 * noise


@pytest.mark.parametrize(
    ("settings", "said"), [({"anisotropy": 0.5}, "anisotropy"), ({"anisotropy": 4, "axial_sigma": 0.2}, "axial_sigma")]
)
def test_optics_that_cannot_be(settings: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        expected(flat(1, side=2), **settings)


def test_a_camera_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="photons and gain"):
        Camera(photons=0)
