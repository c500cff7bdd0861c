"""What a step is handed and leaves depends on nothing but the package and its inputs.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from kfp import compiler, dsl

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path
from builder.store import Store
from pipeline.run import runner
package, store, runs = map(Path, sys.argv[1:])
result = runner.run(
    runner.load(package), Store.open(store), volumes={}, secrets={}, runs=runs,
    parameters={"settings": {"z": 1, "a": [2, {"y": 3, "b": 4}]}},
    engine="bubblewrap", use_cache=False,
)
assert result.state == "succeeded", result.error
print(result.folder)
"""


def package(image: str, path: Path) -> None:
    """Compile a package whose steps write all that they are handed into artifacts."""

    @dsl.container_component
    def tell(
        zeta: str, alpha: int, mid: float, flag: bool, items: list, settings: dict, more: str,
        told: dsl.Output[dsl.Dataset], found: dsl.OutputPath(dict),
    ):  # fmt: skip
        script = """mkdir -p "${1%/*}" "${2%/*}" "${3%/*}"
            echo -n "$0" > "$1"; busybox env | busybox sort >> "$1"; id >> "$1"
            echo -n '{"q": 1, "b": 2, "x": {"d": 1, "c": 2}}' > "$2"
            echo -n "$4" > "$3"
        """
        said = {"artifacts": {"told": {"artifacts": [{"metadata": {"z": 1, "a": 2}}]}}}
        return dsl.ContainerSpec(
            image, ["sh", "-c", script],
            ["{{$}}", told.path, found, "{{$.outputs.output_file}}", json.dumps(said)],
        )  # fmt: skip

    @dsl.container_component
    def gather(
        every: dsl.Input[list[dsl.Dataset]], b: list, a: dict, made: dsl.Output[dsl.Dataset]
    ):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'echo "$0" > "$1"'], ["{{$}}", made.path]
        )  # fmt: skip

    @dsl.pipeline(name="everything")
    def everything(settings: dict, names: list = ["x", "y", "z"], more: str = "m"):  # noqa: B006
        with dsl.ParallelFor(names) as name:
            told = tell(
                zeta=name, alpha=3, mid=2.0, flag=True, items=names, settings=settings,
                more=f"<{more}|{name}>",
            )  # fmt: skip
        gather(
            every=dsl.Collected(told.outputs["told"]), b=dsl.Collected(told.outputs["found"]),
            a=settings,
        )  # fmt: skip

    compiler.Compiler().compile(everything, str(path))


def left(run: Path) -> dict[str, str]:
    """Return path -> text of what a run's steps were handed and left.

    again.json names the run, so that its step can be run once more.
    """
    return {
        str(path.relative_to(run)): path.read_text()
        for path in sorted((run / "steps").rglob("*"))
        if path.is_file() and path.name != "again.json"
    }


def test_hash_seed_time_zone_locale_folder_and_user_change_nothing(store, image, tmp_path):
    path = tmp_path / "package.yaml"
    package(image, path)
    runs = []
    for number, environment in enumerate(
        (
            {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C", "USER": "a", "HOME": "/tmp"},
            {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "de_DE.UTF-8", "USER": "b"},
            {"PYTHONHASHSEED": "42", "TZ": "America/Lima", "LC_ALL": "C.UTF-8", "UMASK": "x"},
        )
    ):
        folder = tmp_path / f"Läufe {number}" / ("deeper" * number)
        folder.mkdir(parents=True)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path), str(store.root), str(folder / "runs")],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        runs.append(left(Path(done.stdout.strip())))
    assert len(runs[0]) > 12
    for other in runs[1:]:
        assert other.keys() == runs[0].keys()
        for name, text in runs[0].items():
            assert other[name] == text, name


def test_inputs_are_handed_over_in_order_of_their_names(store, image, tmp_path):
    path = tmp_path / "package.yaml"
    package(image, path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(store.root), str(tmp_path / "runs")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (told, *_) = sorted((Path(done.stdout.strip()) / "steps").glob("*tell*/input.json"))
    values = json.loads(told.read_text())["inputs"]["parameterValues"]
    assert list(values) == sorted(values)
    assert list(values["settings"]) == ["a", "z"]
