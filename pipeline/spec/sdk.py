"""KFP's SDK as far as a package needs it: not the client of its server, nor that of Kubernetes.

Both take longer to load than the rest, and no task uses them.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

# KFP's own switch, which its executor sets inside of a container: `import kfp` then loads no part.
_SWITCH = "_KFP_RUNTIME"


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


def compiler() -> Any:
    """Return KFP's compiler; kfp.dsl and kfp.kubernetes are loaded."""
    load_kfp()
    _load_kubernetes()
    from kfp.compiler import Compiler
    from kfp.dsl.pipeline_task import PipelineTask

    PipelineTask._ensure_container_spec_exists = _has_container
    return Compiler()


def _load_kubernetes() -> None:
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
