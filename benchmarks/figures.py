"""The measured numbers: benchmarks write them into docs/figures.json, and the pages show that file.

    .venv/bin/python -m benchmarks.figures     # writes the pages again

A page that shows numbers has a pair of comments, `<!-- figures: GROUP/NAME; … -->` and
`<!-- end -->`; what stands between them is a table made from the file. A test compares the two.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from builder.inspect.checkout import git

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs/figures.json"
PAGES = (ROOT / "README.md", ROOT / "docs/measurements.md")
_BLOCK = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table: what was measured, our value, what stands beside it, and the target.

    `missed` says that the target was not reached. `when` is the day, `where` the machine, `commit`
    what was measured, with a + where files differed from it.
    """

    group: str
    what: str
    ours: str
    beside: str = ""
    target: str = ""
    missed: bool = False
    when: str = ""
    where: str = ""
    commit: str = ""

    @property
    def key(self) -> str:
        """How a page asks for it."""
        return f"{self.group}/{self.what}"


def read() -> list[Figure]:
    """Return the figures in the order in which they were first measured."""
    if not FILE.exists():
        return []
    return [Figure(**entry) for entry in json.loads(FILE.read_text(encoding="utf-8"))]


def record(
    group: str, what: str, ours: str, *, beside: str = "", target: str = "", missed: bool = False
) -> None:
    """Print one figure, and keep it instead of an earlier one of the same name."""
    print(f"{what:52} {ours:22} {beside:30} {target}{' MISSED' if missed else ''}", flush=True)
    figure = Figure(
        group, what, ours, beside, target, missed,
        when=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        where=machine(), commit=_commit(),
    )  # fmt: skip
    known = {one.key: one for one in read()}
    known[figure.key] = figure
    _write(known.values())


def record_times(
    group: str, what: str, times: Sequence[float], *, most: float = 0, digits: int = 2
) -> None:
    """Keep `median (minimum to maximum) s` of `times`; missed where the median is over `most`."""
    median = statistics.median(times)
    low, high = min(times), max(times)
    record(
        group, what, f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}) s",
        target=f"<= {most:g} s" if most else "", missed=bool(most and median > most),
    )  # fmt: skip


def machine() -> str:
    """Return what kind of machine this is."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _commit() -> str:
    commit = git(ROOT, "rev-parse", "HEAD").decode().strip()
    return commit + ("+" if git(ROOT, "status", "--porcelain", "--", ":!docs").strip() else "")


def _write(figures: Iterable[Figure]) -> None:
    rows = [json.dumps(asdict(figure), ensure_ascii=False) for figure in figures]
    FILE.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def table(figures: Iterable[Figure]) -> str:
    """Return a Markdown table."""
    lines = ["| what | measured | beside it | target |", "|---|---|---|---|"]
    lines += [
        f"| {f.what} | {f.ours} | {f.beside} | {f.target}{' **missed**' if f.missed else ''} |"
        for f in figures
    ]
    return "\n".join(lines) + "\n"


def rendered(page: str) -> str:
    """Return a page with its tables made again; raises KeyError for a figure that is not there.

    A block names figures, separated by semicolons, or whole groups as `GROUP/*`.
    """
    figures = read()
    by_key = {figure.key: figure for figure in figures}

    def block(match: re.Match[str]) -> str:
        chosen: list[Figure] = []
        for name in match[2].split("; "):
            if name.endswith("/*"):
                chosen += [figure for figure in figures if figure.group == name[:-2]]
            else:
                chosen.append(by_key[name])
        return match[1] + table(chosen) + match[3]

    return _BLOCK.sub(block, page)


def main() -> None:
    """Write the pages again."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
