"""Parameters of every type, and what becomes of them on their way: constants, strings, defaults.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from types import SimpleNamespace

from kfp import dsl

from pipeline.kubeflow.conformance.suite.case import Case


def cases(c: SimpleNamespace) -> dict[str, Case]:
    """Return name -> case, made of the steps `c`."""

    @dsl.pipeline(name="parameters")
    def parameters(
        s: str, f: float = 0.5, i: int = 7, b: bool = True, items: list = ["a", 1],  # noqa: B006
        d: dict = {"k": [1, 2.5]},  # noqa: B006
    ) -> str:  # fmt: skip
        return c.every(s=s, i=i, f=f, b=b, items=items, d=d).output

    @dsl.pipeline(name="constants")
    def constants() -> str:
        return c.every(s='a "b" ü', i=-3, f=2.0, b=False, items=[], d={}).output

    @dsl.pipeline(name="outputs")
    def outputs() -> str:
        made = c.each().outputs
        return c.every(s=made["s"], i=made["i"], f=made["f"], b=made["b"], items=made["items"],
                       d=made["d"]).output  # fmt: skip

    @dsl.pipeline(name="optional")
    def optional() -> str:
        return c.maybe().output

    @dsl.pipeline(name="optional-given")
    def optional_given(more: int = 2) -> str:
        return c.maybe(text="loud", more=more).output

    @dsl.pipeline(name="list-of-outputs")
    def list_of_outputs() -> str:
        return c.join(texts=[c.say(text="a").output, c.say(text="b").output]).output

    @dsl.pipeline(name="strings")
    def strings(text: str = "x") -> str:
        return c.say(text=f"<{text}|{c.double(value=2).output}>").output

    @dsl.pipeline(name="concat")
    def concat(a: str = "left", b: int = 3) -> str:
        return c.glue(a=a, b=b).output

    @dsl.pipeline(name="blanks")
    def blanks() -> str:
        found = c.loose()
        return c.every(
            s="", i=found.outputs["number"], f=0.5, b=found.outputs["truth"], items=[], d={}
        ).output

    @dsl.pipeline(name="task-name")
    def task_name() -> str:
        return c.say(text=dsl.PIPELINE_TASK_NAME_PLACEHOLDER).output

    @dsl.pipeline(name="no-output")
    def no_output():
        c.nothing()

    return {
        "parameters": Case(
            parameters, {"Output": 's|7|0.5|true|["a",1]|{"k":[1,2.5]}'}, {"s": "s"}
        ),
        "parameters given": Case(
            parameters, {"Output": "t|-1|1e-05|false|[]|{}"},
            {"s": "t", "i": -1, "f": 1e-5, "b": False, "items": [], "d": {}},
        ),
        "parameters with null inside": Case(
            parameters, {"Output": 's|7|0.5|true|[null,{"a":null}]|{"k":[1,2.5]}'},
            {"s": "s", "items": [None, {"a": None}]},
        ),
        "constants": Case(constants, {"Output": 'a "b" ü|-3|2|false|[]|{}'}),
        "outputs of every type": Case(
            outputs, {"Output": 'ü|-7|0.25|true|[1,["a",null],{}]|{"k":{"n":1.5}}'}
        ),
        "optional input left out": Case(optional, {"Output": "quiet --none"}),
        "optional input given": Case(optional_given, {"Output": "loud --more 2"}),
        "list of outputs": Case(list_of_outputs, {"Output": '["a","b"]'}),
        "strings with parameters": Case(strings, {"Output": "<x|4>"}),
        "concatenation": Case(concat, {"Output": "left-3"}),
        "blanks around outputs": Case(blanks, {"Output": "|42|0.5|true|[]|{}"}),
        "name of the task": Case(task_name, {"Output": "say"}),
        "no output": Case(no_output, {}, {}, "failed", states={"nothing": "failed"}),
    }  # fmt: skip
