"""Opens a session store in napari, with the widget that follows it beside it."""

from __future__ import annotations

from pathlib import Path

import napari

from otf_stream.viewers.layers import read_layers
from otf_stream.viewers.widget import FollowWidget


def open_in_napari(path: Path) -> napari.Viewer:
    """Open a viewer on a session store; `napari.run` shows it."""
    viewer = napari.Viewer(title=path.name)
    for data, attributes, kind in read_layers(path):
        viewer.add_layer(napari.layers.Layer.create(data, attributes, kind))
    # Added by hand rather than through the plugin, so that it works where the plugin is not registered.
    viewer.window.add_dock_widget(FollowWidget(viewer), name="Follow a session", area="right")
    bar = viewer.canvas.overlays.scale_bar if hasattr(viewer, "canvas") else viewer.scale_bar  # before napari 0.9
    bar.visible = True
    return viewer
