"""The Native DICOM Model: DICOM JSON from XML and back (PS3.19 §A.1, PS3.18 §F.2).

Expat of the standard library is enough, as nothing but elements is let in: a document type, and
with it every entity, is refused before any is read.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from bfr_core.errors import Invalid
from bfr_core.instances import Dataset

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
NAME_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
INTEGERS = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
FLOATS = frozenset({"DS", "FL", "FD"})
NOT_FINITE = frozenset({"nan", "inf", "-inf"})
# Sequence, item and attribute are three elements a level; PersonName adds three at the bottom.
ELEMENTS_PER_LEVEL = 2
ELEMENTS_BELOW = 6


def read_xml(text: bytes, max_depth: int) -> Dataset:
    """Return the data set as DICOM JSON.

    Raises Invalid for what is no well-formed Native DICOM Model, has a document type, or nests
    deeper than `max_depth` sequences.
    """
    root = _parse(text, max_depth * ELEMENTS_PER_LEVEL + ELEMENTS_BELOW)
    if root.tag != "NativeDicomModel":
        raise Invalid(f"the XML is a {root.tag[:64]!r} and no NativeDicomModel")
    return _read_dataset(root)


def write_xml(dataset: Dataset) -> bytes:
    """Return the data set as a Native DICOM Model.

    Characters that XML 1.0 has no place for, control characters, become U+FFFD.
    """
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">',
        *_write_dataset(dataset),
        "</NativeDicomModel>\n",
    ]
    return "".join(lines).encode()


def _parse(text: bytes, max_elements: int) -> ElementTree.Element:
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > max_elements:
            raise Invalid("the XML nests too deep")
        namespace, _, local = name.rpartition("}")
        if namespace not in ("", NAMESPACE):
            raise Invalid(f"{local[:64]!r} is not of the Native DICOM Model")
        builder.start(local, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name.rpartition("}")[2])

    def refuse(*_: object) -> None:
        raise Invalid("the XML has a document type, which is not taken")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.buffer_text = True
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise Invalid(f"the XML is malformed: {error}") from None
    return builder.close()


def _read_dataset(parent: ElementTree.Element) -> Dataset:
    result: Dataset = {}
    for child in parent:
        if child.tag != "DicomAttribute":
            raise Invalid(f"{child.tag[:64]!r} stands where a DicomAttribute is due")
        tag, vr = child.get("tag", "").upper(), child.get("vr", "")
        if tag in result:
            raise Invalid(f"{tag[:64]} is there twice")
        result[tag] = _read_attribute(child, tag[:64], vr)
    return result


def _read_attribute(attribute: ElementTree.Element, tag: str, vr: str) -> dict[str, Any]:
    kinds = {child.tag for child in attribute}
    if not kinds:
        return {"vr": vr}
    if len(kinds) > 1:
        raise Invalid(f"{tag}: an attribute has values of one kind")
    (kind,) = kinds
    first = attribute[0]
    if kind == "InlineBinary":
        return {"vr": vr, "InlineBinary": _base64(first.text or "", tag)}
    if kind == "BulkData":
        return {"vr": vr, "BulkDataURI": first.get("uri") or first.get("uuid") or ""}
    if kind == "Item":
        return {"vr": vr, "Value": [_read_dataset(child) for child in _numbered(attribute, tag)]}
    if kind == "PersonName":
        return {"vr": vr, "Value": [_read_name(one, tag) for one in _numbered(attribute, tag)]}
    if kind == "Value":
        texts = [child.text or "" for child in _numbered(attribute, tag)]
        return {"vr": vr, "Value": [_read_value(text, vr, tag) for text in texts]}
    raise Invalid(f"{tag}: {kind[:64]!r} is no kind of value")


def _numbered(attribute: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    """Return the values in the order of their numbers, which begin at 1 and have no gaps."""
    children = list(attribute)
    numbers = [child.get("number", str(place)) for place, child in enumerate(children, 1)]
    if sorted(numbers) != sorted(str(place) for place in range(1, len(children) + 1)):
        raise Invalid(f"{tag}: the values are not numbered from 1 on")
    return sorted(children, key=lambda child: int(child.get("number", "0")))


def _read_value(text: str, vr: str, tag: str) -> Any:
    if vr not in INTEGERS | FLOATS:
        return text
    number = text.strip()
    if not number:
        return None
    try:
        if vr in INTEGERS and len(number) <= 20:
            return int(number)
        value = float(number)
    except ValueError:
        raise Invalid(f"{tag}: a value is not of the VR {vr}") from None
    return str(value) if str(value) in NOT_FINITE else value


def _read_name(name: ElementTree.Element, tag: str) -> dict[str, str]:
    groups = {}
    for group in name:
        if group.tag not in NAME_GROUPS:
            raise Invalid(f"{tag}: {group.tag[:64]!r} is no part of a person name")
        components = {part.tag: part.text or "" for part in group}
        if components.keys() - set(NAME_COMPONENTS):
            raise Invalid(f"{tag}: a person name has an unknown component")
        joined = "^".join(components.get(part, "") for part in NAME_COMPONENTS).rstrip("^")
        if joined:
            groups[group.tag] = joined
    return groups


def _base64(text: str, tag: str) -> str:
    try:
        return base64.b64encode(base64.b64decode("".join(text.split()), validate=True)).decode()
    except (ValueError, binascii.Error):
        raise Invalid(f"{tag}: InlineBinary is no base64") from None


def _write_dataset(dataset: Mapping[str, Any]) -> Iterator[str]:
    for tag, element in sorted(dataset.items()):
        keyword = keyword_for_tag(int(tag, 16))
        named = f" keyword={quoteattr(keyword)}" if keyword else ""
        yield f'<DicomAttribute tag="{tag}" vr="{element["vr"]}"{named}>'
        if "InlineBinary" in element:
            yield f"<InlineBinary>{element['InlineBinary']}</InlineBinary>"
        elif "BulkDataURI" in element:
            yield f"<BulkData uri={quoteattr(element['BulkDataURI'])}/>"
        else:
            for number, value in enumerate(element.get("Value", []), 1):
                yield from _write_value(element["vr"], number, value)
        yield "</DicomAttribute>"


def _write_value(vr: str, number: int, value: Any) -> Iterator[str]:
    if vr == "SQ":
        yield f'<Item number="{number}">'
        yield from _write_dataset(value or {})
        yield "</Item>"
    elif vr == "PN":
        yield f'<PersonName number="{number}">'
        for group in NAME_GROUPS:
            if name := (value or {}).get(group):
                yield f"<{group}>"
                # A sixth component is none of DICOM; it stays with the suffix.
                for part, text in zip(NAME_COMPONENTS, name.split("^", 4), strict=False):
                    yield f"<{part}>{_text(text)}</{part}>" if text else ""
                yield f"</{group}>"
        yield "</PersonName>"
    else:
        yield f'<Value number="{number}">{"" if value is None else _text(str(value))}</Value>'


def _text(text: str) -> str:
    # \r is written as a reference, or a reader would make it \n (XML 1.0 §2.11).
    legal = "".join(one if _is_legal(one) else "\N{REPLACEMENT CHARACTER}" for one in text)
    return escape(legal, {"\r": "&#13;"})


def _is_legal(character: str) -> bool:
    return character in "\t\n\r" or (
        character >= " " and not "\ud800" <= character <= "\udfff" and character not in "￾￿"
    )
