"""KFP's SDK as far as a package needs it: not the client of its server, nor that of Kubernetes.

Both take longer to load than the rest, and no task uses them.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TextIO

# KFP's own switch, which its executor sets inside of a container: `import kfp` then loads no part.
_SWITCH = "_KFP_RUNTIME"
# In JSON: a character that is neither printable ASCII nor a line's end, and an empty name.
_OTHERWISE = re.compile(r'\\[bfrtu]|"":')


def load_kfp() -> None:
    """Import kfp alone: `from kfp import dsl` and the like load each part where it is used."""
    if "kfp" in sys.modules:
        return
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "true"
    try:
        import kfp  # noqa: F401
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before


def messages() -> tuple[Any, Any]:
    """Return the modules of KFP's messages: of pipelines, and of what kfp.kubernetes sets.

    kfp.kubernetes itself is not loaded, which loads all of kfp.dsl; whoever imports it later gets
    it whole.
    """
    load_kfp()
    from kfp.pipeline_spec import pipeline_spec_pb2

    package, name = "kfp.kubernetes", "kfp.kubernetes.kubernetes_executor_config_pb2"
    if package in sys.modules:
        return pipeline_spec_pb2, importlib.import_module(name)
    empty = ModuleType(package)
    empty.__path__ = [str(Path(folder, "kubernetes")) for folder in sys.modules["kfp"].__path__]
    sys.modules[package] = empty
    try:
        return pipeline_spec_pb2, importlib.import_module(name)
    finally:
        # Loading the messages again gives the same classes: protobuf knows them by their names.
        del sys.modules[package], sys.modules[name]


def compiler() -> Any:
    """Return KFP's compiler; kfp.dsl and kfp.kubernetes are loaded."""
    load_kfp()
    load_kubernetes()
    from kfp.compiler import Compiler, pipeline_spec_builder
    from kfp.dsl.pipeline_task import PipelineTask

    PipelineTask._ensure_container_spec_exists = _has_container
    pipeline_spec_builder.yaml = SimpleNamespace(dump_all=dump_all)
    return Compiler()


def dump_all(documents: Iterable[Mapping[str, Any]], stream: TextIO, *, sort_keys: bool) -> None:
    """Write documents as PyYAML's own writer does, by libyaml where both write the same bytes.

    libyaml takes a fifth of the time. Where text is not printable ASCII it breaks lines in
    other places: such documents are left to the other one, so that a package is what KFP makes.
    """
    import yaml

    every = list(documents)
    same = yaml.__with_libyaml__ and not _OTHERWISE.search(json.dumps(every))
    yaml.dump_all(every, stream, yaml.CDumper if same else yaml.Dumper, sort_keys=sort_keys)


def load_kubernetes() -> None:
    """Import kfp.kubernetes without the package kubernetes.

    A module of it imports `kubernetes.client` twice: at its head, where nothing uses it, and in the
    function that does.
    """
    if "kubernetes" in sys.modules or "kfp.kubernetes" in sys.modules:
        return
    empty = {name: ModuleType(name) for name in ("kubernetes", "kubernetes.client")}
    empty["kubernetes"].client = empty["kubernetes.client"]  # type: ignore[attr-defined]
    sys.modules.update(empty)
    try:
        import kfp.kubernetes  # noqa: F401
    finally:
        for name in empty:
            del sys.modules[name]


def _has_container(task: Any) -> None:
    """Refuse what only a container can have, by KFP's own words.

    KFP reads the sources of all callers for the name of one, 2 ms for each setting of a task.
    """
    if task.container_spec is None:
        raise ValueError(
            f"{sys._getframe(1).f_code.co_name} can only be used on single-step components, not "
            "pipelines used as components, or special components like importers."
        )
