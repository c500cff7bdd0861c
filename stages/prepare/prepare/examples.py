"""One PNG tile of each class, for a person or a test that wants to ask a model.

    python3 -m prepare.examples --tiles DIR --out DIR

Prints class -> file name as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from common.errors import StageError
from common.tiles import CLASSES, read_tiles
from PIL import Image


def write_examples(tiles: Path, folder: Path) -> dict[str, str]:
    """Write the first tile of each class that is in a control well; return class -> file name.

    Raises StageError where a class has none.
    """
    known = read_tiles(tiles)
    found = {}
    for label, name in enumerate(CLASSES):
        numbers = [n for n, tile in enumerate(known.index) if tile.label == label]
        if not numbers:
            raise StageError(f"the plate has no tile that is {name}")
        tile = known.index[numbers[0]]
        file = f"{name}-{tile.well}-{tile.y}-{tile.x}.png"
        Image.fromarray(known.array[numbers[0]]).save(folder / file)
        found[name] = file
    return found


def main() -> None:
    """Write the tiles that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python3 -m prepare.examples", description=__doc__)
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        print(json.dumps(write_examples(given.tiles, given.out)))
    except StageError as error:
        sys.exit(f"examples: {error}")


if __name__ == "__main__":
    main()
