"""People of the synthetic index: generated names, ages and numbers, nobody real."""

import datetime
from dataclasses import dataclass
from functools import cache
from random import Random

SLOTS = 40_000  # birth days of one round of people; the next rounds are born on the same days
PEOPLE_BORN = (1920, 2024)

# The most common surnames and how many of a thousand people bear each; the rest is compounded.
COMMON = {
    "Andersson": 23, "Johansson": 23, "Karlsson": 20, "Nilsson": 16, "Eriksson": 14,
    "Larsson": 12, "Olsson": 11, "Persson": 10, "Svensson": 10, "Gustafsson": 9,
    "Pettersson": 8, "Jonsson": 7, "Jansson": 5, "Hansson": 4, "Bengtsson": 3,
    "Lindberg": 3, "Lindström": 2, "Lindqvist": 2, "Axelsson": 2, "Bergström": 2,
    "Öberg": 2, "Åström": 2, "Ali": 2, "Mohamed": 2, "Ahmed": 2, "Hassan": 2,
}  # fmt: skip
FIRST = (
    "Lind Berg Ek Björk Sjö Sand Ny Ceder Hag Dal Gran Hed Häll Holm Käll Lund Löf Malm Norr Näs "
    "Palm Ros Rönn Skog Sten Strand Sund Söder Tall Uls Vik Väst Wall Wester Å Äng Ö Öster Ahl Alm "
    "Asp Blom Bo Brand Bäck Eng Fors Fri Gyll Grön Högl Jung Kvarn Lilje Ljung Mark Mo Nord Rydd"
).split()
LAST = (
    "ström berg gren kvist qvist man stedt feldt lund mark holm dahl by blad bom borg fors gård "
    "hed hult kvarn vall bäck ås ell in ler roth sjö strand näs"
).split()
WOMEN = (
    "Anna Maria Elisabeth Eva Kristina Birgitta Karin Linnéa Marie Ingrid Sofia Margareta Lena "
    "Sara Kerstin Emma Johanna Katarina Inger Viktoria Cecilia Susanne Elin Monica Jenny Therese "
    "Irene Åsa Ulla Carina Gunilla Helena Fatima Hanna Ida Julia Amanda Alice Märta Siv Astrid"
).split()
MEN = (
    "Erik Lars Karl Anders Johan Per Nils Carl Mikael Jan Hans Peter Olof Lennart Gunnar Sven "
    "Fredrik Bengt Bo Daniel Gustav Göran Åke Magnus Alexander Stefan John Martin Björn Leif "
    "Mohamed Ahmed Thomas Mats Henrik Ulf Jonas Axel Stig Oskar Kjell Emil Rolf Börje Viktor"
).split()


@dataclass(frozen=True, slots=True)
class Person:
    """One person of the region."""

    identifier: str
    name: str
    birth_date: datetime.date
    sex: str


def person(seed: int, number: int) -> Person:
    """Return the person with this number, the same for the same seed."""
    chance = Random(seed * 1_000_003 + number)
    born, twin = _birth_days(seed)[number % SLOTS]
    sex = chance.choices("FMO", (520, 479, 1))[0]
    given = chance.sample(WOMEN if sex == "F" else MEN, 2)
    identifier = f"{born:%Y%m%d}{number // SLOTS * 16 + twin:04}"
    return Person(identifier, f"{_surname(chance)}^{' '.join(given)}", born, sex)


def _surname(chance: Random) -> str:
    at = chance.random() * 1000
    for name, share in COMMON.items():
        at -= share
        if at < 0:
            return name
    return chance.choice(FIRST) + chance.choice(LAST)


@cache
def _birth_days(seed: int) -> list[tuple[datetime.date, int]]:
    """Return a birth day for each slot, most of them of the old, and its number on that day."""
    chance = Random(seed)
    first, last = (datetime.date(year, 1, 1).toordinal() for year in PEOPLE_BORN)
    seen: dict[int, int] = {}
    days: list[tuple[datetime.date, int]] = []
    while len(days) < SLOTS:
        day = int(chance.triangular(first, last, first + (last - first) * 0.25))
        twin = seen.get(day, 0)
        if twin < 16:
            seen[day] = twin + 1
            days.append((datetime.date.fromordinal(day), twin))
    return days
