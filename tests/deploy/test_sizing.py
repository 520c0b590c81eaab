"""The table of sizes in deploy/README.md is what the service's own arithmetic makes of the rates that it names."""

from __future__ import annotations

import re
from pathlib import Path

from otf_stream.cli.checking import table_of
from otf_stream.doctor.capacity import DEPTHS, Speed, depth_of, largest
from otf_stream.service.budget import Budget
from otf_stream.service.costs import WRITERS, WRITTEN_PER_SECOND, RestoringTime

PAGE = Path(__file__).parents[2] / "deploy" / "README.md"


def test_the_table_of_sizes_is_computed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rates = re.search(r"denoises ([\d.]+) and deblurs\s+([\d.]+) million pixels a second, and takes ([\d.]+) s", page)
    assert rates
    planes_per_s, slices_per_s, step = 1e6 * float(rates[1]), 1e6 * float(rates[2]), float(rates[3])
    written = WRITTEN_PER_SECOND / WRITERS**0.9  # of two cores, as those that were measured

    def restoring(planes: int, side: int) -> RestoringTime:
        voxels = depth_of(planes) * side**2
        along = voxels / slices_per_s
        return RestoringTime(along + planes * side**2 / planes_per_s + voxels / written, along)

    machine = Speed("two cores", True, step, restoring)
    table = table_of([largest(machine, planes, Budget(), 2.0) for planes in DEPTHS])
    without = [line.rsplit("|", 2)[0] for line in table]  # what is interpolated depends on the cores of this machine
    shown = [line.rsplit("|", 2)[0] for line in page.splitlines() if line in page and line.startswith("| ")]
    missing = [line for line in without if line not in shown]
    assert not missing, "the table is now\n" + "\n".join(table)
