"""What is said of a case in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.kubeflow.conformance.observation import Difference

STATES_ONLY = "only states were compared: the server's metadata store does not answer"

CONTENTS_LEFT = "contents of artifacts were not compared"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A case: `word` is same, differs, or not tried; `why` says what limits that."""

    name: str
    word: str
    differences: tuple[Difference, ...] = ()
    why: str = ""

    @staticmethod
    def of(name: str, found: Sequence[Difference], complete: bool = True) -> Verdict:
        """Return the verdict of a case of which `found` was not the same."""
        why = "" if complete else STATES_ONLY
        return Verdict(name, "differs" if found else "same", tuple(found), why)
