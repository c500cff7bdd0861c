"""Reading a run's record and results back; whatever is not understood is refused by name."""

from __future__ import annotations

import csv
import io
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from pipeline.errors import PipelineError
from pipeline.run import beneath, places
from pipeline.run.record import FORMAT, Result, Step
from pipeline.spec.documents import MOST_BYTES, load_json

RECORD = "run.json"
_SCORES = "well_scores.csv"
# What JSON makes of a field, by a word of its annotation; the first that fits counts.
_KINDS: dict[str, Any] = {
    "Mapping": dict, "tuple": list, "Path": Path, "float": (int, float),
    "int": (int, type(None)), "str": str,
}  # fmt: skip
_MOST_BYTES = 256 << 20  # of a table of wells: some millions


@dataclass(frozen=True)
class Well:
    """A well's call (0 or 1) and its probability, as they stand in the table."""

    call: str
    probability: str


def find(runs: Path, word: str) -> Path:
    """Return the folder of the run that `word` names: a path, a name in `runs`, or its beginning.

    Raises PipelineError where there is none, or several.
    """
    if (Path(word) / RECORD).is_file():
        return Path(word)
    found = [folder for folder in folders(runs) if folder.name.startswith(word)] if word else []
    exact = [folder for folder in found if folder.name == word]
    if len(exact or found) != 1:
        why = f"{', '.join(f.name for f in found[:5])} all begin so" if found else "there is none"
        raise PipelineError(f"which run {word!r} is cannot be told: {why}; see ./invoke runs")
    return (exact or found)[0]


def folders(runs: Path) -> list[Path]:
    """Return the folders of runs, the newest last; raises PipelineError where `runs` is none."""
    try:
        names = sorted(path for path in runs.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError as error:
        raise PipelineError(
            f"the runs in {runs} cannot be listed ({error.strerror}); run a package first, or name "
            "their folder with --runs DIR"
        ) from None
    return [path for path in names if (path / "steps").is_dir() or (path / RECORD).exists()]


def read(folder: Path) -> Result:
    """Return the run that `folder` holds; what its steps left is looked for there.

    Raises PipelineError that names the file and what is wrong with it.
    """
    path = folder / RECORD
    try:
        data = beneath.read(folder, RECORD, MOST_BYTES)
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is not there: the run goes on, or was ended before it could write it"
        ) from None
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror or error}") from None
    document = load_json(data, str(path))
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise PipelineError(
            f"{path} was written by another version of plateline, not in format {FORMAT}; run its "
            "package again: steps that ended well come from the cache"
        )
    facts = {**document, "folder": folder, "page": folder / "index.html"}
    steps = _checked(facts, Result, str(path)).pop("steps")
    made = {}
    for name, step in steps.items():
        known = _checked(step, Step, f"{path}: {name}")
        made[name] = Step(**known | {"after": tuple(map(str, known.get("after", ())))})
    return Result(**facts | {"steps": made, "notes": tuple(map(str, facts["notes"]))})


def _checked(facts: Any, kind: type[Any], where: str) -> dict[str, Any]:
    """Return the facts of a record; raises PipelineError for one missing, unknown or of no type."""
    if not isinstance(facts, dict):
        raise PipelineError(f"{where}: {kind.__name__} is no object; the file is damaged")
    hints = get_type_hints(kind)
    for each in fields(kind):
        if each.name not in facts:
            if each.default is MISSING and each.default_factory is MISSING:
                raise PipelineError(f"{where}: {each.name} is missing; the file is damaged")
            continue
        hint, value = str(hints[each.name]), facts[each.name]
        wanted = next(kinds for word, kinds in _KINDS.items() if word in hint)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise PipelineError(f"{where}: {each.name} is {str(value)[:60]!r}; the file is damaged")
    if unknown := sorted(set(facts) - {each.name for each in fields(kind)}):
        raise PipelineError(f"{where}: {unknown[0]!r} is not known; the file is damaged")
    return facts


def metrics(run: Result) -> dict[str, float]:
    """Return the numbers that a run's steps gave as metrics: `step: name` -> value."""
    found = {}
    for step in run.steps.values():
        for entries in step.artifacts.values():
            for entry in entries if isinstance(entries, list) else ():
                if not isinstance(entry, dict):
                    continue
                kind = entry.get("type")
                schema = kind.get("schemaTitle") if isinstance(kind, dict) else ""
                said = entry.get("metadata")
                if schema != "system.Metrics" or not isinstance(said, dict):
                    continue
                for key, value in said.items():
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        found[f"{step.title}: {key}"] = float(value)
    return found


def wells(run: Result) -> dict[tuple[str, ...], Well]:
    """Return the judged wells by (plate, well), the plate empty where the table has none.

    A well that is judged twice has the fold in front. Raises PipelineError where a table is not
    what it should be.
    """
    rows = []
    for step in run.steps.values():
        for entries in step.artifacts.values():
            for entry in entries if isinstance(entries, list) else ():
                rows += _table(run, str(entry.get("uri", "")) if isinstance(entry, dict) else "")
    keys = [(row.get("plate") or "", row["well"]) for row in rows]
    twice = len(set(keys)) < len(keys)
    return {
        ((row.get("fold") or "", *key) if twice else key): Well(row["call"], row["probability"])
        for key, row in zip(keys, rows, strict=True)
    }


def _table(run: Result, uri: str) -> list[dict[str, str]]:
    try:
        place = places.artifact(run.folder, uri)
        if place is None or beneath.kind(*place) != "folder":
            return []
        data = beneath.read(place[0], f"{place[1]}/{_SCORES}", _MOST_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PipelineError(f"{_SCORES} of {run.folder} cannot be read: {error}") from None
    except PipelineError as error:
        raise PipelineError(f"{run.folder / RECORD}: {error}") from None
    where = f"{place[0] / place[1] / _SCORES}"
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode()), strict=True))
    except (ValueError, csv.Error) as error:
        raise PipelineError(f"{where} is no table ({error}); run again") from None
    needed = {"well", "call", "probability"}
    for row in rows:
        if lacking := sorted(key for key in needed if row.get(key) is None):
            raise PipelineError(f"{where} has a row without {lacking[0]}; run again")
    return rows
