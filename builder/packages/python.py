"""The Python of the images: the one place that says which, and what follows from it.

`stages/base/debian.in` brings it; a test holds the two together.
"""

from __future__ import annotations

VERSION = "3.13"
_DIGITS = VERSION.replace(".", "")
# https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/
TAG = f"cp{_DIGITS}"
# What names a file of byte-code: PEP 3147.
CACHE_TAG = f"cpython-{_DIGITS}"
# What a file of a module may end with: importlib.machinery.all_suffixes() on linux-amd64.
SUFFIXES = (f".cpython-{_DIGITS}-x86_64-linux-gnu.so", ".abi3.so", ".so", ".py", ".pyc")
# Where wheels go, below the prefix of an environment.
SITE = f"lib/python{VERSION}/site-packages"
# The Debian package of the program, and where it and its loader are in it.
PACKAGE = f"python{VERSION}-minimal"
PROGRAM = f"usr/bin/python{VERSION}"
HOME = "usr"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"
