"""Person names: one form to match them in, whatever case and accents they were written with."""

import unicodedata


def normalise(text: str) -> str:
    """Return the text without case and accents ("Åsa" → "asa") (PS3.4 §C.2.2.2.1)."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))
