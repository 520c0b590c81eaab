"""The report of one stack: a single HTML page that needs neither network nor service, and can be mailed or printed.

It can be made at any moment: of a stack that is not restored yet it shows what there is. What it says comes from the
store and the journal alone. Names come from outside, so everything is escaped by the template but the charts, which
escape what they draw.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from otf_stream import __version__
from otf_stream.acquisition import StackIndex
from otf_stream.config import method_name
from otf_stream.optics.noise import NoiseModel
from otf_stream.report.charts import loss_curves, profile, timeline
from otf_stream.report.history import History, history
from otf_stream.report.pictures import View, draw_profile, draw_views
from otf_stream.report.sharpness import Sharpness, measure_sharpness
from otf_stream.store.reports import report_path
from otf_stream.store.restored import read_provenance
from otf_stream.store.session import SessionStore

_MOST_STACKS = 60  # other stacks that are listed


@dataclass(frozen=True)
class Fact:
    """A row of a table: a name, a value, and what it means."""

    name: str
    value: str
    meaning: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart, and what it shows in words."""

    svg: Markup
    words: str


def write_report(path: Path, stack: StackIndex, *, out: Path | None = None) -> Path:
    """Write the report of a stack; readers meet the old one or the new one, both whole.

    Parameters
    ----------
    path
        Of the session store.
    stack
        ``(t, c)``.
    out
        Where to; beside the store if None.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    ValueError
        If there is no such stack, or no plane of it has come.
    OSError
        If there is no such store, or the page cannot be written.
    """
    page = out or report_path(path, stack)
    text = render(path, stack)
    partial = page.with_name(page.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, page)  # noqa: PTH105 - as everywhere, but of a file that may be given
    return page


def render(path: Path, stack: StackIndex) -> str:
    """Return the page; raises as `write_report` does."""
    with closing(SessionStore.open(path)) as store:
        journal, acquisition = store.journal, store.acquisition
        if not acquisition.holds((*stack, 0)):
            raise ValueError(f"{path.name} has no stack t={stack[0]}, c={stack[1]}")
        records = journal.records_of(stack)
        if not records:
            raise ValueError(f"no plane of stack t={stack[0]}, c={stack[1]} has come to {path.name} yet")
        planes = [record.plane[2] for record in records]
        told = history(records, journal.events_of(stack), time.time())
        provenances = read_provenance(path) if (path / "restored" / "zarr.json").is_file() else {}
        said = provenances.get("t{}c{}".format(*stack))
        done = said is not None and not said.get("preview")
        extent = list(acquisition.planes_of(stack[1])) if not acquisition.growing else list(range(planes[-1] + 1))
        views = draw_views(path, acquisition, stack, planes, restored=done)
        noise = NoiseModel(**said["noise"]) if said and done else None
        sharp = measure_sharpness(store, stack, planes, noise) if done else None
        lines = draw_profile(path, acquisition, stack, planes) if done else None
        timing = said.get("timing", {}) if said and done else {}
        deadline, restored = (timing[key] - told.began if key in timing else None for key in ("deadline", "restored"))
        return _template().render(
            name=path.name,
            stack=stack,
            channel=acquisition.channel_names[stack[1]],
            acquisition=acquisition,
            state=journal.state(stack),
            began=_clock(told.began),
            made=_clock(time.time()),
            version=__version__,
            done=done,
            preview=bool(said and not done),
            said=said if done else None,
            expected=len(extent),
            received=len(planes),
            missing=_ranges(sorted(set(extent) - set(planes))),
            views=views,
            sharp=sharp,
            sharpness=_sharpness(sharp, acquisition.voxel_size.lateral) if sharp else [],
            voxel=acquisition.voxel_size,
            axial=_axial(sharp, acquisition.voxel_size.lateral),
            timeline=Chart(
                Markup(timeline(told, len(extent), deadline, restored)),  # noqa: S704
                _timeline_in_words(told, deadline, restored),
            ),
            profile=Markup(profile(lines, _lowest(views))) if lines else None,  # noqa: S704
            losses=Markup(loss_curves(told.curves)) if told.curves else None,  # noqa: S704
            told=told,
            noise=_noise(said) if said and done else [],
            blur=_blur(said, acquisition.voxel_size.lateral) if said and done else [],
            training=_training(said) if said and done else [],
            layers=_layers(said) if said and done else [],
            others=_others(provenances, stack),
            provenance=json.dumps(said, indent=2) if said else "",
        )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("otf_stream.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = _seconds
    environment.filters["method"] = method_name
    environment.filters["figure"] = _figure
    environment.filters["counts"] = _counts
    return environment.get_template("page.html.j2")


def _sharpness(sharp: Sharpness, lateral: float) -> list[tuple[str, str, str, str]]:
    """Rows of a table: what, before, after, and how many times better."""
    rows = []
    for name, before, after in (
        ("along z (axial)", sharp.before.axial, sharp.after.axial),
        ("across (lateral)", sharp.before.lateral, sharp.after.lateral),
    ):
        rows.append((name, _um(before * lateral), _um(after * lateral), _times(before / after)))
    one, other = sharp.before.anisotropy, sharp.after.anisotropy
    rows.append(("axial over lateral", _figure(one), _figure(other), _times(one / other)))
    return rows


def _axial(sharp: Sharpness | None, lateral: float) -> tuple[str, str] | None:
    if sharp is None or not (math.isfinite(sharp.before.axial) and math.isfinite(sharp.after.axial)):
        return None
    return f"{sharp.before.axial * lateral:.2g}", f"{sharp.after.axial * lateral:.2g} µm"


def _timeline_in_words(told: History, deadline: float | None, restored: float | None) -> str:
    words = [f"{len(told.arrived)} planes came within {_seconds(told.arrived[-1])}"]
    words += [f"{span.stage} from {_seconds(span.start)} to {_seconds(span.stop)}" for span in told.spans[:12]]
    if restored is not None:
        words.append(f"restored after {_seconds(restored)}")
    if deadline is not None:
        words.append(f"the deadline was at {_seconds(deadline)}")
    return "; ".join(words) + "."


def _lowest(views: Sequence[View]) -> float:
    return min(view.black for view in views)


def _noise(said: dict[str, Any]) -> list[Fact]:
    noise = said["noise"]
    grain = noise.get("grain", [0, 0])
    return [
        Fact("gain", f"{_figure(noise['gain'])} counts a photon", "slope of variance against brightness"),
        Fact("offset", f"{_figure(noise['offset'])} counts", "what the camera gives without light"),
        Fact("read noise", f"{_figure(noise['read_noise'])} counts", "standard deviation without light"),
        Fact("grain", " × ".join(map(_figure, grain)) + " pixels", "spread over neighbours, y × x; 0: none"),
    ]


def _blur(said: dict[str, Any], lateral: float) -> list[Fact]:
    blur = said["axial_blur"]
    return [
        Fact("axial width", _um(blur["width"] * lateral), "full width at half maximum of the sharp core along z"),
        Fact("lateral sigma", _um(blur["lateral_sigma"] * lateral), "standard deviation of the focus across z"),
        Fact(
            "blur to undo",
            _um(blur["beyond_lateral_sigma"] * lateral),
            "standard deviation of what blurs along z beyond what blurs across",
        ),
        Fact("family", f"× {1 / blur['spread']:.2f} to {blur['spread']:.2f}", "widths that the network was trained on"),
        Fact("light in the core", f"{blur['core_share']:.0%}", "the rest is haze, which was subtracted"),
        Fact("found", str(blur["origin"]), "where the point spread function comes from"),
    ]


def _training(said: dict[str, Any]) -> list[Fact]:
    training, trust = said.get("training"), said.get("trust")
    if not training:
        return []
    facts = [
        Fact("denoiser", f"{training['denoiser_steps']} steps", "on the noisy planes alone"),
        Fact("deblurring network", f"{training['steps']} steps", "on lateral crops, blurred along one axis"),
        Fact("last loss", f"{training['final_loss']:.3g}" if training["steps"] else "–", "mean of the last 20 steps"),
        Fact("parameters", f"{training['parameters']:,}", "of the deblurring network"),
        Fact(
            "started from",
            training.get("started_from") or "the pre-trained network",
            str(training["weights_sha256"])[:12],
        ),
    ]
    if trust:
        facts += [
            Fact(
                "gain of the network",
                f"{trust['network_gain_db']:+.2f} dB",
                f"over interpolation, on {_count(trust['held_out_planes'])} planes held out from training",
            ),
            Fact("gain of Richardson–Lucy", f"{trust['richardson_lucy_gain_db']:+.2f} dB", "on the same planes"),
        ]
    return facts


def _count(planes: Any) -> str:
    return str(len(planes)) if isinstance(planes, list | tuple) else str(planes)


def _layers(said: dict[str, Any]) -> list[str]:
    layers = (said.get("training") or {}).get("layers", [])
    return [layers] if isinstance(layers, str) else [str(layer) for layer in layers]


def _others(provenances: dict[str, Any], stack: StackIndex) -> list[tuple[str, dict[str, Any]]]:
    """Of a session with several stacks, the latest that are restored, this one among them."""
    done = [(key, told) for key, told in provenances.items() if not told.get("preview")]
    done.sort(key=lambda item: float(item[1].get("timing", {}).get("restored", 0)))
    own = "t{}c{}".format(*stack)
    return done[-_MOST_STACKS:] if len(done) > 1 or (done and done[0][0] != own) else []


def _ranges(planes: Sequence[int]) -> str:
    """Put indices in words: ``3, 7–9``."""
    parts: list[list[int]] = []
    for z in planes:
        if parts and z == parts[-1][1] + 1:
            parts[-1][1] = z
        else:
            parts.append([z, z])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in parts)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if abs(seconds) < 600 else f"{seconds / 60:.1f} min"


def _figure(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not known"


def _counts(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else _figure(value)


def _um(value: float) -> str:
    return f"{value:.3g} µm" if math.isfinite(value) else "too little structure, or too much noise, to tell"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} ×" if math.isfinite(ratio) else ""
