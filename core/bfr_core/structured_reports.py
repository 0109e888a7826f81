"""Structured reports: the content tree of an SR document as text for people (PS3.3 §C.17.3)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from bfr_core.instances import Dataset
from bfr_core.json_model import first_value

CONTENT_SEQUENCE, CONCEPT_NAME, CONCEPT_CODE = "0040A730", "0040A043", "0040A168"
VALUE_TYPE, TEXT_VALUE, CODE_MEANING = "0040A040", "0040A160", "00080104"
MEASURED_VALUE, NUMERIC_VALUE, UNITS, QUALIFIER = "0040A300", "0040A30A", "004008EA", "0040A301"
REFERENCED_SOP, REFERENCED_UID = "00081199", "00081155"
# The value of these types stands in one attribute.
PLAIN_VALUES = {
    "TEXT": TEXT_VALUE,
    "DATETIME": "0040A120",
    "DATE": "0040A121",
    "TIME": "0040A122",
    "PNAME": "0040A123",
    "UIDREF": "0040A124",
}
HEAD = (
    ("00100010", {"sv": "Patient", "en": "Patient"}),
    ("00100020", {"sv": "Patient-id", "en": "Patient ID"}),
    ("00100030", {"sv": "Födelsedatum", "en": "Birth date"}),
    ("00080020", {"sv": "Undersökningsdatum", "en": "Study date"}),
    ("00080050", {"sv": "Remissnummer", "en": "Accession number"}),
    ("00081030", {"sv": "Undersökning", "en": "Study"}),
    ("00080080", {"sv": "Enhet", "en": "Institution"}),
    ("0040A491", {"sv": "Fullständighet", "en": "Completion"}),
    ("0040A493", {"sv": "Signering", "en": "Verification"}),
)
DATES = frozenset({"00100030", "00080020", "0040A121"})
LANGUAGES = ("sv", "en")
HEADINGS_MAX = 6
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "dt{font-weight:600}dl.head{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem}"
    "dd{margin:0 0 .5rem 0;white-space:pre-wrap}"
)


@dataclass(frozen=True, slots=True)
class Content:
    """One content item: what it is about, what it says, and what belongs to it."""

    name: str
    value: str
    items: list["Content"] = field(default_factory=list)


def is_structured_report(dataset: Mapping[str, Any]) -> bool:
    """Tell whether the object is a document with a content tree."""
    return VALUE_TYPE in dataset and CONCEPT_NAME in dataset


def read_content(dataset: Mapping[str, Any]) -> Content:
    """Return the content tree below an item; the document itself is its root."""
    name = _meaning(_first_item(dataset, CONCEPT_NAME))
    items = [
        read_content(item)
        for item in dataset.get(CONTENT_SEQUENCE, {}).get("Value") or []
        if isinstance(item, Mapping)
    ]
    return Content(name, _value(dataset), items)


def as_html(dataset: Dataset, language: str) -> str:
    """Return the document as an HTML page without scripts, its containers under headings.

    What we say ourselves is in the language; what the document says is as it was sent.
    """
    root = read_content(dataset)
    title = escape(root.name or "SR")
    head = "".join(
        f"<dt>{label}</dt><dd>{escape(text)}</dd>"
        for label, text in _head(dataset, language)
        if text
    )
    return (
        f'<!DOCTYPE html><html lang="{language}"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><main><h1>{title}</h1>"
        f'<dl class="head">{head}</dl>{"".join(_html(root.items, 2))}</main></body></html>\n'
    )


def as_text(dataset: Dataset, language: str) -> str:
    """Return the document as plain text, what belongs to an item indented below it."""
    root = read_content(dataset)
    head = [f"{label}: {text}" for label, text in _head(dataset, language) if text]
    return "\n".join([root.name, *head, "", *_lines(root.items, 0)]) + "\n"


def _head(dataset: Dataset, language: str) -> Iterator[tuple[str, str]]:
    for tag, labels in HEAD:
        text = _text(first_value(dataset, tag))
        yield labels[language], _iso(text) if tag in DATES else text


def _html(items: list[Content], level: int) -> Iterator[str]:
    for item in items:
        if item.items and not item.value:
            heading = min(level, HEADINGS_MAX)
            yield f"<section><h{heading}>{escape(item.name)}</h{heading}>"
            yield from _html(item.items, level + 1)
            yield "</section>"
            continue
        yield f"<dl><dt>{escape(item.name)}</dt><dd>{escape(item.value)}"
        yield from _html(item.items, level + 1)
        yield "</dd></dl>"


def _lines(items: list[Content], depth: int) -> Iterator[str]:
    for item in items:
        value = item.value.replace("\r\n", "\n").replace("\n", "\n" + "  " * (depth + 1))
        colon = ": " if item.name and value else ""
        yield "  " * depth + item.name + colon + value
        yield from _lines(item.items, depth + 1)


def _value(dataset: Mapping[str, Any]) -> str:
    kind = str(first_value(dataset, VALUE_TYPE) or "")
    if kind in PLAIN_VALUES:
        text = _text(first_value(dataset, PLAIN_VALUES[kind]))
        return _iso(text) if PLAIN_VALUES[kind] in DATES else text
    if kind == "CODE":
        return _meaning(_first_item(dataset, CONCEPT_CODE))
    if kind == "NUM":
        measured = _first_item(dataset, MEASURED_VALUE)
        if not measured:
            return _meaning(_first_item(dataset, QUALIFIER))
        units = _first_item(measured, UNITS)
        unit = _text(first_value(units, "00080100")) or _meaning(units)
        number = _text(first_value(measured, NUMERIC_VALUE))
        return number if unit in ("", "1") else f"{number} {unit}"
    if kind in ("IMAGE", "COMPOSITE", "WAVEFORM"):
        return _text(first_value(_first_item(dataset, REFERENCED_SOP), REFERENCED_UID))
    return ""


def _meaning(code: Mapping[str, Any]) -> str:
    return _text(first_value(code, CODE_MEANING))


def _first_item(dataset: Mapping[str, Any], tag: str) -> Mapping[str, Any]:
    items = dataset.get(tag, {}).get("Value") or [{}]
    return items[0] if isinstance(items[0], Mapping) else {}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        groups = [str(value.get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return " ".join(" ".join(groups).replace("^", " ").split())
    return "" if value is None else str(value)


def _iso(text: str) -> str:
    """Return a date of eight digits as people write it."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text
