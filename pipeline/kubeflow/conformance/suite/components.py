"""The steps that the suite's packages are made of: shell scripts for an image with /bin/sh.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from types import SimpleNamespace
from typing import Any

from kfp import dsl

# Reads outputs.outputFile, where the executor output is to be written, out of the `{{$}}` in $0.
# Only for steps without output parameters: each of those has an outputFile as well, in any order.
_OUTPUT_FILE = (
    "out=${0#*'\"outputFile\":'}; out=${out#*'\"'}; out=${out%%'\"'*}; mkdir -p \"${out%/*}\"; "
)
_WRITE = 'mkdir -p "${1%/*}"; echo -n "$0" > "$1"'


def components(image: str) -> SimpleNamespace:
    """Return the steps by name, all of them running `image`."""

    def shell(script: str, *words: Any) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image, ["sh", "-c", script], list(words))

    @dsl.container_component
    def say(text: str, said: dsl.OutputPath(str)):
        return shell(_WRITE, text, said)

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
    def each(
        s: dsl.OutputPath(str), i: dsl.OutputPath(int), f: dsl.OutputPath(float),
        b: dsl.OutputPath(bool), items: dsl.OutputPath(list), d: dsl.OutputPath(dict),
    ):  # fmt: skip
        script = (
            'for file in "$0" "$@"; do mkdir -p "${file%/*}"; done; echo -n "ü" > "$0"; '
            'echo -n -7 > "$1"; echo -n 0.25 > "$2"; echo -n true > "$3"; '
            'echo -n \'[1, ["a", null], {}]\' > "$4"; echo -n \'{"k": {"n": 1.5}}\' > "$5"'
        )
        return shell(script, s, i, f, b, items, d)

    @dsl.container_component
    def names(found: dsl.OutputPath(list)):
        return shell('mkdir -p "${0%/*}"; echo -n \'["x", "y"]\' > "$0"', found)

    @dsl.container_component
    def join(texts: list, said: dsl.OutputPath(str)):
        return shell(_WRITE, texts, said)

    @dsl.container_component
    def make(text: str, made: dsl.Output[dsl.Dataset]):
        return shell(
            _OUTPUT_FILE + 'mkdir -p "$2"; echo -n "$1" > "$2/f"; echo "{\\"artifacts\\": '
            '{\\"made\\": {\\"artifacts\\": [{\\"name\\": \\"made\\", \\"uri\\": \\"$3\\"}]}}}" '
            '> "$out"',
            "{{$}}", text, made.path, made.uri,
        )  # fmt: skip

    @dsl.container_component
    def make_silently(made: dsl.Output[dsl.Dataset]):
        return shell('mkdir -p "$0"; echo -n silent > "$0/f"', made.path)

    @dsl.container_component
    def read(one: dsl.Input[dsl.Dataset], said: dsl.OutputPath(str)):
        return shell('mkdir -p "${1%/*}"; cat "$0/f" > "$1"', one.path, said)

    @dsl.container_component
    def count(many: dsl.Input[list[dsl.Dataset]], said: dsl.OutputPath(str)):
        """Count the URIs in the executor input that end as those of `make` do."""
        return shell(
            "n=0; rest=$0; while test \"$rest\" != \"${rest#*/made'\"'}\"; do "
            "rest=${rest#*/made'\"'}; n=$((n + 1)); done; "
            'mkdir -p "${1%/*}"; echo -n "$n" > "$1"',
            "{{$}}", said,
        )  # fmt: skip

    @dsl.container_component
    def describe(score: dsl.Output[dsl.Metrics]):
        return shell(
            _OUTPUT_FILE + 'echo "{\\"artifacts\\": {\\"score\\": {\\"artifacts\\": '
            '[{\\"name\\": \\"score\\", '
            '\\"uri\\": \\"$1\\", \\"metadata\\": {\\"f1\\": 0.5, \\"n\\": 3}}]}}}" '
            '> "$out"',
            "{{$}}", score.uri,
        )  # fmt: skip

    @dsl.container_component
    def know(score: dsl.Input[dsl.Metrics], said: dsl.OutputPath(str)):
        return shell(_WRITE, score.metadata["f1"], said)

    @dsl.container_component
    def maybe(said: dsl.OutputPath(str), text: str = "quiet", more: int = None):  # noqa: RUF013
        return shell(
            'mkdir -p "${0%/*}"; echo -n "$*" > "$0"', said, text,
            dsl.IfPresentPlaceholder("more", ["--more", more], ["--none"]),
        )  # fmt: skip

    @dsl.container_component
    def glue(a: str, b: int, said: dsl.OutputPath(str)):
        return shell(_WRITE, dsl.ConcatPlaceholder([a, "-", b]), said)

    @dsl.container_component
    def pair(a: str, b: str, said: dsl.OutputPath(str)):
        return shell('mkdir -p "${2%/*}"; echo -n "$0-$1" > "$2"', a, b, said)

    @dsl.container_component
    def fail(code: int, said: dsl.OutputPath(str)):
        # kfp.local asks for the exit code of a container that is gone, and takes it for 0.
        return shell('sleep 0.2; exit "$0"', code, said)

    @dsl.container_component
    def last(status: dsl.PipelineTaskFinalStatus, said: dsl.OutputPath(str)):
        script = (
            "state=${0#*'\"state\":'}; state=${state#*'\"'}; "
            'mkdir -p "${1%/*}"; echo -n "${state%%\'"\'*}" > "$1"'
        )
        return shell(script, "{{$}}", said)

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

    @dsl.container_component
    def nothing(said: dsl.OutputPath(str)):
        return shell("sleep 0.2", said)

    @dsl.container_component
    def variable(said: dsl.OutputPath(str)):
        return shell('mkdir -p "${0%/*}"; echo -n "$TOLD" > "$0"', said)

    @dsl.container_component
    def show(file: str, said: dsl.OutputPath(str)):
        return shell('mkdir -p "${1%/*}"; cat "$0" > "$1"', file, said)

    @dsl.container_component
    def keep(text: str, file: str, said: dsl.OutputPath(str)):
        return shell(
            'mkdir -p "${1%/*}" "${2%/*}" && echo -n "$0" > "$1" && echo -n kept > "$2"',
            text, file, said,
        )  # fmt: skip

    @dsl.container_component
    def third_time(folder: str, said: dsl.OutputPath(str)):
        """Fail twice; what was tried before lies in the claim."""
        return shell(
            'mkdir -p "$0" "${1%/*}" || exit 1; test -e "$0/2" && echo -n done > "$1" && exit 0; '
            'test -e "$0/1" && echo > "$0/2" || echo > "$0/1"; exit 1',
            folder, said,
        )  # fmt: skip

    return SimpleNamespace(**{k: v for k, v in locals().items() if k not in ("image", "shell")})
