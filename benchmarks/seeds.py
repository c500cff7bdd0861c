"""V and Z' of the real plate over many seeds, as docs/validate.md's protocol asks.

    .venv/bin/python -m benchmarks.seeds [--plate DIR] [--seeds N] [--json FILE]

Trains the head of either half with seeds 0 to N - 1 (default 10) by the product's code, in the
stages' images, and prints of what would be served, of fp32 and of int8: V and Z' on both scales,
median and range over the seeds, and the median ends of their 95 % intervals over wells. The network
is frozen: fine-tuning, which docs/train.md measures, would take much longer. The plate is
BBBC013v1 (default ../shared/data/bbbc013v1 beside the checkout, or PLATELINE_BBBC013).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import bbbc013
from benchmarks.stages import Images

FOLDS = ("A-D", "E-H")
MEASURES = ("V probability", "V log_odds", "Z' probability", "Z' log_odds", "wells right")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    bbbc013.option(parser)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write every seed's numbers there")
    given = parser.parse_args()
    bbbc013.require(given.plate)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        images = Images(Path(folder), given.plate)
        images("prepare", "tiles", "/plate", "bbbc013", "/out/tiles")
        found = {}
        for fold in FOLDS:
            images("train", "heads", "/out/tiles", fold, f"/out/{fold}", str(given.seeds))
            found[fold] = images("validate", "seeds", "/out/tiles", fold, f"/out/{fold}")["seeds"]
            _show(fold, found[fold])
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _show(fold: str, seeds: list[dict[str, Any]]) -> None:
    served = [seed["served"] for seed in seeds]
    print(
        f"{fold}, {seeds[0]['compound']}: served fp32 {served.count('fp32')} times of {len(seeds)}"
    )
    for variant in ("served", "fp32", "int8"):
        for name in MEASURES:
            chosen = [
                seed[seed["served"] if variant == "served" else variant][name] for seed in seeds
            ]
            value, low, high = (
                [number for number in column if number is not None]
                for column in zip(*chosen, strict=True)
            )
            interval = (
                f", over wells [{statistics.median(low):.3f}, {statistics.median(high):.3f}]"
                if low and name != "wells right" else ""
            )  # fmt: skip
            print(
                f"    {variant:6} {name:14} {statistics.median(value):.3f}"
                f" ({min(value):.3f} to {max(value):.3f}){interval}",
                flush=True,
            )


if __name__ == "__main__":
    main()
