"""Which plane each page of a TIFF file is, as its metadata tell: OME-XML, Micro-Manager, ImageJ, or nothing at all.

Only the outermost axis of a file that is being written may be longer than announced. Pages that nobody describes are
the planes of one stack, in order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import tifffile

from otf_stream.acquire.watch.ifd import (
    DESCRIPTION,
    MICRO_MANAGER,
    X_RESOLUTION,
    Y_RESOLUTION,
    Directory,
    read_directory,
    read_header,
)
from otf_stream.acquire.watch.plane import Told
from otf_stream.acquisition import PlaneIndex
from otf_stream.store.formats.source import UNKNOWN, micrometres
from otf_stream.store.formats.tiff import imagej_spacing, ome_channels, ome_spacing


@dataclass(frozen=True)
class Pages:
    """The order of the pages of one file.

    Parameters
    ----------
    told
        What the metadata tell.
    order
        Axes other than Y and X, the fastest first.
    counted
        Whether planes may follow the first one without a page each: only writers that announce many do so.
    listed
        Pages of which the metadata tell one by one what they are.
    """

    told: Told = field(default_factory=lambda: Told(UNKNOWN))
    order: str = "Z"
    counted: bool = False
    listed: Mapping[int, PlaneIndex] = field(default_factory=dict)

    def plane(self, page: int) -> PlaneIndex:
        """Return which plane ``(t, c, z)`` a page is."""
        if page in self.listed:
            return self.listed[page]
        lengths = dict(zip("TCZ", self.told.sizes, strict=True))
        index = dict.fromkeys("TCZ", 0)
        for axis in self.order[:-1]:
            page, index[axis] = divmod(page, lengths[axis])
        index[self.order[-1]] = page
        return index["T"], index["C"], index["Z"]


def describe_pages(file: BinaryIO, first: Directory, path: Path, *, begun: bool) -> Pages | None:
    """Read from the first page of a file what its pages are.

    Parameters
    ----------
    file, path
        The file, and where it is.
    first
        Its first page.
    begun
        Whether the writer may be amid this page.

    Returns
    -------
    pages
        None if that is not told yet: there is room for a description, and nothing or not all of it in there.
    """
    text = first.text(DESCRIPTION)
    if MICRO_MANAGER in first.tags:
        return Pages(_summary_told(read_summary(file)))
    room = first.one(DESCRIPTION, b"")
    if isinstance(room, bytes) and len(room) > 1:
        torn = room.endswith(b"\0\0") and (begun or text[:1] in ("<", "{", "I"))  # XML, JSON, ImageJ
        if not text or torn or "\0" in text:
            return None
    if "<OME" in text[:2000]:
        return _ome(text, path)
    if text.startswith("ImageJ="):
        return _imagej(text, first)
    shaped = decoded(text)
    shape, axes = shaped.get("shape"), shaped.get("axes")
    if isinstance(shape, list) and isinstance(axes, str) and len(axes) == len(shape) and axes.endswith("YX"):
        return _ordered(axes[:-2][::-1], dict(zip(axes, shape, strict=True)), Told(UNKNOWN))
    if isinstance(shape, list) and len(shape) == 3:
        return Pages(Told(UNKNOWN, sizes=(1, 1, shape[0])), counted=True)
    return Pages()


def read_summary(file: BinaryIO) -> dict[str, Any]:
    """Read the summary that Micro-Manager writes at the head of a file; empty if it is not there."""
    try:
        summary = tifffile.tifffile.read_micromanager_metadata(file, keys={"Summary"}).get("Summary")
    except Exception:  # whatever is torn
        summary = None
    return summary if isinstance(summary, dict) else {}


def decoded(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one if the text is none, or not whole yet."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _summary_told(summary: Mapping[str, Any]) -> Told:
    pixel = micrometres(summary.get("PixelSize_um", summary.get("PixelSizeUm")), "um")
    names = summary.get("ChNames")
    interval = summary.get("Interval_ms")
    positions = summary.get("Positions")
    return Told(
        (micrometres(summary.get("z-step_um"), "um"), pixel, pixel),
        channels=tuple(map(str, names)) if isinstance(names, list) else (),
        positions=positions if isinstance(positions, int) and positions > 0 else None,
        interval_s=interval / 1000 if isinstance(interval, int | float) and interval > 0 else None,
    )


def summary_told(file: BinaryIO) -> Told:
    """Read what the head of a file of Micro-Manager tells of the acquisition."""
    return _summary_told(read_summary(file))


def _imagej(text: str, first: Directory) -> Pages:
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    number = {
        key: int(found[key]) for key in ("images", "channels", "slices", "frames") if found.get(key, "").isdigit()
    }
    images = number.get("images", 1)
    lengths = {"C": number.get("channels", 1), "Z": number.get("slices", 1), "T": number.get("frames", 1)}
    unit = found.get("unit", "").replace("\\u00B5", "µ")
    spacing = imagej_spacing({**found, "unit": unit}, (first.density(X_RESOLUTION), first.density(Y_RESOLUTION)))
    if lengths["C"] * lengths["Z"] * lengths["T"] != images:
        return Pages(Told(spacing, sizes=(1, 1, images)), counted=images > 1)
    return _ordered("CZT", lengths, Told(spacing))


def _ordered(order: str, lengths: Mapping[str, int], told: Told) -> Pages:
    """Take the axes in the order in which a file has them; unnamed ones are planes of the stack."""
    named = [axis if axis in "TCZ" else "Z" for axis in order if lengths[axis] > 1 or axis in "TCZ"]
    if len(set(named)) < len(named):
        return Pages(told)
    sizes = {axis: lengths[name] for axis, name in zip(named, [a for a in order if lengths[a] > 1 or a in "TCZ"])}  # noqa: B905
    t, c, z = (sizes.get(axis, 1) for axis in "TCZ")
    told = Told(told.spacing, (t, c, z), told.channels, interval_s=told.interval_s)
    return Pages(told, "".join(named) or "Z", t * c * z > 1)


def _ome(text: str, path: Path, *, again: bool = True) -> Pages:
    try:
        ome = tifffile.xml2dict(text)["OME"]
    except Exception:  # not whole, or no XML
        return Pages()
    elsewhere = ome.get("BinaryOnly", {}).get("MetadataFile") if isinstance(ome.get("BinaryOnly"), dict) else None
    if elsewhere and again:
        return _ome(_description(path.parent / Path(unquote(str(elsewhere))).name), path, again=False)
    pixels = _pixels(ome, path)
    try:
        lengths = {axis: int(pixels[f"Size{axis}"]) for axis in "TCZ"}
        order = str(pixels["DimensionOrder"])[2:]
    except (KeyError, ValueError):
        return Pages()
    if set(order) != set("TCZ") or min(lengths.values()) < 1:
        return Pages()
    # Axes of length 1 come last: one of them may be the one that grows. If all are, it is the stack's.
    order = "".join(sorted(order, key=lambda axis: lengths[axis] == 1)) if max(lengths.values()) > 1 else "CTZ"
    increment = pixels.get("TimeIncrement")
    unit = {"s": 1.0, "ms": 1e-3, "min": 60.0}.get(str(pixels.get("TimeIncrementUnit", "s")), 0.0)
    told = Told(
        ome_spacing(pixels),
        (lengths["T"], lengths["C"], lengths["Z"]),
        ome_channels(pixels),
        interval_s=float(increment) * unit or None if isinstance(increment, int | float) else None,
    )
    return Pages(told, order, True, _listed(pixels, order, lengths))


def _description(path: Path) -> str:
    """Read the OME-XML of another file of the same acquisition."""
    try:
        if re.search(r"\.tiff?$", path.name, re.IGNORECASE):
            with path.open("rb") as file:
                header = read_header(file)
                first = read_directory(file, header, header.first) if header else None
                return first.text(DESCRIPTION) if first else ""
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def _pixels(ome: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the image of a file: the one whose pixels are said to be in it, or the first."""
    found: list[dict[str, Any]] = [image.get("Pixels", {}) for image in _several(ome.get("Image")) if "Pixels" in image]
    for pixels in found:
        for block in _several(pixels.get("TiffData")):
            uuid = block.get("UUID")
            if isinstance(uuid, dict) and uuid.get("FileName") == path.name:
                return pixels
    return found[0] if found else {}


def _listed(pixels: Mapping[str, Any], order: str, lengths: Mapping[str, int]) -> dict[int, PlaneIndex]:
    """Pages that are told one by one; none if a single entry tells of all, in order."""
    blocks = _several(pixels.get("TiffData"))
    if len(blocks) < 2:
        return {}
    listed: dict[int, PlaneIndex] = {}
    for number, block in enumerate(blocks):
        if block.get("PlaneCount", 1) == 1:
            first = {axis: int(block.get(f"First{axis}", 0)) for axis in "TCZ"}
            listed[int(block.get("IFD", number))] = (first["T"], first["C"], first["Z"])
    return listed


def _several(found: Any) -> list[dict[str, Any]]:
    return [item for item in (found if isinstance(found, list) else [found]) if isinstance(item, dict)]
