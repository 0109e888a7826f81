"""Character sets: between the bytes of a text value and Unicode (PS3.5 §6.1, PS3.3 §C.12.1.1.2)."""

import re
from collections.abc import Iterator, Sequence

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

_DEFAULT_CODEC = "latin-1"  # what senders without a character set mean beyond ASCII, as pydicom
_STAND_ALONE_CODECS = frozenset({"utf-8", "gb18030", "gbk"})  # no code extensions
_ESCAPE = b"\x1b"
_CONTROL_DELIMITER = re.compile(rb"[\t\n\f\r]")  # each falls back to the first character set
_NOT_ALPHANUMERIC = re.compile("[^A-Z0-9]")

# Defined Terms without their punctuation, which senders misspell ("ISO-IR 100"), and the names
# outside the standard that are met in practice.
_CODECS = {
    **{_NOT_ALPHANUMERIC.sub("", term): codec for term, codec in python_encoding.items()},
    "": _DEFAULT_CODEC,
    "ISOIR6": _DEFAULT_CODEC,
    "ISO2022IR6": _DEFAULT_CODEC,
    "ISOIR192": "utf-8",
    "UTF8": "utf-8",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO2022GBK": "gbk",
    "ASCII": _DEFAULT_CODEC,
    "USASCII": _DEFAULT_CODEC,
    "ISO88591": _DEFAULT_CODEC,
    "LATIN1": _DEFAULT_CODEC,
    "WINDOWS1252": "cp1252",
    "CP1252": "cp1252",
}
_CODEC_OF_ESCAPE = {
    **CODES_TO_ENCODINGS,
    b"\x1b(B": _DEFAULT_CODEC,
    b"\x1b$)A": "gb2312",
}
_ESCAPE_OF_CODEC = {
    **{codec: escape for escape, codec in _CODEC_OF_ESCAPE.items()},
    "shift_jis": b"\x1b)I",  # katakana; its romaji is ASCII to us
    "iso_ir_58": b"\x1b$)A",  # by another name
}
_ASCII_TERMS = frozenset({"", "ISOIR6", "ISO2022IR6", "ASCII", "USASCII"})
# These read and write their own escape sequences; before all others they are taken away.
_ESCAPE_AWARE_CODECS = frozenset({"iso2022_jp", "iso2022_jp_2"})


class TextDecoder:
    """Decodes text under one value of Specific Character Set (0008,0005).

    Bytes that the character set does not know become U+FFFD; nothing is raised.
    `beyond_ascii` is True once a value without a declared character set held more than ASCII.
    """

    __slots__ = ("_codec", "beyond_ascii")

    def __init__(self, defined_terms: Sequence[str]) -> None:
        first = defined_terms[0] if defined_terms else ""
        self._codec = _CODECS.get(_NOT_ALPHANUMERIC.sub("", first.upper()), _DEFAULT_CODEC)
        self.beyond_ascii = False

    def decode(self, raw: bytes) -> str:
        """Return the text of a value whose VR the character set applies to."""
        if _ESCAPE in raw and self._codec not in _STAND_ALONE_CODECS:
            return self._decode_extended(raw)
        if raw.isascii():
            return raw.decode("ascii")
        self.beyond_ascii = True
        return raw.decode(self._codec, "replace")

    def decode_default(self, raw: bytes) -> str:
        """Return the text of a value of the default repertoire (CS, UI, DA and the like)."""
        if raw.isascii():
            return raw.decode("ascii")
        self.beyond_ascii = True
        return raw.decode(_DEFAULT_CODEC)

    def _decode_extended(self, raw: bytes) -> str:
        """Return text with code extension escape sequences (PS3.5 §6.1.2.5)."""
        self.beyond_ascii = True
        first, *escaped = raw.split(_ESCAPE)
        parts = [first.decode(self._codec, "replace")]
        for fragment in escaped:
            parts.append(self._decode_fragment(_ESCAPE + fragment))
        return "".join(parts)

    def _decode_fragment(self, fragment: bytes) -> str:
        for length in (3, 4):
            codec = _CODEC_OF_ESCAPE.get(fragment[:length])
            if codec is not None:
                break
        else:
            return fragment.decode(self._codec, "replace")
        if codec in _ESCAPE_AWARE_CODECS:
            return fragment.decode(codec, "replace")
        text = fragment[length:]
        delimiter = _CONTROL_DELIMITER.search(text)
        reset = delimiter.start() if delimiter else len(text)
        return text[:reset].decode(codec, "replace") + text[reset:].decode(self._codec, "replace")


class TextEncoder:
    """Encodes text under one value of Specific Character Set (0008,0005)."""

    __slots__ = ("_codecs",)

    def __init__(self, defined_terms: Sequence[str]) -> None:
        names = [_NOT_ALPHANUMERIC.sub("", term.upper()) for term in defined_terms or ("",)]
        # ASCII itself, not what senders mean by it: what it lacks is to be noticed.
        self._codecs = [
            "ascii" if name in _ASCII_TERMS else _CODECS[name] for name in names if name in _CODECS
        ] or ["ascii"]

    def encode(self, text: str) -> bytes:
        """Return the bytes of a text, with the escape sequences that code extensions need.

        Raises ValueError when the character set does not hold the text.
        """
        if text.isascii():
            return text.encode("ascii")
        if len(self._codecs) == 1:
            return _encode_all(text, self._codecs[0])
        # What is designated ends at each delimiter (PS3.5 §6.1.2.5.3).
        return b"".join(self._encode_component(part) for part in _DELIMITERS.split(text))

    def _encode_component(self, text: str) -> bytes:
        first = self._codecs[0]
        result, codec = b"", first
        for run_codec, run in [*_runs(text, self._codecs), (first, "")]:
            result += _designation(codec, run_codec) + _encode_all(run, run_codec)
            codec = run_codec
        return result


_DELIMITERS = re.compile(r"([\\^=\t\n\f\r])")


def _designation(codec: str, next_codec: str) -> bytes:
    """Return the escape sequence between text in one character set and in another."""
    if codec == next_codec or next_codec == "ascii" or next_codec in _ESCAPE_AWARE_CODECS:
        return b""  # ASCII is there all along
    escape = _ESCAPE_OF_CODEC.get(next_codec)
    if escape is None:
        raise ValueError("the character set is used with code extensions and has none")
    return escape


def _runs(text: str, codecs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (codec, text): the longest stretches that the first codec able to holds."""
    run, run_codec = "", codecs[0]
    for letter in text:
        codec = next((one for one in codecs if _holds(one, letter)), None)
        if codec is None:
            raise ValueError("the character set does not hold the text")
        if codec != run_codec and run:
            yield run_codec, run
            run = ""
        run, run_codec = run + letter, codec
    if run:
        yield run_codec, run


def _holds(codec: str, letter: str) -> bool:
    try:
        return bool(_encode_all(letter, codec))
    except ValueError:
        return False


def _encode_all(text: str, codec: str) -> bytes:
    raw = text.encode(codec)
    # JIS X 0201 is the part of Shift JIS with one byte for each letter; its yen is a backslash.
    if codec == "shift_jis" and (len(raw) != len(text) or raw.decode(codec) != text):
        raise ValueError("the character set does not hold the text")
    return raw
