"""A compiled package runs here as it would on a cluster."""

import json

import pytest
from kfp import dsl

from builder.errors import BuilderError
from builder.sandbox import gpu
from builder.sandbox.gpu import Gpus
from pipeline.errors import PipelineError
from pipeline.run.runner import Volume


@pytest.fixture
def parts(image):
    @dsl.container_component
    def say(text: str, said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'echo -n "$0" > "$1"'], [text, said])

    @dsl.container_component
    def number(value: int, doubled: dsl.OutputPath(int)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'echo $(($0 * 2)) > "$1"'], [value, doubled])

    @dsl.container_component
    def make(text: str, made: dsl.Output[dsl.Dataset]):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'mkdir "$1" && echo "$0" > "$1/f"'], [text, made.path]
        )

    @dsl.container_component
    def read(one: dsl.Input[dsl.Dataset], said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'cat "$0/f" > "$1"'], [one.path, said])

    @dsl.container_component
    def script(code: str):
        return dsl.ContainerSpec(image, ["sh", "-c"], [code])

    class Parts:
        pass

    for function in (say, number, make, read, script):
        setattr(Parts, function.name, function)
    return Parts


def test_parameters_and_artifacts_flow(parts, execute):
    @dsl.pipeline(name="flow")
    def flow(text: str = "hello", n: int = 3) -> str:
        parts.number(value=n)
        return parts.read(one=parts.make(text=text).outputs["made"]).outputs["said"]

    result = execute(flow, n="5")
    assert result.state == "succeeded", result.error
    assert result.outputs == {"Output": "hello\n"}
    assert result.steps["number"].outputs == {"doubled": 10}
    assert "succeeded" in result.page.read_text()


@pytest.mark.parametrize(("text", "state"), [("go", "succeeded"), ("stay", "skipped")])
def test_a_condition_decides(parts, execute, text, state):
    @dsl.pipeline(name="choice")
    def choice(text: str):
        with dsl.If(text == "go"):
            parts.say(text="went")

    result = execute(choice, text=text)
    assert result.state == "succeeded"
    assert any(step.state == state for step in result.steps.values())


def test_else_gives_the_other_value(parts, execute):
    @dsl.pipeline(name="either")
    def either(n: int) -> str:
        doubled = parts.number(value=n)
        with dsl.If(doubled.output > 5):
            big = parts.say(text="big")
        with dsl.Else():
            small = parts.say(text="small")
        return dsl.OneOf(big.output, small.output)

    assert execute(either, n=3).outputs == {"Output": "big"}
    assert execute(either, n=2).outputs == {"Output": "small"}


def test_a_loop_is_collected_in_order(parts, execute, image):
    @dsl.container_component
    def join(texts: list, found: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'echo -n "$0" > "$1"'], [texts, found])

    @dsl.pipeline(name="loop")
    def loop(items: list = ["a", "b", "c"]) -> str:  # noqa: B006
        with dsl.ParallelFor(items) as item:
            said = parts.say(text=item)
        return join(texts=dsl.Collected(said.output)).output

    assert execute(loop).outputs == {"Output": '["a","b","c"]'}


@pytest.mark.parametrize(("code", "state"), [("exit 0", "COMPLETE"), ("exit 1", "FAILED")])
def test_the_exit_task_always_runs_and_knows(parts, execute, image, code, state):
    @dsl.container_component
    def last(status: dsl.PipelineTaskFinalStatus, said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'echo -n "$0" > "$1"'], ["{{$}}", said])

    @dsl.pipeline(name="exits")
    def exits():
        with dsl.ExitHandler(last()):
            parts.script(code=code)

    result = execute(exits)
    assert result.state == ("succeeded" if state == "COMPLETE" else "failed")
    assert f'"state": "{state}"' in result.steps["last"].outputs["said"]


@pytest.mark.parametrize(
    ("code", "words"),
    [("exit 1", "exit code 1"), ("exit 77", "exit code 77"), ("kill -9 $$", "signal 9"),
     ("kill -11 $$", "signal 11")],
)  # fmt: skip
def test_a_step_that_fails_fails_the_run(parts, execute, code, words):
    @dsl.pipeline(name="fails")
    def fails():
        parts.say(text="never").after(parts.script(code=code))

    result = execute(fails)
    assert result.state == "failed"
    assert words in result.error
    assert result.steps["say"].state == "skipped"
    assert result.steps["say"].after == ("script",)


def test_a_missing_output_and_broken_json_fail(execute, image):
    @dsl.container_component
    def nothing(said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", "true"], [said])

    @dsl.container_component
    def broken():
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'echo "{" > "$0"'], ["{{$.outputs.output_file}}"]
        )

    @dsl.pipeline(name="missing")
    def missing():
        nothing()

    @dsl.pipeline(name="breaks")
    def breaks():
        broken()

    assert "wrote no output parameter 'said'" in execute(missing).error
    assert "is no JSON" in execute(breaks).error


def test_a_retry_can_succeed(execute, parts, tmp_path):
    from kfp import kubernetes

    folder = tmp_path / "claim"
    folder.mkdir()
    folder.chmod(0o777)

    @dsl.pipeline(name="again")
    def again():
        task = parts.script(code="test -e /claim/f || { echo > /claim/f; exit 1; }")
        task.set_retry(num_retries=1, backoff_duration="0s")
        kubernetes.mount_pvc(task, "c", "/claim")

    result = execute(again, volumes={"c": Volume(folder, writable=True)})
    assert result.state == "succeeded", result.error
    assert result.steps["script"].attempts == 2


def test_a_time_limit_ends_a_step(execute, parts):
    from kfp import kubernetes

    @dsl.pipeline(name="slow")
    def slow():
        kubernetes.set_timeout(parts.script(code="sleep 60"), 1)

    result = execute(slow)
    assert "time limit" in result.error
    assert result.seconds < 10


def test_the_cache_knows_content(execute, parts, tmp_path):
    from kfp import kubernetes

    plate = tmp_path / "plate"
    plate.mkdir()
    (plate / "f").write_text("1")

    @dsl.pipeline(name="cached")
    def cached():
        task = parts.script(code="cat /plate/f")
        kubernetes.mount_pvc(task, "plate", "/plate")

    volumes = {"plate": Volume(plate)}
    states = [execute(cached, cache=True, volumes=volumes).steps["script"].state for _ in "12"]
    (plate / "f").write_text("2")
    states.append(execute(cached, cache=True, volumes=volumes).steps["script"].state)
    assert states == ["succeeded", "cached", "succeeded"]


def test_what_cannot_run_is_refused_before_anything_runs(execute, parts, tmp_path):
    from kfp import kubernetes

    @dsl.pipeline(name="claims")
    def claims(n: int):
        kubernetes.mount_pvc(parts.script(code="exit 0"), "absent", "/x")

    for words, parameters in {
        "--volume absent=DIR": {"n": 1},
        "is missing; give it": {},
        "not of its type": {"n": "x"},
        "has no parameter": {"n": 1, "m": 2},
    }.items():
        with pytest.raises(PipelineError, match=words):
            execute(claims, **parameters)
    assert not (tmp_path / "runs").exists()


def test_an_image_that_is_nowhere_is_named(execute):
    @dsl.container_component
    def ghost():
        return dsl.ContainerSpec("localhost/ghost@sha256:" + "0" * 64, ["x"])

    @dsl.container_component
    def loose():
        return dsl.ContainerSpec("busybox:latest", ["x"])

    @dsl.container_component
    def claim():
        return dsl.ContainerSpec("argostub/createpvc", ["x"])

    for component, words in (
        (ghost, "neither in the store"), (loose, "not pinned"), (claim, "only a cluster can"),
    ):  # fmt: skip

        @dsl.pipeline(name="p")
        def p():
            component()  # noqa: B023

        with pytest.raises(PipelineError, match=words):
            execute(p)


def test_a_step_sees_the_output_that_the_backend_adds_and_need_not_write_it(execute, image):
    @dsl.container_component
    def look(made: dsl.Output[dsl.Dataset], said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(
            image,
            ["sh", "-c", 'mkdir -p "${1%/*}" "${2%/*}"; echo x > "$1"; echo "$0" > "$2"'],
            ["{{$}}", made.path, said],
        )

    @dsl.pipeline(name="hidden")
    def hidden():
        look()

    step = execute(hidden).steps["look"]
    given = json.loads(step.outputs["said"])["outputs"]["artifacts"]
    assert given.keys() == {"made", "executor-logs"}
    (log,) = given["executor-logs"]["artifacts"]
    assert (log["name"], log["type"]) == ("executor-logs", {"schemaTitle": "system.Artifact"})
    assert log["uri"] != given["made"]["artifacts"][0]["uri"]
    assert step.artifacts.keys() == {"made"}


def test_a_claim_is_read_only_unless_the_run_says_otherwise(execute, parts, tmp_path):
    from kfp import kubernetes

    @dsl.pipeline(name="claims")
    def claims():
        kubernetes.mount_pvc(parts.script(code="echo x > /claim/f"), "c", "/claim")

    for writable, state in ((False, "failed"), (True, "succeeded")):
        volume = Volume(tmp_path, writable=writable)
        assert execute(claims, volumes={"c": volume}).state == state
        assert (tmp_path / "f").exists() == writable


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Give this machine a GPU: a plain file, as is what its driver would bring."""
    folder = tmp_path / "gpu"
    folder.mkdir()
    for name in ("nvidia0", "libcuda.so.1"):
        (folder / name).write_text(name)
    found = Gpus(
        {"/dev/nvidia0": folder / "nvidia0"},
        {f"{gpu.LIBRARIES}/libcuda.so.1": folder / "libcuda.so.1"},
    )
    monkeypatch.setattr(gpu, "find", lambda: found)


def test_the_gpu_goes_to_the_step_that_asks_for_one_and_to_no_other(execute, parts, gpus):
    look = "cat /dev/nvidia0 $LD_LIBRARY_PATH/libcuda.so.1"

    @dsl.pipeline(name="gpus")
    def asking():
        parts.script(code=look).set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        parts.script(code=f"! {look}").set_display_name("without")

    assert execute(asking).state == "failed", (
        "no step gets one that the run was not told to hand on"
    )
    result = execute(asking, gpus=True)
    assert result.state == "succeeded"
    assert not any("nvidia" in note for note in result.notes)


def test_gpus_are_refused_by_name_where_none_is_asked_for_or_there(execute, parts, monkeypatch):
    @dsl.pipeline(name="asking")
    def asking():
        parts.script(code="").set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)

    @dsl.pipeline(name="modest")
    def modest():
        parts.script(code="")

    monkeypatch.setattr(gpu, "nodes", lambda _: [])
    with pytest.raises(BuilderError, match=r"no NVIDIA GPU .* no device /dev/nvidia0; install"):
        execute(asking, gpus=True)
    with pytest.raises(PipelineError, match=r"no step .* asks for nvidia.com/gpu; compile it with"):
        execute(modest, gpus=True)
    with pytest.raises(PipelineError, match="the engine slurm is handed no GPUs; give"):
        execute(asking, gpus=True, engine="slurm")


def test_settings_that_only_a_cluster_has_are_named_once(execute, parts):
    from kfp import kubernetes

    @dsl.pipeline(name="settings")
    def settings():
        for _ in "12":
            task = parts.script(code="exit 0")
            kubernetes.add_node_selector(task, "pool", "gpu")
            kubernetes.add_toleration(task, key="gpu", operator="Exists")
            kubernetes.set_image_pull_secrets(task, ["login"])
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)

    result = execute(settings)
    assert result.state == "succeeded"
    assert result.notes == (
        "imagePullSecret has no effect on this machine",
        "no step gets the nvidia.com/gpu it asks for; --gpus hands it this machine's",
        "nodeSelector has no effect on this machine",
        "tolerations has no effect on this machine",
    )


def test_a_value_of_another_type_in_the_executor_output_fails_its_step(execute, image):
    @dsl.container_component
    def wrong(number: dsl.OutputPath(int)):
        script = 'mkdir -p "${0%/*}"; echo \'{"parameterValues": {"number": "x"}}\' > "$0"; : "$1"'
        return dsl.ContainerSpec(image, ["sh", "-c", script], ["{{$.outputs.output_file}}", number])

    @dsl.pipeline(name="types")
    def types():
        wrong()

    assert "is not of its type NUMBER_INTEGER" in execute(types).error
