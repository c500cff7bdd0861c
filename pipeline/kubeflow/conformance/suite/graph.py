"""What runs, how often and after what: conditions, loops, exit handlers, nesting, failures.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from types import SimpleNamespace
from typing import NamedTuple

from kfp import dsl

from pipeline.kubeflow.conformance.suite.case import Case


class _Three(NamedTuple):
    s: str
    n: int
    made: dsl.Dataset


def cases(c: SimpleNamespace) -> dict[str, Case]:
    """Return name -> case, made of the steps `c`."""
    return _conditions(c) | _loops(c) | _ends(c) | _nested(c)


def _conditions(c: SimpleNamespace) -> dict[str, Case]:
    @dsl.pipeline(name="conditions")
    def conditions(n: int) -> str:
        doubled = c.double(value=n)
        with dsl.If(doubled.output > 10, name="big"):
            big = c.say(text="big")
        with dsl.Elif(doubled.output == 10, name="ten"):
            ten = c.say(text="ten")
        with dsl.Else(name="small"):
            small = c.say(text="small")
        return dsl.OneOf(big.output, ten.output, small.output)

    @dsl.pipeline(name="truth")
    def truth(n: int):
        found = c.is_big(value=n)
        with dsl.If(found.output == True, name="yes"):  # noqa: E712
            c.farewell()

    return {
        "if": Case(conditions, {"Output": "big"}, {"n": 6}),
        "elif": Case(conditions, {"Output": "ten"}, {"n": 5}),
        "else": Case(conditions, {"Output": "small"}, {"n": 1}),
        "condition that is true": Case(truth, {}, {"n": 6}, said={"farewell": "bye"}),
        "condition that is false": Case(truth, {}, {"n": 5}, states={"farewell": "skipped"}),
    }


def _loops(c: SimpleNamespace) -> dict[str, Case]:
    @dsl.pipeline(name="loop-constants")
    def loop_constants() -> str:
        with dsl.ParallelFor(["b", "a", "c"]) as item:
            said = c.say(text=item)
        return c.join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-parameter")
    def loop_parameter(items: list = [3, 1]) -> str:  # noqa: B006
        with dsl.ParallelFor(items, parallelism=1) as item:
            doubled = c.double(value=item)
        return c.join(texts=dsl.Collected(doubled.output)).output

    @dsl.pipeline(name="loop-output")
    def loop_output() -> str:
        with dsl.ParallelFor(c.names().output) as item:
            said = c.say(text=item)
        return c.join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-members")
    def loop_members() -> str:
        with dsl.ParallelFor([{"a": "x", "b": 1}, {"a": "y", "b": 2}]) as item:
            said = c.pair(a=item.a, b=item.b)
        return c.join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-nested")
    def loop_nested() -> str:
        with dsl.ParallelFor([1, 2]) as outer, dsl.ParallelFor(["a", "b"]) as inner:
            said = c.glue(a=inner, b=outer)
        return c.join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-empty")
    def loop_empty(items: list = []) -> str:  # noqa: B006
        with dsl.ParallelFor(items) as item:
            said = c.say(text=item)
        return c.join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="loop-condition")
    def loop_condition(items: list = [1, 9]):  # noqa: B006
        with dsl.ParallelFor(items) as item, dsl.If(item > 5, name="big"):
            c.say(text="big")

    return {
        "loop over constants": Case(loop_constants, {"Output": '["b","a","c"]'}),
        "loop over a parameter": Case(loop_parameter, {"Output": "[6,2]"}),
        "loop over an output": Case(loop_output, {"Output": '["x","y"]'}),
        "loop over members": Case(loop_members, {"Output": '["x-1","y-2"]'}),
        "loop in a loop": Case(loop_nested, {"Output": '[["a-1","b-1"],["a-2","b-2"]]'}),
        "loop over nothing": Case(loop_empty, {}, {}, "failed", states={"join": "failed"}),
        "condition in a loop": Case(loop_condition, {}, said={"say": "big"}),
    }


def _ends(c: SimpleNamespace) -> dict[str, Case]:
    @dsl.pipeline(name="exit-handler")
    def exit_handler(code: int):
        with dsl.ExitHandler(c.last()):
            c.fail(code=code)

    @dsl.pipeline(name="exit-well")
    def exit_well():
        with dsl.ExitHandler(c.last()):
            c.say(text="well")

    @dsl.pipeline(name="retry")
    def retry(code: int):
        c.fail(code=code).set_retry(num_retries=2, backoff_duration="0s")

    @dsl.pipeline(name="failure")
    def failure():
        c.say(text="never").after(c.fail(code=3))
        c.farewell()

    return {
        "exit handler after a failure": Case(
            exit_handler, {}, {"code": 1}, "failed", {"last": "FAILED"}, {"fail": "failed"}
        ),
        "exit handler after success": Case(exit_well, {}, said={"last": "COMPLETE"}),
        "retry": Case(retry, {}, {"code": 4}, "failed", states={"fail": "failed"}),
        "failure": Case(failure, {}, {}, "failed", states={"fail": "failed", "say": "skipped"}),
    }


def _nested(c: SimpleNamespace) -> dict[str, Case]:
    @dsl.pipeline(name="inner")
    def inner(text: str, n: int = 4) -> NamedTuple("Out", s=str, n=int, made=dsl.Dataset):
        return _Three(
            c.say(text=text).output, c.double(value=n).output, c.make(text=text).outputs["made"]
        )

    @dsl.pipeline(name="nested")
    def nested(text: str = "deep") -> str:
        made = inner(text=text)
        copied = c.read(one=made.outputs["made"])
        more = c.double(value=made.outputs["n"])
        return (
            c.every(s=made.outputs["s"], i=more.output, f=0.25, b=True, items=[], d={})
            .after(copied)
            .output
        )

    @dsl.pipeline(name="middle")
    def middle(items: list) -> list:
        with dsl.ParallelFor(items) as item:
            said = c.say(text=item)
        return dsl.Collected(said.output)

    @dsl.pipeline(name="nested-loop")
    def nested_loop() -> str:
        return c.join(texts=middle(items=["p", "q"]).output).output

    return {
        "nested pipeline": Case(nested, {"Output": "deep|16|0.25|true|[]|{}"}),
        "loop in a nested pipeline": Case(nested_loop, {"Output": '["p","q"]'}),
    }
