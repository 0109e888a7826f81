"""Data elements: one pass over an encoded data set, into the DICOM JSON model.

Sources: PS3.5 §6–§7 and §A (encoding), PS3.18 §F.2 (JSON model). What real senders get wrong is
read as pydicom reads it: Implicit VR inside Explicit VR, unknown VRs, item lengths that do not
add up. What does not fit in the bytes at hand is refused.
"""

import mmap
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bfr_core.character_sets import TextDecoder
from bfr_core.element_headers import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED_LENGTH,
    ElementHeaderReader,
    Octets,
    is_vr,
)
from bfr_core.errors import Invalid
from bfr_core.value_representations import (
    DATA_SET_TRAILING_PADDING,
    LUT_DESCRIPTORS,
    SPECIFIC_CHARACTER_SET,
    Convert,
    Misfit,
    inline_binary,
    look_up,
    pixel_values,
    unusual_key,
    value_count_max,
    with_unsigned_entries,
)

PIXEL_DATA_KEYS = frozenset({"7FE00008", "7FE00009", "7FE00010"})
PIXEL_REPRESENTATION = "00280103"

_OCTETS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_UNKNOWN_VR_MAX_BYTES = 0xFFFE  # up to here UN has the dictionary's VR, as pydicom
_UNCOUNTED_VALUE_BYTES = 16  # of so short elements, `max_elements` bounds the values as well
_LARGE_VALUE_BYTES = 4096  # from here on values are counted before they are read


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """What a header may cost; beyond any of these the instance is Invalid."""

    header_max_bytes: int = 64 << 20  # all but pixels and large binary values
    max_depth: int = 32  # sequences within sequences
    max_elements: int = 1_000_000  # also items, and fragments of pixel data
    inline_binary_max_bytes: int = 1024  # a longer binary value is a BulkDataURI
    inflated_max_bytes: int = 1 << 30
    max_values: int = 10_000_000  # in all elements together


class NativeValue(NamedTuple):
    """A value of defined length."""

    offset: int
    length: int


class EncapsulatedValue(NamedTuple):
    """A value of undefined length in fragments, the offset table being the first (PS3.5 §A.4)."""

    offset: int  # of the first item
    fragments: tuple[tuple[int, int], ...]  # (offset, length) of each


class _Scope(NamedTuple):
    """What holds for all elements of a data set or an item."""

    end: int  # nothing from here on is read
    explicit: bool
    text: TextDecoder
    depth: int  # 0: the data set itself
    path: str  # "" or "<key>/<item>/", as in a BulkDataURI


def _tag(path: str, key: str) -> str:
    return f"{path}({key[:4]},{key[4:]})"


class DataElementReader:
    """Reads one data set, and remembers where the values are that its JSON leaves out."""

    def __init__(self, data: Octets, limits: HeaderLimits, *, big_endian: bool = False) -> None:
        self.bulk_data: dict[str, NativeValue] = {}  # by the path in a BulkDataURI
        self.pixel_data: tuple[str, str, NativeValue | EncapsulatedValue] | None = None  # key, VR
        self.character_set: tuple[str, ...] = ()  # as sent
        self.headers: Final = ElementHeaderReader(data, big_endian=big_endian)
        self._data: Final = data
        self._copied: Final = not isinstance(data, bytes | mmap.mmap)  # slices are no bytes
        self._limits: Final = limits
        self._big_endian: Final = big_endian
        self._text: Final = TextDecoder(())
        self._elements_left = limits.max_elements
        self._values_left = limits.max_values
        self._ceiling = 0  # values of a header lie below this offset
        # "US or SS": (path, element, offset, length)
        self._unresolved: list[tuple[str, dict[str, Any], int, int]] = []

    @property
    def beyond_ascii(self) -> bool:
        """Whether text without a declared character set held more than ASCII."""
        return self._text.beyond_ascii

    def read(self, start: int, end: int, *, explicit: bool) -> dict[str, Any]:
        """Return the DICOM JSON model of the data set from `start` to `end`.

        Raises Invalid.
        """
        self._ceiling = start + self._limits.header_max_bytes
        dataset, _ = self._elements(start, end, _Scope(end, explicit, self._text, 0, ""))
        return dataset

    def _elements(self, at: int, soft_end: int, scope: _Scope) -> tuple[dict[str, Any], int]:
        """Return the elements that start before `soft_end`, and the offset after them.

        An item of undefined length has `scope.end` for `soft_end`.
        """
        data, copied, headers = self._data, self._copied, self.headers
        unpack_explicit = headers.explicit
        unpack_implicit = headers.implicit
        unpack_length = headers.length
        common_key, by_vr = headers.tables.keys.get, headers.tables.by_vr.get
        in_dictionary = headers.tables.dictionary.get
        end, explicit, text, depth, path = scope
        elements_left, values_left = self._elements_left, self._values_left
        bound = min(end, self._ceiling)
        first_unresolved = len(self._unresolved)
        dataset: dict[str, Any] = {}
        while at < soft_end:
            value = at + 8
            if value > end:
                self._check_tail(at, scope)
                at = end
                break
            if elements_left <= 0:
                raise self._too_many_elements()
            elements_left -= 1
            special = False
            if explicit:
                tag, vr, length = unpack_explicit(data, at)
                kind = by_vr(vr)
                odd = kind is None
                if kind is not None:
                    name, long, convert = kind
                    if long:
                        value = at + 12
                        if value > end:
                            raise self._truncated(scope, self.headers.key(tag), 12, at)
                        (length,) = unpack_length(data, at + 8)
                    common = common_key(tag)
                    if common is None:
                        key, special = unusual_key(tag, self._big_endian)
                    else:
                        key = common
            else:
                tag, length = unpack_implicit(data, at)
                entry = in_dictionary(tag)
                odd = entry is None
                if entry is not None:
                    key, name, convert = entry
            if odd:
                _, special = unusual_key(tag, self._big_endian)
                odd_header = headers.odd_header(at, soft_end, end, explicit=explicit)
                key, name, convert, value, length = odd_header
                if key == SEQUENCE_END and depth and soft_end == end:
                    break
                if key in (ITEM_END, SEQUENCE_END):
                    at = value
                    if key == ITEM_END and depth:
                        break
                    continue
            if convert is None or length == UNDEFINED_LENGTH:
                self._elements_left, self._values_left = elements_left, values_left
                element, at = self._structure(key, name, convert, value, length, scope)
                elements_left, values_left = self._elements_left, self._values_left
                bound = min(end, self._ceiling)
                if element is None:
                    continue
            else:
                at = value + length
                if at > bound:
                    raise self._truncated(scope, key, length, value)
                raw: Any = data[value:at]
                if copied:
                    raw = bytes(raw)
                if length > _LARGE_VALUE_BYTES and value_count_max(name, raw) > values_left:
                    raise self._too_many_values()
                try:
                    values = convert(raw, text)
                except Misfit:
                    element = self._binary("UN", path + key, value, length)
                else:
                    if values is None:
                        element = {"vr": name}
                    else:
                        element = {"vr": name, "Value": values}
                        if length > _UNCOUNTED_VALUE_BYTES:
                            values_left -= len(values)
                            if values_left < 0:
                                raise self._too_many_values()
            if special:
                if key == DATA_SET_TRAILING_PADDING or key.endswith("0000"):
                    continue
                if key == SPECIFIC_CHARACTER_SET:
                    text = self._declare_character_set(element, depth)
                    scope = scope._replace(text=text)
                elif key in LUT_DESCRIPTORS and "Value" in element:
                    element["Value"] = with_unsigned_entries(element["Value"])
            dataset[key] = element
        self._elements_left, self._values_left = elements_left, values_left
        if depth == 0 or PIXEL_REPRESENTATION in dataset:
            self._resolve_signs(first_unresolved, dataset)
        in_order = sorted(dataset)
        if in_order != list(dataset):
            dataset = {key: dataset[key] for key in in_order}
        return dataset, at

    def _structure(
        self,
        key: str,
        name: str,
        convert: Convert | None,
        value: int,
        length: int,
        scope: _Scope,
    ) -> tuple[dict[str, Any] | None, int]:
        """Return an element that is more than texts or numbers, and the offset after it.

        None in place of the element: the pixel data of the instance.
        """
        declared = name
        if name == "UN" and length <= _UNKNOWN_VR_MAX_BYTES and scope.explicit:
            _, name, convert = look_up(key, self._big_endian)
        is_pixel_data = scope.depth == 0 and key in PIXEL_DATA_KEYS
        if length == UNDEFINED_LENGTH:
            if is_pixel_data or (convert is None and name not in ("SQ", "UN")):
                return self._encapsulated(key, value, scope, is_pixel_data)
            return self._sequence(key, value, scope.end, scope, delimited=True)
        stop = value + length
        if stop > scope.end:
            raise self._truncated(scope, key, length, value)
        if is_pixel_data:
            name = "OW" if name in ("OB or OW", "UN") else name
            self.pixel_data = (key, name, NativeValue(value, length))
            self._ceiling += length
            return None, stop
        if name in _OCTETS:
            return self._binary(name, scope.path + key, value, length), stop
        if name == "SQ":
            return self._defined_sequence(key, value, stop, scope, certain=declared == "SQ")
        if name == "US or OW":  # LUT Data: words, but for a table of one entry, as pydicom
            name = "US" if length <= 2 else "OW"
            convert = self.headers.tables.by_vr[name.encode()].convert
        if name != "US or SS" and convert is None:
            return self._binary("OW", scope.path + key, value, length), stop
        if stop > self._ceiling:
            raise self._truncated(scope, key, length, value)
        raw = bytes(self._data[value:stop])
        if length > _LARGE_VALUE_BYTES and value_count_max(name, raw) > self._values_left:
            raise self._too_many_values()
        element: dict[str, Any] = {"vr": name}
        if convert is None:
            self._unresolved.append((scope.path + key, element, value, length))
            return element, stop
        try:
            values = convert(raw, scope.text)
        except Misfit:
            return self._binary("UN", scope.path + key, value, length), stop
        if values is not None:
            element["Value"] = self._counted(values)
        return element, stop

    def _defined_sequence(
        self, key: str, value: int, stop: int, scope: _Scope, *, certain: bool
    ) -> tuple[dict[str, Any], int]:
        if certain:
            inner = scope if scope.depth else scope._replace(end=stop)
            element, at = self._sequence(key, value, stop, inner, delimited=False)
            return element, max(at, stop)
        # The dictionary says SQ of octets that the sender knew nothing of: they need not be one.
        found, unresolved = len(self.bulk_data), len(self._unresolved)
        try:
            element, _ = self._sequence(key, value, stop, scope._replace(end=stop), delimited=False)
        except Invalid:
            while len(self.bulk_data) > found:
                self.bulk_data.popitem()
            del self._unresolved[unresolved:]
            element = self._binary("UN", scope.path + key, value, stop - value)
        return element, stop

    def _sequence(
        self, key: str, at: int, soft_end: int, scope: _Scope, *, delimited: bool
    ) -> tuple[dict[str, Any], int]:
        """Return a sequence whose first item is at `at`, and the offset after it.

        `delimited`: it ends at a sequence delimitation item, not at `soft_end`.
        """
        end, explicit, text, depth, path = scope
        if depth >= self._limits.max_depth:
            raise Invalid(
                f"sequences nest deeper than {self._limits.max_depth} at {_tag(path, key)}"
            )
        items: list[dict[str, Any]] = []
        while delimited or at < soft_end:
            content = at + 8
            if content > end:
                if delimited:
                    raise Invalid(f"{_tag(path, key)} is truncated: its last item is not there")
                self._check_tail(at, scope)
                at = end
                break
            tag, length = self.headers.implicit(self._data, at)
            item_key = self.headers.key(tag)
            if item_key == SEQUENCE_END:
                at = content
                break
            if item_key != ITEM:
                raise Invalid(f"{_tag(path, key)} has {_tag('', item_key)} in place of an item")
            if self._elements_left <= 0:
                raise self._too_many_elements()
            self._elements_left -= 1
            item_path = f"{path}{key}/{len(items) + 1}/"
            item_end = end if length == UNDEFINED_LENGTH else content + length
            if item_end > end:
                raise self._truncated(scope, key, length, content)
            # An explicit data set may hold items in Implicit VR (PS3.5 §6.2.2), never the reverse.
            item_explicit = explicit and is_vr(bytes(self._data[content + 4 : content + 6]))
            item_scope = _Scope(end, item_explicit, text, depth + 1, item_path)
            item, at = self._elements(content, item_end, item_scope)
            items.append(item)
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}, at

    def _encapsulated(
        self, key: str, at: int, scope: _Scope, is_pixel_data: bool
    ) -> tuple[dict[str, Any] | None, int]:
        """Return an element in fragments, and the offset after it."""
        start, end, name = at, scope.end, _tag(scope.path, key)
        fragments: list[tuple[int, int]] = []
        while True:
            content = at + 8
            if content > end:
                raise Invalid(
                    f"{name} is truncated: {len(fragments)} fragments"
                    " without a sequence delimitation item"
                )
            tag, length = self.headers.implicit(self._data, at)
            item_key = self.headers.key(tag)
            if item_key == SEQUENCE_END:
                break
            if item_key != ITEM:
                raise Invalid(f"{name} has {_tag('', item_key)} in place of a fragment")
            at = content + length
            if at > end:
                raise Invalid(
                    f"{name} is truncated: fragment {len(fragments)} promises {length} bytes"
                    f" at byte {content}, {end - content} are there"
                )
            if self._elements_left <= 0:
                raise self._too_many_elements()
            self._elements_left -= 1
            fragments.append((content, length))
        if not is_pixel_data:
            return self._binary("OB", scope.path + key, start, at - start), content
        self.pixel_data = (key, "OB", EncapsulatedValue(start, tuple(fragments)))
        self._ceiling += at - start
        return None, content

    def _binary(self, name: str, path: str, offset: int, length: int) -> dict[str, Any]:
        if length > self._limits.inline_binary_max_bytes:
            self.bulk_data[path] = NativeValue(offset, length)
            self._ceiling += length
            return {"vr": name, "BulkDataURI": f"bulkdata/{path}"}
        if length == 0:
            return {"vr": name}
        raw = bytes(self._data[offset : offset + length])
        return {"vr": name, "InlineBinary": inline_binary(name, raw, big_endian=self._big_endian)}

    def _resolve_signs(self, first: int, dataset: dict[str, Any]) -> None:
        """Give the elements of "US or SS" from `first` on their VR, by Pixel Representation."""
        representation = dataset.get(PIXEL_REPRESENTATION, {}).get("Value", [0])[0]
        signed = representation not in (0, None)
        for path, element, offset, length in self._unresolved[first:]:
            raw = bytes(self._data[offset : offset + length])
            try:
                values = pixel_values(path[-8:], raw, signed=signed, big_endian=self._big_endian)
            except Misfit:
                element.update(self._binary("UN", path, offset, length))
                continue
            element["vr"] = "SS" if signed else "US"
            if values is not None:
                element["Value"] = self._counted(values)
        del self._unresolved[first:]

    def _counted(self, values: list[Any]) -> list[Any]:
        self._values_left -= len(values)
        if self._values_left < 0:
            raise self._too_many_values()
        return values

    def _declare_character_set(self, element: dict[str, Any], depth: int) -> TextDecoder:
        """Return the decoder that `element` asks for, and say ISO_IR 192 in its place."""
        values = element.get("Value", [])
        terms = tuple(value if isinstance(value, str) else "" for value in values)
        if depth == 0:
            self.character_set = terms
        element.clear()
        element.update(vr="CS", Value=["ISO_IR 192"])
        return TextDecoder(terms)

    def _check_tail(self, at: int, scope: _Scope) -> None:
        """Accept what is too short for an element if it is padding. Raises Invalid."""
        if bytes(self._data[at : scope.end]).strip(b"\0"):
            raise Invalid(f"the {scope.end - at} bytes at byte {at} are too few for an element")

    def _truncated(self, scope: _Scope, key: str, length: int, value: int) -> Invalid:
        name = _tag(scope.path, key)
        if value + length <= scope.end:
            return Invalid(
                f"the header is longer than {self._limits.header_max_bytes} bytes at {name}"
            )
        return Invalid(
            f"{name} is truncated: it promises {length} bytes at byte {value},"
            f" {scope.end - value} are there"
        )

    def _too_many_elements(self) -> Invalid:
        return Invalid(f"the header has more than {self._limits.max_elements} elements")

    def _too_many_values(self) -> Invalid:
        return Invalid(f"the header has more than {self._limits.max_values} values")
