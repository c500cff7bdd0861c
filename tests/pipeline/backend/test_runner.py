"""Steps are run by the two programs: here scripts that play them, and KFP's own where they are."""

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from kfp import dsl

from pipeline.backend import runner, services
from pipeline.backend.programs import Programs

DRIVER = """#!/bin/sh
while test $# -gt 0; do
    case $1 in --type) kind=$2;; --task_name) task=$2;; esac
    shift
done
printf 5 > /tmp/outputs/execution-id
if test $kind = CONTAINER; then
    echo "F1128 08:43:10.963756       2 main.go:59] $task: no input" >&2
    %s
fi
"""
LAUNCHER = """#!/bin/sh
if test "$1" = --copy; then cat "$0" > "$2"; chmod 755 "$2"; exit 0; fi
while test "$1" != --; do shift; done
shift
"$@" && exit 0
echo "F1128 08:43:10.963756       2 main.go:59] failed to execute component: exit status 3" >&2
exit 1
"""


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def play(image, package, store, tmp_path, monkeypatch):
    """Run one step with a driver that does `drives`, and a launcher that runs `words`."""

    class Served:
        grpc = objects = 1

        def executions(self, run):
            return [{"id": 5, "inputs": {}, "outputs": {"made": "x"}, "artifacts": []}]

    @contextmanager
    def serve(folder, say):
        yield Served()

    monkeypatch.setattr(services, "serve", serve)

    def do(
        *words,
        progress=lambda _: None,
        drives="printf '%s' \"$PATCH\" > /tmp/outputs/pod-spec-patch",
        **step,
    ):
        launched = ["/kfp-launcher/launch", "--executor_input", "{}", "--"]
        container = {"name": "main", "image": image, "command": launched, "args": list(words)}
        patch = json.dumps({"containers": [container]})
        text = f"PATCH='{patch}'\n    {drives}"
        programs = Programs(
            script(tmp_path / "driver", DRIVER % text), script(tmp_path / "launcher", LAUNCHER)
        )
        return runner.run(
            package({"one": {"script": "true", **step}}), store, programs,
            parameters={}, volumes={}, secrets={}, runs=tmp_path / "runs", progress=progress,
        )  # fmt: skip

    return do


def test_the_launcher_runs_the_step_and_the_metadata_store_says_what_it_made(play):
    result = play("sh", "-c", "echo hello from $KFP_POD_NAME")
    step = result.steps["one"]
    assert (result.state, step.state, step.outputs) == ("succeeded", "succeeded", {"made": "x"})
    log = (result.folder / "steps" / "one" / "log.txt").read_text()
    assert "hello from one" in log
    assert result.page.exists()


def test_a_cached_step_is_not_run(play):
    result = play("sh", "-c", "exit 1", drives="printf true > /tmp/outputs/cached-decision")
    assert (result.state, result.steps["one"].state) == ("succeeded", "cached")


def test_a_step_is_tried_again_on_empty_folders_and_its_failure_says_the_steps_last_line(play):
    words = (
        "echo try $KFP_RETRY_INDEX; test -e /minio/left && echo stale; echo > /minio/left; exit 3"
    )
    result = play("sh", "-c", words, retries=1)
    step = result.steps["one"]
    assert (result.state, step.state, step.attempts) == ("failed", "failed", 2)
    assert "it said: try 1" in step.error


def test_a_failed_driver_fails_the_run_with_its_own_reason(play):
    result = play("true", drives="exit 1")
    assert result.state == "failed"
    assert "one: no input" in result.error


def test_ctrl_c_ends_the_step_and_leaves_a_page(play, tmp_path):
    heard = []

    def progress(step):
        heard.append(step.state)
        if step.state == "running":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        play("sleep", "600", progress=progress)
    assert heard[-1] == "stopped"
    (page,) = tmp_path.glob("runs/*/run.json")
    assert json.loads(page.read_text())["state"] == "stopped"


@pytest.fixture
def real():
    """Return KFP's own programs; they are brought by who runs the tests."""
    names = ("PLATELINE_KFP_DRIVER", "PLATELINE_KFP_LAUNCHER")
    if not all(map(os.environ.get, names)):
        pytest.skip(f"KFP's own programs are not here; name them in {' and '.join(names)}")
    return Programs(*(Path(os.environ[name]) for name in names))


@pytest.mark.slow
def test_kfps_own_programs_run_a_pipeline_and_take_it_from_the_cache(
    real, image, compiled, store, tmp_path
):
    @dsl.container_component
    def make(text: str, made: dsl.OutputPath(str), data: dsl.Output[dsl.Dataset]):
        script = 'printf "%s!" "$0" > "$1"; echo content > "$2"'
        return dsl.ContainerSpec(
            image=image, command=["sh", "-c", script], args=[text, made, data.path]
        )

    @dsl.container_component
    def show(text: str):
        return dsl.ContainerSpec(image=image, command=["echo"], args=["shown", text])

    @dsl.container_component
    def read(data: dsl.Input[dsl.Dataset]):
        return dsl.ContainerSpec(image=image, command=["cat"], args=[data.path])

    @dsl.pipeline(name="small")
    def small(text: str = "a"):
        last = show(text="last").set_caching_options(enable_caching=False)
        with dsl.ExitHandler(last):
            made = make(text=text)
            read(data=made.outputs["data"])
            with dsl.If(made.outputs["made"] == "b!"):
                show(text="never")
            with dsl.ParallelFor(["p", "q"]) as item:
                show(text=item)

    def once():
        return runner.run(
            compiled(small), store, real,
            parameters={}, volumes={}, secrets={}, runs=tmp_path / "runs",
        )  # fmt: skip

    first, second = once(), once()
    assert (first.state, second.state) == ("succeeded", "succeeded"), first.error or second.error
    states = {name.split(".", 1)[1]: s.state for name, s in first.steps.items() if "." in name}
    assert states == {
        "make": "succeeded", "read": "succeeded", "condition-2": "skipped",
        "for-loop-4.0.show-3": "succeeded", "for-loop-4.1.show-3": "succeeded",
    }  # fmt: skip
    made = first.steps["exit-handler-1.make"]
    assert made.outputs == {"made": "a!"}
    assert {"data", "executor-logs"} <= set(made.artifacts)
    assert "content" in (first.folder / "steps/exit-handler-1.read/log.txt").read_text()
    again = {name: step.state for name, step in second.steps.items()}
    assert again["show"] == "succeeded"
    assert again["exit-handler-1.make"] == again["exit-handler-1.read"] == "cached"
    assert first.notes == ()


ROOT = Path(__file__).parents[3]
# What the programs were seen to do otherwise: docs/kfp-engine.md.
OTHERWISE = {"optional input left out", "concatenation", "loop in a loop", "metadata",
             "loop over a parameter", "metadata of an importer"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_suite_is_the_same_by_kfps_own_programs_but_for_what_is_written_down(real):
    words = ["./invoke", "conformance", "--json", "--engine", "kfp", "--driver", str(real.driver),
             "--launcher", str(real.launcher)]  # fmt: skip
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    cases = json.loads(ended.stdout)["cases"]
    assert len(cases) > 40
    assert {case["name"] for case in cases if case["word"] != "same"} == OTHERWISE
