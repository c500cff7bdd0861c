"""httpx, imported without what only others use of it.

httpx imports its command line (click, rich) and httpcore imports trio wherever they are installed,
here as dependencies of test tools: together longer than a push takes. Both do without where the
import fails, which is what None in sys.modules makes it do.
"""

from __future__ import annotations

import sys

_hidden = [name for name in ("click", "trio") if name not in sys.modules]
for _name in _hidden:
    sys.modules[_name] = None  # type: ignore[assignment]
try:
    import httpcore  # noqa: F401 - httpx imports it later, when trio is in sight again
    import httpx
finally:
    for _name in _hidden:
        del sys.modules[_name]

__all__ = ["httpx"]
