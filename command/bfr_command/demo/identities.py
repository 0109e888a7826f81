"""The people of the demonstration: invented names, and person numbers reserved for tests.

A personnummer whose birth number is 980 to 989 is never given to a person (Skatteverket, test
numbers). The reserve number is a published test number of Västra Götalandsregionen.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal

PERSONNUMMER_OID = "1.2.752.129.2.1.3.1"
SAMORDNINGSNUMMER_OID = "1.2.752.129.2.1.3.3"
VGR_RESERVE_NUMBER_OID = "1.2.752.113.11.0.2.1.1.1"

FIRST_TEST_BIRTH_NUMBER, LAST_TEST_BIRTH_NUMBER = 980, 989


@dataclass(frozen=True, slots=True)
class Patient:
    """One invented patient."""

    patient_id: str  # twelve characters, century included
    issuer_oid: str  # the domain of patient_id
    name: str  # PN with å, ä or ö
    birth_date: date
    sex: Literal["F", "M"]


def luhn_digit(digits: str) -> int:
    """Return the check digit that follows `digits`, weights 2 and 1 from the left.

    Raises ValueError when a character is no digit.
    """
    total = 0
    for position, character in enumerate(digits):
        product = int(character) * (2 if position % 2 == 0 else 1)
        total += product // 10 + product % 10
    return -total % 10


def personnummer(birth_date: date, birth_number: int) -> str:
    """Return a personnummer of twelve digits in the test range.

    Raises ValueError when the birth number lies outside 980 to 989.
    """
    return _numbered(birth_date, birth_date.day, birth_number)


def samordningsnummer(birth_date: date, birth_number: int) -> str:
    """Return a samordningsnummer (day of birth plus 60) of twelve digits in the test range.

    Raises ValueError when the birth number lies outside 980 to 989.
    """
    return _numbered(birth_date, birth_date.day + 60, birth_number)


def _numbered(birth_date: date, day: int, birth_number: int) -> str:
    if not FIRST_TEST_BIRTH_NUMBER <= birth_number <= LAST_TEST_BIRTH_NUMBER:
        raise ValueError("birth number lies outside the test range 980 to 989")
    digits = f"{birth_date:%Y%m}{day:02d}{birth_number:03d}"
    return digits + str(luhn_digit(digits[2:]))


def _registered(name: str, born: str, birth_number: int) -> Patient:
    birth_date = date.fromisoformat(born)
    return Patient(
        patient_id=personnummer(birth_date, birth_number),
        issuer_oid=PERSONNUMMER_OID,
        name=name,
        birth_date=birth_date,
        sex="M" if birth_number % 2 else "F",
    )


ASA = _registered("Provberg^Åsa", "1958-03-14", 986)
ORJAN = _registered("Testlund^Örjan", "1949-11-02", 981)
MARTA = _registered("Exempelström^Märta", "1985-06-21", 982)
GORAN = _registered("Provgren^Göran", "1937-01-30", 983)
EBBA = _registered("Låtsasdotter^Ebba", "2017-09-05", 984)
SIGNE = _registered("Påhittdal^Signe Märit", "1964-12-24", 988)
RAFAEL = Patient(
    patient_id=samordningsnummer(date(1992, 4, 12), 985),
    issuer_oid=SAMORDNINGSNUMMER_OID,
    name="Exempelåker^Rafael",
    birth_date=date(1992, 4, 12),
    sex="M",
)
RESERVE = Patient(
    patient_id="19810829M071",
    issuer_oid=VGR_RESERVE_NUMBER_OID,
    name="Reservmån^Okänd",
    birth_date=date(1981, 8, 29),
    sex="M",
)

PATIENTS = (ASA, ORJAN, MARTA, GORAN, EBBA, SIGNE, RAFAEL, RESERVE)
