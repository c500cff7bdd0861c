"""Whatever goes wrong in a step is that step's failure, with its cause and its retries."""

import errno
import json
import os
from pathlib import Path

import pytest
import requests
from kfp import compiler, dsl

from builder.sandbox.bubblewrap import Bubblewrap
from pipeline.errors import PipelineError
from pipeline.run import places, runner

OUTPUT_FILE = "{{$.outputs.output_file}}"
PARAMETER_FILE = "{{$.outputs.parameters['said'].output_file}}"


def failed(result, step, *words):
    """Assert that a step and the run failed, and that record and page say so with `words`."""
    assert result.state == "failed"
    assert result.steps[step].state == "failed", result.steps[step]
    for word in words:
        assert word in result.steps[step].error, result.steps[step].error
        assert word in result.error
    kept = json.loads((result.folder / "run.json").read_text())
    assert kept["steps"][step]["state"] == "failed"
    page = result.page.read_text()
    assert '<span class="state">failed</span>' in page
    assert '<span class="state">running</span>' not in page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"artifacts": {"made": null}}', "null"),
        ('{"artifacts": {"made": {"artifacts": ["x"]}}}', "x"),
        ('{"artifacts": {"made": {"artifacts": [{"metadata": "x"}]}}}', "x"),
        ('{"artifacts": {"made": {"artifacts": [{"metadata": {"f1": null}}]}}}', "'f1'"),
        ('{"artifacts": {"made": {"artifacts": [{"metadata": {"f1": NaN}}]}}}', "NaN"),
        ('{"artifacts": {"made": {"artifacts": [{"metadata": {"f1": -Infinity}}]}}}', "Infinity"),
        ('{"artifacts": {"made": {"artifacts": [{"metadata": {"f1": 1e999}}]}}}', "1e999"),
        ('{"artifacts": {"made": {"artifacts": [{"metadata": {"f": [0, NaN]}}]}}}', "NaN"),
        ('{"artifacts": ["x"]}', "artifacts"),
        ("[1]", "ExecutorOutput"),
        ('"text"', "ExecutorOutput"),
        ("null", "ExecutorOutput"),
        ("{", "is no JSON"),
        ('{"unknown": 1}', "unknown"),
        ("[" * 100_000, "nested deeper"),
    ],
)
def test_executor_output_of_another_shape_fails_the_step_after_its_retries(
    run_written, text, words
):
    step = {"script": f'cat > "$0" <<E\n{text}\nE\n', "words": [OUTPUT_FILE],
            "artifacts": ["made"], "retries": 2}  # fmt: skip
    result = run_written({"odd": step})
    failed(result, "odd", words)
    assert result.steps["odd"].attempts == 3


def test_executor_output_that_is_not_text_fails_the_step(run_written):
    step = {"script": 'printf \'{"\\351": 1}\' > "$0"', "words": [OUTPUT_FILE], "retries": 1}
    result = run_written({"odd": step})
    failed(result, "odd", "executor_output.json")
    assert result.steps["odd"].attempts == 2


def test_an_output_parameter_that_is_null_fails_the_step(run_written):
    script = 'echo "{\\"parameterValues\\": {\\"said\\": null}}" > "$0"'
    step = {"script": script, "words": [OUTPUT_FILE], "parameters": ["said"]}
    failed(run_written({"empty": step}), "empty", "'said' is null")


def test_an_output_parameter_that_is_not_utf8_is_named_with_its_file(run_written):
    step = {"script": "printf 'caf\\351' > \"$0\"", "words": [PARAMETER_FILE],
            "parameters": ["said"], "retries": 1}  # fmt: skip
    result = run_written({"binary": step})
    failed(result, "binary", "'said' is not UTF-8", "out/.parameters/said", "byte 3")
    assert result.steps["binary"].attempts == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a\0b", "has a NUL byte"), (b"caf\xe9", "is not UTF-8 text"), (None, "has no key token")],
)
def test_a_secret_that_no_variable_can_hold_is_named_and_never_shown(
    run_written, tmp_path, content, words
):
    (tmp_path / "s").mkdir()
    if content:
        (tmp_path / "s" / "token").write_bytes(content)
    asks = [{"secretName": "s", "keyToEnv": [{"envVar": "TOKEN", "secretKey": "token"}]}]
    result = run_written(
        {"sec": {"script": "echo $TOKEN", "retries": 1}}, kubernetes={"sec": {"secretAsEnv": asks}},
        secrets={"s": tmp_path / "s"},
    )  # fmt: skip
    failed(result, "sec", words, str(tmp_path / "s" / "token"))


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ReadTimeout("Read timed out. (read timeout=60)"),
        ValueError("embedded null byte"),
        KeyError("StatusCode"),
        OSError(errno.ENOSPC, "No space left on device", "/x"),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("place", ["start", "wait"])
def test_an_error_of_the_engine_is_tried_again_and_then_the_steps_failure(
    run_written, monkeypatch, error, place
):
    """The first two attempts break; a policy of two retries gets the third one."""
    begin, broken = Bubblewrap.start, [error, error]

    def start(self, process, *rest):
        if place == "start" and broken:
            raise broken.pop()
        running = begin(self, process, *rest)
        if broken:
            wait, once = running.wait, [broken.pop()]

            def interrupted():
                ended = wait()
                if once:
                    raise once.pop()
                return ended

            running.wait = interrupted
        return running

    monkeypatch.setattr(Bubblewrap, "start", start)
    assert run_written({"a": {"script": "exit 0", "retries": 2}}).state == "succeeded"
    broken[:] = [error, error]
    result = run_written({"a": {"script": "exit 0", "retries": 1}})
    failed(result, "a", "No space left" if isinstance(error, OSError) and error.errno else
           type(error).__name__)  # fmt: skip


def test_a_defect_outside_of_a_container_is_a_failure_on_the_page_too(execute, image, monkeypatch):
    from pipeline.run.scheduler import Graph

    def broken(self, *_):
        raise ZeroDivisionError("a defect")

    @dsl.container_component
    def script(n: int):
        return dsl.ContainerSpec(image, ["sh", "-c", "exit 0"], [n])

    @dsl.pipeline(name="defect")
    def pipeline(far: str = "s3://b/k"):
        with dsl.ParallelFor([1]) as n:
            dsl.importer(artifact_uri=far, artifact_class=dsl.Dataset)
            script(n=n)

    monkeypatch.setattr(Graph, "_import", broken)
    result = execute(pipeline)
    (name,) = (name for name in result.steps if name.endswith("importer"))
    failed(result, name, "ZeroDivisionError('a defect')")


def test_a_terminal_that_is_gone_does_not_end_a_run(store, image, tmp_path):
    def closed(_):
        raise BrokenPipeError

    @dsl.container_component
    def script():
        return dsl.ContainerSpec(image, ["sh", "-c", "exit 0"])

    @dsl.pipeline(name="closed")
    def pipeline():
        script()

    compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
    result = runner.run(
        runner.load(tmp_path / "p.yaml"), store, parameters={}, volumes={}, secrets={},
        runs=tmp_path / "runs", engine="bubblewrap", use_cache=False, progress=closed,
    )  # fmt: skip
    assert result.state == "succeeded"


def test_the_last_words_of_a_step_cannot_write_on_the_terminal(run_written):
    why = run_written({"a": {"script": "printf 'bad\\033[2Jnews'; exit 1"}}).error
    assert "it said: bad[2Jnews" in why


def test_an_argument_that_is_too_long_names_its_parameter(run_written):
    step = {"script": "exit 0", "words": ["{{$.inputs.parameters['items']}}"],
            "given": {"items": "x" * 200_000, "other": "y"}}  # fmt: skip
    failed(run_written({"big": step}), "big", "'items'", "200000 bytes", "131071")


def test_a_step_whose_name_is_longer_than_a_file_name_runs(execute, image):
    """The names of nested pipelines are joined: 6 of 80 letters are more than 255 bytes."""

    @dsl.container_component
    def make(made: dsl.Output[dsl.Dataset]):
        return dsl.ContainerSpec(image, ["sh", "-c", 'echo x > "$0"'], [made.path])

    @dsl.container_component
    def read(one: dsl.Input[dsl.Dataset], said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'cat "$0" > "$1"'], [one.path, said])

    @dsl.pipeline(name="inner-" + "x" * 80)
    def inner() -> str:
        return read(one=make().outputs["made"]).outputs["said"]

    def around(nested, number):
        @dsl.pipeline(name=f"nested-{number}-" + "y" * 80)
        def outer() -> str:
            return nested().output

        return outer

    whole = inner
    for number in range(4):
        whole = around(whole, number)
    result = execute(whole)
    assert result.state == "succeeded", result.error
    assert result.outputs == {"Output": "x\n"}
    (name,) = (name for name in result.steps if name.endswith("make"))
    assert len(name) > 255
    uri = result.steps[name].artifacts["made"][0]["uri"]
    assert result.path(uri).read_text() == "x\n"
    assert name in result.page.read_text()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "make room"), (errno.EDQUOT, "make room"), (errno.EROFS, "--runs DIR"),
     (errno.EACCES, "--runs DIR"), (errno.ENAMETOOLONG, "shorter path"), (errno.EIO, "message")],
)  # fmt: skip
def test_advice_fits_the_error(number, words):
    assert words in places.advice(OSError(number, os.strerror(number)))


def test_runs_on_a_disk_that_cannot_be_written_says_how_to_choose_another(
    run_written, monkeypatch, tmp_path
):
    def mkdir(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(PipelineError, match=r"Read-only file system.*--runs DIR"):
        run_written({"a": {"script": "exit 0"}})


def test_an_artifact_is_where_its_step_says_it_is(run_written):
    result = run_written(
        {
            "elsewhere": {
                "script": 'echo -n csv > "$0.csv"; echo "{\\"artifacts\\": {\\"made\\": '
                '{\\"artifacts\\": [{\\"name\\": \\"made\\", \\"uri\\": \\"$0.csv\\", '
                '\\"metadata\\": {\\"rows\\": 3}}]}}}" > "$1"',
                "words": ["{{$.outputs.artifacts['made'].path}}", OUTPUT_FILE],
                "artifacts": ["made"],
            },
            "passes": {  # reports its own input as its output
                "script": 'echo "{\\"artifacts\\": {\\"same\\": {\\"artifacts\\": '
                '[{\\"uri\\": \\"$0\\"}]}}}" > "$1"',
                "words": ["{{$.inputs.artifacts['one'].path}}", OUTPUT_FILE],
                "artifacts": ["same"], "takes": {"one": ("elsewhere", "made")},
            },
            "where": {
                "script": 'cat "$0" > "$1"', "parameters": ["said"],
                "words": ["{{$.inputs.artifacts['one'].path}}", PARAMETER_FILE],
                "takes": {"one": ("passes", "same")},
            },
        },
        cache=True,
    )  # fmt: skip
    assert result.state == "succeeded", result.error
    assert result.steps["where"].outputs == {"said": "csv"}
    (made,) = result.steps["elsewhere"].artifacts["made"]
    assert made["uri"].endswith("/made.csv")
    assert made["metadata"] == {"rows": 3}


def test_a_uri_of_another_machine_is_passed_on_and_nothing_is_mounted(run_written):
    result = run_written(
        {
            "far": {"script": 'echo \'{"artifacts": {"made": {"artifacts": '
                              '[{"uri": "s3://b/k"}]}}}\' > "$0"',
                    "words": [OUTPUT_FILE], "artifacts": ["made"]},
            "where": {"script": 'echo -n "$0" > "$1"', "parameters": ["said"],
                      "words": ["{{$.inputs.artifacts['one'].uri}}", PARAMETER_FILE],
                      "takes": {"one": ("far", "made")}},
        }
    )  # fmt: skip
    assert result.steps["where"].outputs == {"said": "s3://b/k"}


@pytest.mark.parametrize("text", ["nan", " -Infinity"])
@pytest.mark.parametrize("read", [True, False])
def test_a_text_that_is_no_finite_number_fails_who_reads_it(execute, image, text, read):
    """As seen: the launcher takes it, the driver of the consumer does not."""

    @dsl.container_component
    def make(text: str, number: dsl.OutputPath(float)):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'mkdir -p "${1%/*}"; echo "$0" > "$1"'], [text, number]
        )

    @dsl.container_component
    def use(number: float):
        return dsl.ContainerSpec(image, ["echo"], [number])

    @dsl.pipeline(name="numbers")
    def numbers(text: str):
        made = make(text=text)
        if read:
            use(number=made.output)

    result = execute(numbers, text=text)
    states = {name: step.state for name, step in result.steps.items()}
    assert states == {"make": "succeeded"} | ({"use": "failed"} if read else {})
    assert result.state == ("failed" if read else "succeeded")
    assert not read or "NUMBER_DOUBLE" in result.error
    json.loads((result.folder / "run.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("nested", [True, False])
def test_a_list_of_artifacts_fails_a_nested_pipeline_that_would_lose_all_but_one(
    execute, image, nested
):
    @dsl.container_component
    def make(name: str, made: dsl.Output[dsl.Model]):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'mkdir -p "${1%/*}"; echo "$0" > "$1"'], [name, made.path]
        )

    @dsl.container_component
    def gather(models: dsl.Input[list[dsl.Model]], said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'mkdir -p "${1%/*}"; echo "$0" > "$1"'], ["{{$}}", said]
        )

    @dsl.pipeline(name="inner")
    def inner(models: dsl.Input[list[dsl.Model]]):
        gather(models=models)

    @dsl.pipeline(name="lists")
    def lists(names: list):
        with dsl.ParallelFor(names) as item:
            made = make(name=item)
        (inner if nested else gather)(models=dsl.Collected(made.outputs["made"]))

    two = execute(lists, names=["a", "b"])
    assert two.state == ("failed" if nested else "succeeded")
    if nested:
        assert "the list of artifacts 'models' has 2" in two.error
    else:
        assert two.steps["gather"].outputs["said"].count('"uri": "/kfp/for-loop') == 2
    assert execute(lists, names=["a"]).state == "succeeded"
