"""A plug-in of pytest that loads all others: the only file here that runs inside an image.

pytest rewrites the asserts of every module that belongs to a plug-in it finds by itself. Hypothesis
has 82 of them, and an image cannot be written to, so that each process of pytest would do it again,
for 1.8 s of processor time. Of what is loaded from here nothing is rewritten. The variables that
lead here are in `stage_tests.pytest`.
"""

from __future__ import annotations

from typing import Any


def pytest_plugin_registered(plugin: object, manager: Any) -> None:
    """Load what pytest would have loaded at this moment, but for what `-p no:NAME` names."""
    if getattr(plugin, "__name__", "") == __name__:
        manager.load_setuptools_entrypoints("pytest11")
