"""CSV cells that a spreadsheet would run as a formula: escaped when written, unescaped when read."""

import re
from typing import Final

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED: Final = re.compile(r"'+[=+\-@\t\r]")


def escape_formula(text: str) -> str:
    """With one apostrophe more where it begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return.

    Apostrophes before such a character count as its beginning, so `unescape_formula` gives back every text.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_formula(cell: str) -> str:
    """The text that `escape_formula` was given."""
    return cell[1:] if _ESCAPED.match(cell) else cell
