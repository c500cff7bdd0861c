"""Packages that two engines run: each shows one part of the language, and knows what it must give.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kfp import dsl


@dataclass(frozen=True)
class Case:
    """A pipeline, its arguments, and what a cluster makes of it: outputs, state, steps that ran."""

    pipeline: Callable[..., Any]
    outputs: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    state: str = "succeeded"
    said: dict[str, str] = field(default_factory=dict)  # step -> what it wrote to its output `said`
    not_run: tuple[str, ...] = ()


def cases(image: str) -> dict[str, Case]:
    """Return name -> case, for an image with busybox."""

    def shell(script: str, *words: Any) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image, ["sh", "-c", script], list(words))

    @dsl.container_component
    def say(text: str, said: dsl.OutputPath(str)):
        return shell('mkdir -p "${1%/*}"; echo -n "$0" > "$1"', text, said)

    @dsl.container_component
    def double(value: int, doubled: dsl.OutputPath(int)):
        return shell('mkdir -p "${1%/*}"; echo -n $(($0 * 2)) > "$1"', value, doubled)

    @dsl.container_component
    def is_big(value: int, big: dsl.OutputPath(bool)):
        return shell(
            'mkdir -p "${1%/*}"; test "$0" -gt 5 && echo -n true > "$1" || echo -n false > "$1"',
            value, big,
        )  # fmt: skip

    @dsl.container_component
    def every(s: str, i: int, f: float, b: bool, items: list, d: dict, said: dsl.OutputPath(str)):
        script = 'mkdir -p "${6%/*}"; echo -n "$0|$1|$2|$3|$4|$5" > "$6"'
        return shell(script, s, i, f, b, items, d, said)

    @dsl.container_component
    def names(found: dsl.OutputPath(list)):
        return shell('mkdir -p "${0%/*}"; echo -n \'["x", "y"]\' > "$0"', found)

    @dsl.container_component
    def join(texts: list, said: dsl.OutputPath(str)):
        return shell('mkdir -p "${1%/*}"; echo -n "$0" > "$1"', texts, said)

    @dsl.container_component
    def make(text: str, made: dsl.Output[dsl.Dataset]):
        return shell(
            'mkdir -p "$1" "${2%/*}"; echo -n "$0" > "$1/f"; echo "{\\"artifacts\\": {\\"made\\": '
            '{\\"artifacts\\": [{\\"name\\": \\"made\\", \\"uri\\": \\"$1\\"}]}}}" > "$2"',
            text, made.path, "{{$.outputs.output_file}}",
        )  # fmt: skip

    @dsl.container_component
    def make_silently(made: dsl.Output[dsl.Dataset]):
        return shell('mkdir -p "$0"; echo -n silent > "$0/f"', made.path)

    @dsl.container_component
    def read(one: dsl.Input[dsl.Dataset], said: dsl.OutputPath(str)):
        return shell('mkdir -p "${1%/*}"; cat "$0/f" > "$1"', one.path, said)

    @dsl.container_component
    def describe(score: dsl.Output[dsl.Metrics], said: dsl.OutputPath(str)):
        return shell(
            'mkdir -p "${0%/*}" "${1%/*}"; echo -n told > "$1"; '
            'echo "{\\"artifacts\\": {\\"score\\": {\\"artifacts\\": [{\\"name\\": \\"score\\", '
            '\\"uri\\": \\"$2\\", \\"metadata\\": {\\"f1\\": 0.5}}]}}}" > "$0"',
            "{{$.outputs.output_file}}", said, score.uri,
        )  # fmt: skip

    @dsl.container_component
    def know(score: dsl.Input[dsl.Metrics], said: dsl.OutputPath(str)):
        return shell('mkdir -p "${1%/*}"; echo -n "$0" > "$1"', score.metadata["f1"], said)

    @dsl.container_component
    def maybe(said: dsl.OutputPath(str), text: str = "quiet", more: int = None):  # noqa: RUF013
        return shell(
            'mkdir -p "${0%/*}"; echo -n "$*" > "$0"', said, text,
            dsl.IfPresentPlaceholder("more", ["--more", more], ["--none"]),
        )  # fmt: skip

    @dsl.container_component
    def glue(a: str, b: int, said: dsl.OutputPath(str)):
        return shell(
            'mkdir -p "${1%/*}"; echo -n "$0" > "$1"', dsl.ConcatPlaceholder([a, "-", b]), said
        )

    @dsl.container_component
    def pair(a: str, b: str, said: dsl.OutputPath(str)):
        return shell('mkdir -p "${2%/*}"; echo -n "$0-$1" > "$2"', a, b, said)

    @dsl.container_component
    def fail(code: int, said: dsl.OutputPath(str)):
        return shell('sleep 0.2; exit "$0"', code, said)

    @dsl.container_component
    def last(status: dsl.PipelineTaskFinalStatus, said: dsl.OutputPath(str)):
        return shell('mkdir -p "${1%/*}"; echo -n "$0" > "$1"', "{{$}}", said)

    @dsl.container_component
    def farewell(said: dsl.OutputPath(str)):
        return shell('mkdir -p "${0%/*}"; echo -n bye > "$0"', said)

    @dsl.container_component
    def loose(number: dsl.OutputPath(int), truth: dsl.OutputPath(bool)):
        return shell('mkdir -p "${0%/*}"; echo " 42" > "$0"; echo " True" > "$1"', number, truth)

    @dsl.container_component
    def came_from(one: dsl.Input[dsl.Dataset], said: dsl.OutputPath(str)):
        return shell(
            'mkdir -p "${2%/*}"; echo -n "$0 $1" > "$2"', one.uri, one.metadata["origin"], said
        )

    class Three(NamedTuple):
        s: str
        n: int
        made: dsl.Dataset

    @dsl.pipeline(name="parameters")
    def parameters(
        s: str, f: float = 0.5, i: int = 7, b: bool = True, items: list = ["a", 1],  # noqa: B006
        d: dict = {"k": [1, 2.5]},  # noqa: B006
    ) -> str:  # fmt: skip
        return every(s=s, i=i, f=f, b=b, items=items, d=d).output

    @dsl.pipeline(name="constants")
    def constants() -> str:
        return every(s='a "b" ü', i=-3, f=2.0, b=False, items=[], d={}).output

    @dsl.pipeline(name="artifacts")
    def artifacts(text: str = "content") -> str:
        return read(one=make(text=text).outputs["made"]).output

    @dsl.pipeline(name="silent")
    def silent() -> str:
        return read(one=make_silently().outputs["made"]).output

    @dsl.pipeline(name="metadata")
    def metadata() -> str:
        return know(score=describe().outputs["score"]).output

    @dsl.pipeline(name="conditions")
    def conditions(n: int) -> str:
        doubled = double(value=n)
        with dsl.If(doubled.output > 10, name="big"):
            big = say(text="big")
        with dsl.Elif(doubled.output == 10, name="ten"):
            ten = say(text="ten")
        with dsl.Else(name="small"):
            small = say(text="small")
        return dsl.OneOf(big.output, ten.output, small.output)

    @dsl.pipeline(name="truth")
    def truth(n: int):
        found = is_big(value=n)
        with dsl.If(found.output == True, name="yes"):  # noqa: E712
            farewell()

    @dsl.pipeline(name="loop-constants")
    def loop_constants() -> str:
        with dsl.ParallelFor(["b", "a", "c"]) as item:
            said = say(text=item)
        return join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-parameter")
    def loop_parameter(items: list = [3, 1]) -> str:  # noqa: B006
        with dsl.ParallelFor(items, parallelism=1) as item:
            doubled = double(value=item)
        return join(texts=dsl.Collected(doubled.output)).output

    @dsl.pipeline(name="loop-output")
    def loop_output() -> str:
        with dsl.ParallelFor(names().output) as item:
            said = say(text=item)
        return join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-members")
    def loop_members() -> str:
        with dsl.ParallelFor([{"a": "x", "b": 1}, {"a": "y", "b": 2}]) as item:
            said = pair(a=item.a, b=item.b)
        return join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-nested")
    def loop_nested() -> str:
        with dsl.ParallelFor([1, 2]) as outer, dsl.ParallelFor(["a", "b"]) as inner:
            said = glue(a=inner, b=outer)
        return join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-empty")
    def loop_empty(items: list = []) -> str:  # noqa: B006
        with dsl.ParallelFor(items) as item:
            said = say(text=item)
        return join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-condition")
    def loop_condition(items: list = [1, 9]):  # noqa: B006
        with dsl.ParallelFor(items) as item, dsl.If(item > 5, name="big"):
            say(text="big")

    @dsl.pipeline(name="loop-of-artifacts")
    def loop_artifacts() -> str:
        with dsl.ParallelFor(["x", "y"]) as item:
            said = read(one=make(text=item).outputs["made"])
        return join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="exit-handler")
    def exit_handler(code: int):
        with dsl.ExitHandler(last()):
            fail(code=code)

    @dsl.pipeline(name="exit-well")
    def exit_well():
        with dsl.ExitHandler(last()):
            say(text="well")

    @dsl.pipeline(name="retry")
    def retry(code: int):
        fail(code=code).set_retry(num_retries=2, backoff_duration="0s")

    @dsl.pipeline(name="failure")
    def failure():
        say(text="never").after(fail(code=3))
        farewell()

    @dsl.pipeline(name="inner")
    def inner(text: str, n: int = 4) -> NamedTuple("Out", s=str, n=int, made=dsl.Dataset):
        return Three(say(text=text).output, double(value=n).output, make(text=text).outputs["made"])

    @dsl.pipeline(name="nested")
    def nested(text: str = "deep") -> str:
        made = inner(text=text)
        copied = read(one=made.outputs["made"])
        more = double(value=made.outputs["n"])
        return (
            every(s=made.outputs["s"], i=more.output, f=0.25, b=True, items=[], d={})
            .after(copied)
            .output
        )

    @dsl.pipeline(name="middle")
    def middle(items: list) -> list:
        with dsl.ParallelFor(items) as item:
            said = say(text=item)
        return dsl.Collected(said.output)

    @dsl.pipeline(name="nested-loop")
    def nested_loop() -> str:
        return join(texts=middle(items=["p", "q"]).output).output

    @dsl.pipeline(name="optional")
    def optional() -> str:
        return maybe().output

    @dsl.pipeline(name="optional-given")
    def optional_given(more: int = 2) -> str:
        return maybe(text="loud", more=more).output

    @dsl.pipeline(name="list-of-outputs")
    def list_of_outputs() -> str:
        return join(texts=[say(text="a").output, say(text="b").output]).output

    @dsl.pipeline(name="strings")
    def strings(text: str = "x") -> str:
        return say(text=f"<{text}|{double(value=2).output}>").output

    @dsl.pipeline(name="concat")
    def concat(a: str = "left", b: int = 3) -> str:
        return glue(a=a, b=b).output

    @dsl.pipeline(name="blanks")
    def blanks() -> str:
        found = loose()
        return every(
            s="", i=found.outputs["number"], f=0.5, b=found.outputs["truth"], items=[], d={}
        ).output

    @dsl.pipeline(name="task-name")
    def task_name() -> str:
        return say(text=dsl.PIPELINE_TASK_NAME_PLACEHOLDER).output

    @dsl.pipeline(name="imported")
    def imported(origin: str = "lab", place: str = "https://example.org/data.csv") -> str:
        found = dsl.importer(
            artifact_uri=place, artifact_class=dsl.Dataset, reimport=True,
            metadata={"origin": origin, "fixed": "yes"},
        )  # fmt: skip
        return came_from(one=found.output).output

    @dsl.pipeline(name="no-output")
    def no_output():
        @dsl.container_component
        def nothing(said: dsl.OutputPath(str)):
            return shell("sleep 0.2", said)

        nothing()

    status = '"state": "{}"'
    return {
        "parameters": Case(
            parameters, {"Output": 's|7|0.5|true|["a",1]|{"k":[1,2.5]}'}, {"s": "s"}
        ),
        "parameters given": Case(
            parameters, {"Output": "t|-1|0.00001|false|[]|{}"},
            {"s": "t", "i": -1, "f": 1e-5, "b": False, "items": [], "d": {}},
        ),
        "constants": Case(constants, {"Output": 'a "b" ü|-3|2|false|[]|{}'}),
        "artifacts": Case(artifacts, {"Output": "content"}),
        "an artifact that is only a file": Case(silent, {"Output": "silent"}),
        "metadata": Case(metadata, {"Output": "0.5"}),
        "if": Case(conditions, {"Output": "big"}, {"n": 6}),
        "elif": Case(conditions, {"Output": "ten"}, {"n": 5}),
        "else": Case(conditions, {"Output": "small"}, {"n": 1}),
        "condition that is true": Case(truth, {}, {"n": 6}, said={"farewell": "bye"}),
        "condition that is false": Case(truth, {}, {"n": 5}, not_run=("farewell",)),
        "loop over constants": Case(loop_constants, {"Output": '["b","a","c"]'}),
        "loop over a parameter": Case(loop_parameter, {"Output": "[6,2]"}),
        "loop over an output": Case(loop_output, {"Output": '["x","y"]'}),
        "loop over members": Case(loop_members, {"Output": '["x-1","y-2"]'}),
        "loop in a loop": Case(loop_nested, {"Output": '[["a-1","b-1"],["a-2","b-2"]]'}),
        "loop over nothing": Case(loop_empty, {}, {}, "failed", not_run=("join",)),
        "condition in a loop": Case(loop_condition, {}, said={"say": "big"}),
        "artifacts in a loop": Case(loop_artifacts, {"Output": '["x","y"]'}),
        "exit handler after a failure": Case(
            exit_handler, {}, {"code": 1}, "failed", {"last": status.format("FAILED")}
        ),
        "exit handler after success": Case(
            exit_well, {}, said={"last": status.format("COMPLETE")}
        ),
        "retry": Case(retry, {}, {"code": 4}, "failed"),
        "failure": Case(failure, {}, {}, "failed", not_run=("say",)),
        "nested pipeline": Case(nested, {"Output": 'deep|16|0.25|true|[]|{}'}),
        "loop in a nested pipeline": Case(nested_loop, {"Output": '["p","q"]'}),
        "optional input left out": Case(optional, {"Output": "quiet --none"}),
        "optional input given": Case(optional_given, {"Output": "loud --more 2"}),
        "list of outputs": Case(list_of_outputs, {"Output": '["a","b"]'}),
        "strings with parameters": Case(strings, {"Output": "<x|4>"}),
        "concatenation": Case(concat, {"Output": "left-3"}),
        "blanks around outputs": Case(blanks, {"Output": "|42|0.5|true|[]|{}"}),
        "name of the task": Case(task_name, {"Output": "say"}),
        "metadata of an importer": Case(imported, {"Output": "https://example.org/data.csv lab"}),
        "no output": Case(no_output, {}, {}, "failed"),
    }  # fmt: skip
