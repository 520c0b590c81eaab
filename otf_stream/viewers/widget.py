"""A widget of napari that follows a running session: it looks at the store once a second, and nobody tells it anything.

When planes or blocks of the volume have landed, the layers of the session are read anew. The volume appears as soon as
there is anything of it; what the user then hides, moves or stretches is left as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QLabel, QVBoxLayout, QWidget

from otf_stream.viewers.following import Follower, Seen
from otf_stream.viewers.layers import IMAGES, OWN, read_contrast, read_data, read_layers

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

_INTERVAL = 1000  # ms


class FollowWidget(QWidget):  # type: ignore[misc,unused-ignore]
    """Follows the sessions whose layers are open.

    Parameters
    ----------
    napari_viewer
        The viewer; napari gives it by this name.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._followers: dict[str, Follower] = {}
        self._seen: dict[str, Seen] = {}
        self._contrast: dict[int, tuple[float, float]] = {}
        self._offered: dict[str, set[tuple[str, int]]] = {}
        self._newest = QCheckBox("Go to the newest plane")
        self._newest.setToolTip("Move the sliders to each plane as it lands")
        self._newest.setChecked(True)
        self._told = QLabel()
        self._told.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addWidget(self._newest)
        layout.addWidget(self._told)
        layout.addStretch()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.look)
        self._timer.start(_INTERVAL)
        self.look()

    def look(self) -> None:
        """Look at every session that is open, and show what has changed."""
        layers = self._layers()
        for store in self._followers.keys() - layers.keys():
            del self._followers[store]
            self._seen.pop(store, None)
        for store, shown in layers.items():
            follower = self._followers.setdefault(store, Follower(Path(store)))
            if (seen := follower.look()) is not None:
                self._show(Path(store), shown, self._seen.get(store), seen)
                self._seen[store] = seen
        self._told.setText(self._text(layers.keys()))

    def _layers(self) -> dict[str, list[Image]]:
        """Return the layers of each session that is open."""
        found: dict[str, list[Image]] = {}
        for layer in self._viewer.layers:
            if own := layer.metadata.get(OWN):
                found.setdefault(own["store"], []).append(layer)
        return found

    def _show(self, store: Path, layers: list[Image], before: Seen | None, now: Seen) -> None:
        self._add_missing(store, layers, now.shape[1])
        for layer in layers:
            image, channel = layer.metadata[OWN]["image"], layer.metadata[OWN]["channel"]
            if before is not None and before.shape != now.shape:
                levels = read_data(store, image, channel)
                layer.data = levels if layer.multiscale else levels[0]
            self._stretch(layer, read_contrast(store, image, channel))
            if before is not None and now.content and not before.content:
                layer.visible = image == "restored"
            layer.refresh()
        if self._newest.isChecked() and now.newest and not now.over:
            self._go_to(layers, now.newest)

    def _add_missing(self, store: Path, layers: list[Image], channels: int) -> None:
        """Add the layers of images and channels that were not there before; once, since a user may remove them."""
        offered = self._offered.setdefault(str(store), set())
        offered |= {(layer.metadata[OWN]["image"], layer.metadata[OWN]["channel"]) for layer in layers}
        images = [image for image in IMAGES if (store / image).is_dir()]
        if all((image, channel) in offered for image in images for channel in range(channels)):
            return
        from napari.layers import Layer

        for data, attributes, kind in read_layers(store):
            own = attributes["metadata"][OWN]
            if (own["image"], own["channel"]) not in offered:
                offered.add((own["image"], own["channel"]))
                self._viewer.add_layer(Layer.create(data, attributes, kind))

    def _stretch(self, layer: Image, contrast: tuple[float, float] | None) -> None:
        """Show a layer at the store's contrast, unless the user has chosen another."""
        chosen = tuple(float(end) for end in layer.contrast_limits)
        known = self._contrast.get(id(layer), chosen)
        if contrast and chosen == known and contrast[1] > contrast[0]:
            layer.contrast_limits = contrast
            self._contrast[id(layer)] = contrast

    def _go_to(self, layers: list[Image], newest: tuple[int, int, int]) -> None:
        t, _, z = newest
        raw: Any = next((layer for layer in layers if layer.metadata[OWN]["image"] == "raw"), None)
        if raw is not None:
            place = raw.data_to_world((t, z, 0, 0))
            self._viewer.dims.set_point((0, 1), (place[0], place[1]))

    def _text(self, stores: Any) -> str:
        if not stores:
            return "No session is open: drag a NAME.ome.zarr into the window."
        parts = []
        for store in stores:
            told = self._seen.get(store)
            there = self._followers[store].has_journal
            said = told.as_text() if told else "reading" if there else "its journal is not beside it: not followed"
            parts.append(f"{Path(store).name}\n{said}")
        return "\n\n".join(parts)
