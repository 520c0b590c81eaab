"""The report as a browser would read it."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from stacks import small_stack, write

from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.report.page import _training, write_report
from otf_stream.report.pictures import draw_views
from otf_stream.report.sharpness import interpolated, measure_sharpness
from otf_stream.store.session import SessionStore


class Elements(HTMLParser):
    """Collects elements and text, and sees that they are closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self._open = [], "", []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "path", "use", "rect", "link"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "rect"):
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for found, attributes in self.found if found == tag]


def test_a_report_lies_beside_the_store_and_needs_nothing_else(restored):
    page = write_report(restored, (0, 0))
    assert page == restored.with_name("cells.report.t0-c0.html")
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    assert not elements.all("script")
    assert not elements.all("link")
    references = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", text)
    assert {reference.split(":")[0].split("-")[0].lstrip("#") for reference in references} <= {
        "data", "timeline", "loss", "profile",
    }  # fmt: skip
    assert not list(restored.parent.glob("*.partial"))


def test_names_from_outside_are_text_and_not_markup(restored):
    text = write_report(restored, (0, 0)).read_text(encoding="utf-8")
    assert "<b>GFP" not in text
    assert "&lt;b&gt;GFP &amp; co" in text


def test_it_tells_what_the_store_and_the_journal_do(restored):
    elements = Elements(write_report(restored, (0, 0)).read_text(encoding="utf-8"))
    text = " ".join(elements.text.split())
    for told in (
        "9 of 10",
        "missing: z 4",
        "Restored by interpolation",
        "1 of 10 planes never came",
        "gain",
        "axial width",
    ):
        assert told in text
    labels = [attributes.get("aria-label", "") for attributes in elements.all("div")]
    assert any("finetune from 0.5 to 0.25 in 9 steps" in label for label in labels)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_raw_and_restored_are_shown_at_the_same_place_size_and_contrast(restored):
    with_store = SessionStore.open(restored)
    views = draw_views(restored, with_store.acquisition, (0, 0), range(10), restored=True)
    with_store.close()
    assert [view.axis for view in views] == ["xy", "xz", "yz"]
    for view in views:
        raw, after = view.pictures
        assert raw.width_um == pytest.approx(after.width_um, rel=0.05)
        assert raw.height_um == pytest.approx(after.height_um, rel=0.2)  # a plane is as thick as the z step
        assert 0 < raw.bar_percent <= 30
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(p.uri.split(",")[1])))) for p in views[0].pictures]
    np.testing.assert_array_equal(*pixels)  # where there is a plane, interpolating gives that plane


def test_every_picture_is_described(restored):
    elements = Elements(write_report(restored, (0, 0)).read_text(encoding="utf-8"))
    assert len(elements.all("img")) == 6
    assert all("scale bar" in image["alt"] for image in elements.all("img"))
    assert all(drawing["aria-hidden"] == "true" for drawing in elements.all("svg"))


def test_interpolating_changes_no_sharpness(restored):
    store = SessionStore.open(restored)
    sharp = measure_sharpness(store, (0, 0), store.journal.planes_of((0, 0)))
    store.close()
    assert sharp is not None
    assert sharp.after.lateral == pytest.approx(sharp.before.lateral, rel=0.05)


def test_interpolation_is_linear_between_planes_that_there_are():
    planes = np.array([0, 4, 8], np.float32)[:, None, None]
    np.testing.assert_allclose(
        interpolated(planes, [0, 2, 8], range(9))[:, 0, 0], [0, 2, 4, 14 / 3, 16 / 3, 6, 20 / 3, 22 / 3, 8], rtol=1e-5
    )


def test_a_stack_that_is_not_restored_yet_has_a_report_of_what_there_is(tmp_path):
    acquisition = Acquisition(
        name="young", sizes=Sizes(z=10, y=72, x=72), dtype="uint16", voxel_size=VoxelSize(z=0.8, y=0.2, x=0.2)
    )
    store = SessionStore.create(tmp_path / "young.ome.zarr", acquisition, session="s")
    with pytest.raises(ValueError, match="no plane"):
        write_report(store.path, (0, 0))
    with pytest.raises(ValueError, match="no stack"):
        write_report(store.path, (0, 1))
    write(store, [((0, 0, z), plane) for z, plane in enumerate(small_stack()[:3])])
    store.close()
    elements = Elements(write_report(store.path, (0, 0)).read_text(encoding="utf-8"))
    assert "Not restored (arriving)" in " ".join(elements.text.split())
    assert len(elements.all("img")) == 3


def test_a_network_that_did_not_train_has_no_loss():
    training = {"denoiser_steps": 0, "steps": 0, "final_loss": 0.0, "parameters": 3, "weights_sha256": "0" * 64}
    told = {fact.name: fact.value for fact in _training({"training": training})}
    assert told["last loss"] == "–"
    told = {fact.name: fact.value for fact in _training({"training": training | {"steps": 2, "final_loss": 0.25}})}
    assert told["last loss"] == "0.25"
