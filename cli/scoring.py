"""The task that scores a screen on this machine: plates and a released model in, hits out."""

from __future__ import annotations

import glob
import json as encoder
import shutil
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

from cli.command import command
from cli.output import ENGINE_HELP, INSECURE_HELP, JOBS_HELP, JSON_HELP, facts, say
from cli.pipeline import execute, finish, make_package, pairs, pin_local, pipeline_targets

_PIPELINE = "plateline-score"
# Not the file that `compile` writes: that one may be for a registry.
_PACKAGE = "dist/score.yaml"
MODEL = "localhost/plateline/model"


@command(
    repeated=["param"],
    help={
        "plates": "a list of plates (CSV, Excel, JSON), a pattern such as 'screen/P*', or one "
        "plate's folder",
        "layout": "a known layout or a TOML file, for plates whose line in the list has none",
        "model": f"the released model, HOST/NAME@sha256:… or HOST/NAME ({MODEL})",
        "param": "a parameter of the package, name=value; once for each",
        "engine": ENGINE_HELP,
        "jobs": JOBS_HELP + ", and steps to run",
        "no-cache": "run every step again",
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def score(
    plates: str,
    layout: str = "",
    model: str = MODEL,
    param: list[str] = [],  # noqa: B006 - invoke reads it as a list
    engine: str = "auto",
    jobs: int = 2,
    no_cache: bool = False,
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Score plates with a released model: wells, plates, treatments and the list of hits.

    The plates' own paths in a list are relative to the list. docs/score.md says what is written.
    """
    from builder.sandbox.engines import choose
    from builder.store import Store
    from pipeline.definition.claims import IMAGES_CLAIM
    from pipeline.definition.plates import layout_value

    root, named = volume_and_name(plates)
    store = Store.open()
    choose(engine, store)  # where none runs, nothing need be built
    pinned_model = pinned(model, store, insecure=insecure)
    parameters: dict[str, Any] = {"plates": named, "model": pinned_model}
    if layout:
        parameters["plate_layout"] = layout_value(layout, plates if Path(plates).is_dir() else "")
    parameters |= pairs(param, "param")
    say(f"the model is {pinned_model}")
    images = pin_local(jobs, pipeline_targets(_PIPELINE).split(","))
    make_package(images, 0, "registry", _PACKAGE, pipeline=_PIPELINE)
    result = execute(
        Path(_PACKAGE), store, parameters=parameters, volumes={IMAGES_CLAIM: root}, engine=engine,
        jobs=jobs, use_cache=not no_cache, insecure=insecure,
    )  # fmt: skip
    if result.state != "succeeded":
        finish(result)
    (step,) = (one for one in result.steps.values() if one.name == "screen")
    folder, summary, made = (
        Path(result.path(step.artifacts[name][0]["uri"]))
        for name in ("screen", "summary", "report")
    )
    # The artifact's own name has no suffix, which a browser needs.
    report = result.folder / "report.html"
    shutil.copyfile(made, report)
    found = encoder.loads((folder / "screen.json").read_text(encoding="utf-8"))
    text = summary.read_text(encoding="utf-8").strip()
    if not json:
        print(unescape(text))  # it is Markdown, whose signs are written as a page needs them
    places = {"report": str(report), "tables": str(folder), "run": str(result.page)}
    answer = {**found, "folder": str(folder), "page": str(result.page), "report": str(report)}
    facts(answer, [("what", "where"), *places.items()], as_json=json)
    if problem := nothing_said(found["counts"]):
        say(f"error: {problem}")
        raise SystemExit(1)


def nothing_said(counts: Mapping[str, int]) -> str:
    """Return why a screen without hits says nothing: every plate failed; or nothing."""
    if counts["plates_failed"] < counts["plates"]:
        return ""
    return "no hit could be called: every plate failed; the report says why"


def volume_and_name(plates: str) -> tuple[Path, str]:
    """Return the folder to hand to the steps, and what `plates` is called inside it.

    Raises PipelineError where there is neither a list nor a folder nor a pattern.
    """
    from pipeline.definition.plates import listed_plates

    if Path(plates).is_dir():
        whole = Path(plates).resolve()
        # The steps know lists and patterns; this pattern fits the one folder.
        return whole.parent, f"[{whole.name[0]}]{glob.escape(whole.name[1:])}"
    return listed_plates(plates)


def pinned(model: str, store: Any, *, insecure: bool = False) -> str:
    """Return the model's name with its digest; raises BuilderError for one that is not there."""
    from builder.errors import BuilderError
    from builder.oci.reference import Reference
    from builder.registry.client import Registries
    from builder.store import roots

    reference = Reference.parse(model)
    if reference.digest:
        return str(reference)
    if not reference.local:
        with Registries(insecure=insecure, notice=say) as registries:
            found = registries.at(reference.host).resolve(reference)
        return f"{found.host}/{found.repository}@{found.digest}"
    kept = roots.kept(store).get(f"{reference.host}/{reference.repository}")
    if kept is None:
        raise BuilderError(
            f"the store has no model {model}; make one with `invoke demo` or `invoke run`, or give "
            "--model"
        )
    return f"{reference.host}/{reference.repository}@{kept.digest}"
