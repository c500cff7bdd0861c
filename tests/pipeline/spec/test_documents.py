"""YAML and JSON of strangers: read within bounds, or refused in one message, at bounded cost."""

import contextlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.spec import documents

ROOT = Path(__file__).parents[3]


def bomb(levels: int, width: int = 9) -> str:
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "aliases of aliases": (bomb(9), "more than 1,000,000 values"),
    "an alias of itself": ("a: &a [*a]", "holds itself"),
    "a deep list": ("[" * 200_000, "deeper than 100 levels"),
    "a deep mapping": ("{a: " * 200_000, "deeper than 100 levels"),
    "deep blocks": ("- " * 200_000, "deeper than 100 levels"),
    "a long number": ("a: " + "1" * 20_000, "has 20,000 digits"),
    "a long number in hexadecimal": ("a: 0x" + "f" * 20_000, "digits"),
    "a month that is none": ("a: 2026-99-99", "put the value in quotes"),
    "bytes that are no text": ("a: \x00", "correct the YAML"),
    "much": ("a: " + "x" * (17 << 20), "are read; make it smaller"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_one_message_at_bounded_cost(name, tmp_path):
    """In a process of its own, since some of these would end it; it may use 500 MB."""
    text, message = HOSTILE[name]
    path = tmp_path / "package.yaml"
    path.write_text(text)
    script = (
        "import sys, pathlib; from pipeline.spec.lint import lint\n"
        "from pipeline.errors import PipelineError\n"
        "try: lint(pathlib.Path(sys.argv[1]))\n"
        "except PipelineError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (500 << 20, 500 << 20)),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert message in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 200_000, "deeper"), ('{"a":' * 200_000, "deeper"), ("1" * 20_000, "20,000 digits"),
     ("NaN", "NaN is no JSON"), ("[-Infinity]", "no JSON"), ("{", "correct it"),
     ("", "correct it")],
)  # fmt: skip
def test_hostile_json_is_one_message(text, message):
    with pytest.raises(PipelineError, match=message):
        documents.load_json(text, "the list")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(values)
def test_what_is_within_bounds_is_read_as_it_is(value):
    assert documents.load_json(json.dumps(value), "a value") == value


names = st.text("abc", min_size=1)
shared = st.recursive(
    names | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(names, inner),
    max_leaves=10,
)  # fmt: skip


@given(shared)
def test_yaml_with_a_few_aliases_is_read_as_it_is(value):
    text = yaml.safe_dump({"once": value, "again": [value, value]})
    assert documents.load_yaml(text.encode(), "a file") == [
        {"once": value, "again": [value, value]}
    ]


@given(st.text() | st.text("[]{}:,&*- \n'\"#|>%@`x1"))
def test_any_text_is_read_or_refused_never_a_crash(text):
    for read in (documents.load_yaml, documents.load_json):
        with contextlib.suppress(PipelineError):
            read(text.encode("utf-8", "surrogatepass"), "a file")
