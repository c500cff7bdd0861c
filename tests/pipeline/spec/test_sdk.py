"""KFP is loaded without its clients, and compiles as the whole of it does."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.spec.sdk import dump_all

ROOT = Path(__file__).resolve().parents[3]
COMPILE = """
import sys, hashlib, pathlib
from kfp import dsl
@dsl.container_component
def one(x: str):
    return dsl.ContainerSpec(image="a/b@sha256:" + "1" * 64, command=["true"], args=[x])
@dsl.pipeline(name="p")
def inner(x: str):
    one(x=x)
@dsl.pipeline(name="q")
def pipeline(x: str = "1"):
    from kfp import kubernetes
    task = one(x=x).set_cpu_limit("1").set_memory_request("1G").set_env_variable("A", "b")
    kubernetes.add_node_affinity(task, match_expressions=[{"key": "k", "operator": "Exists"}])
    kubernetes.add_node_affinity_json(
        one(x=x), {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    )
compiler.compile(pipeline, sys.argv[1])
try:
    @dsl.pipeline(name="r")
    def refused(x: str = "1"):
        inner(x=x).set_cpu_limit("1")
except Exception as error:
    print(type(error).__name__, error)
"""
WITH = "import kubernetes, kfp; from kfp import kubernetes, compiler as c; compiler = c.Compiler()"
GOOD = Path(__file__).parent / "broken/good.yaml"
WITHOUT = "from pipeline.spec.sdk import compiler as c; compiler = c()"


def test_a_pipeline_is_the_same_bytes_and_refused_by_the_same_words_as_by_the_whole_kfp(
    tmp_path: Path,
) -> None:
    said = []
    for name, first in (("with.yaml", WITH), ("without.yaml", WITHOUT)):
        done = subprocess.run(
            [sys.executable, "-c", first + COMPILE, str(tmp_path / name)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert (tmp_path / "with.yaml").read_bytes() == (tmp_path / "without.yaml").read_bytes()
    assert said[0] == said[1]
    assert "set_cpu_limit can only be used on single-step components" in said[0]


@pytest.mark.parametrize(
    "first",
    [
        WITHOUT,
        "from pipeline.spec.sdk import load_kfp; load_kfp(); import kfp.pipeline_spec",
        f"from pathlib import Path as P; from pipeline.spec.package import load; load(P('{GOOD}'))",
    ],
)
def test_no_client_is_loaded_and_none_is_in_the_way_of_the_real_one(first: str) -> None:
    script = (
        f"import sys, os; {first}; assert '_KFP_RUNTIME' not in os.environ;"
        "assert not {'kfp.client', 'kubernetes.client', 'google.auth'} & {*sys.modules};"
        "from kubernetes import client; client.V1Pod;"
        "from kfp.client import Client; Client.create_run_from_pipeline_func"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_a_package_is_read_without_the_sdk_s_language_which_still_loads_whole() -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.spec import package, sdk;"
        f"package.load(Path('{GOOD}')); assert 'kfp.dsl' not in sys.modules;"
        "_, before = sdk.messages(); sdk.compiler(); import kfp.kubernetes;"
        "now = kfp.kubernetes.kubernetes_executor_config_pb2;"
        "assert now.KubernetesExecutorConfig is before.KubernetesExecutorConfig;"
        "assert sdk.messages()[1] is now"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# What libyaml writes is printable ASCII, without an empty name.
PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=200)
TEXT = st.text(st.characters(max_codepoint=0x17F), max_size=200) | st.text("ab \n'\":#-…")


def documents(text: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Return mappings of all that JSON has, their texts and names drawn from `text`."""
    within = st.recursive(
        text | st.booleans() | st.none() | st.integers() | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=10,
    )
    return st.dictionaries(text, within, max_size=4)


@given(documents(PLAIN | st.text("ab \n'\":#-", min_size=1)) | documents(TEXT))
@example({"description": "sha256:… " + "word " * 40})
@example({"description": "sha256:... " + "word " * 40})
def test_documents_are_written_as_kfp_has_them_written(document: dict[str, Any]) -> None:
    stream = io.StringIO()
    dump_all([document, {"second": document}], stream, sort_keys=True)
    assert stream.getvalue() == yaml.dump_all([document, {"second": document}], sort_keys=True)


def test_what_is_printable_ascii_is_written_by_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "Dumper", None)
    stream = io.StringIO()
    dump_all([{"one": "a\nb"}, {"two": ["~"]}], stream, sort_keys=True)
    assert list(yaml.safe_load_all(stream.getvalue())) == [{"one": "a\nb"}, {"two": ["~"]}]
