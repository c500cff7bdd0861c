"""The units of doses, in one spelling each. Standard library only."""

from __future__ import annotations

import unicodedata

UNITS = ("M", "mM", "µM", "nM", "pM", "fM", "mg/ml", "µg/ml", "ng/ml", "pg/ml", "%")
_LITRES = {"mol/l": "M", "mmol/l": "mM", "µmol/l": "µM", "nmol/l": "nM", "pmol/l": "pM"}
_MASSES = {f"{prefix}g/{volume}": f"{prefix}g/ml" for prefix in "mµnp" for volume in ("ml", "mL")}


def unit_name(text: str) -> str | None:
    """Return a unit in its usual spelling (`uM` is `µM`), None where it is not known.

    An empty text is no unit and stays empty. Case matters in molarities: `mM` is not `MM`.
    """
    given = unicodedata.normalize("NFC", text.strip()).replace("\u03bc", "µ")
    if given.startswith("u"):
        given = "µ" + given[1:]
    if not given or given in UNITS:
        return given
    known = {**_LITRES, **_MASSES}
    return known.get(given) or known.get(given.replace("L", "l"))
