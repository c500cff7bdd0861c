"""The real plate that benchmarks measure on: BBBC013v1, see README.md for what it is."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.figures import ROOT


def option(parser: argparse.ArgumentParser) -> None:
    """Add `--plate`: by default PLATELINE_BBBC013, or the folder beside the checkout."""
    shared = ROOT.parent / "shared/data/bbbc013v1"
    parser.add_argument(
        "--plate", type=Path, default=Path(os.environ.get("PLATELINE_BBBC013", shared))
    )


def require(plate: Path) -> None:
    """Exit where the plate is not there."""
    if not plate.is_dir():
        sys.exit(f"no BBBC013 plate at {plate}; set PLATELINE_BBBC013 or --plate")
