"""Studies of the synthetic index: each one a function of seed and number, so that all need no room.

The mix is that of a Swedish region: mostly plain radiographs by count, mostly CT and MR by images.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random

from bfr_core.locator import common_prefix, key_of

FIRST_DAY = datetime.datetime(2011, 1, 1, tzinfo=datetime.UTC)
YEARS = 15
SERIES_MAX = 64  # series ids are study id × 64 + position

# Weight among studies; series (most, at most), instances a series (least, most), bytes each.
MODALITIES = {
    "DX": (40, (1, 3), (1, 2), 8_000_000),
    "CR": (5, (1, 3), (1, 1), 6_000_000),
    "CT": (22, (2, 10), (2, 380), 530_000),
    "US": (12, (1, 1), (5, 45), 900_000),
    "MR": (12, (5, 14), (18, 90), 300_000),
    "MG": (6, (1, 4), (1, 2), 20_000_000),
    "NM": (1, (1, 3), (1, 4), 2_000_000),
    "PT": (1, (2, 4), (150, 400), 70_000),
    "XA": (1, (2, 8), (1, 3), 20_000_000),
}
BODY_PARTS = ("CHEST", "ABDOMEN", "HEAD", "KNEE", "HIP", "SPINE", "HAND", "PELVIS", "FOOT", "NECK")
DESCRIPTIONS = ("Rutin", "Akut", "Kontroll", "Trauma", "Uppföljning", "Screening", "Preoperativ")
PHYSICIANS = 4000
# Units of very different size; a share of a hundred each.
ARCHIVE_SHARES = (22, 17, 14, 11, 9, 8, 6, 5, 4, 2, 1, 1)
# How visits fall on people: weight and share of the people.
VISITS = ((1, 0.70), (4, 0.25), (15, 0.05))
# How modalities make SOP Instance UIDs, and the share of studies.
UID_STYLES = {"counter": 60, "clock": 38, "chance": 2}


@dataclass(frozen=True, slots=True)
class Population:
    """The whole that a synthetic index is a sample of."""

    studies: int
    seed: int
    studies_a_person: int = 6

    @property
    def people(self) -> int:
        """How many people have studies."""
        return max(1, self.studies // self.studies_a_person)

    def archives_of(self, number: int) -> tuple[int, ...]:
        """Return the archives that hold a person: for three in ten may be a second one."""
        units = Random(number * 7 + self.seed)
        home, other = units.choices(range(len(ARCHIVE_SHARES)), ARCHIVE_SHARES, k=2)
        return (1 + home, 1 + other) if home != other and number % 10 >= 7 else (1 + home,)


@dataclass(frozen=True)
class SyntheticSeries:
    """One series: its place, and its SOP Instance UIDs without keeping them."""

    study: "SyntheticStudy"
    position: int
    instances: int

    @property
    def series_id(self) -> int:
        """The row it has in the index."""
        return self.study.study_id * SERIES_MAX + self.position

    @cached_property
    def uid(self) -> str:
        """Series Instance UID."""
        return f"{self.study.uid}.{self.position + 1}"

    def sop_instance_uid(self, number: int) -> str:
        """Return the UID of an instance; they count from 0."""
        study = self.study
        if study.uid_style == "counter":
            return f"{study.device}.{study.stamp}.{self.position + 1}.{number + 1}"
        if study.uid_style == "clock":  # ticks of a clock that went on while the series was made
            ticks = study.ticks + self.position * 1_800_000_000 + number * 3_000_017
            return f"{study.device}.{ticks}"
        part = f"{study.seed}/{self.series_id}/{number}"
        digits = abs(key_of(part)) * 10**18 + abs(key_of(part + "/"))
        return f"1.2.826.0.1.3680043.8.498.{digits % 10**37}"

    def locator_keys(self) -> list[int]:
        """Return the keys that sealing gives the series (bfr_core.locator)."""
        if self.instances > 1 and self.study.uid_style == "chance":
            return [key_of(self.sop_instance_uid(number)) for number in range(self.instances)]
        if self.instances == 1:
            return [key_of(self.sop_instance_uid(0))]
        # The first, the second and the last have no more in common than all together.
        ends = [self.sop_instance_uid(number) for number in {0, 1, self.instances - 1}]
        return [key_of(common_prefix(ends))]

    @property
    def manifest_key(self) -> str:
        """Where its manifest lies, or would lie."""
        study = self.study
        name = f"{self.series_id:016x}{abs(key_of(self.uid)):016x}"
        return f"{study.archive_id}/{study.arrived:%Y/%m/%d}/{name}.manifest"


class SyntheticStudy:
    """One study."""

    def __init__(self, population: Population, number: int) -> None:
        self.seed = population.seed
        self.study_id = number + 1
        chance = self.chance = Random(population.seed * 2_000_003 + number)
        self.person = self._draw_person(population.people)
        archives = population.archives_of(self.person)
        elsewhere = len(archives) == 2 and chance.random() < 0.3
        self.archive_id = archives[elsewhere]
        self.patient_id = 1 + self.person * 2 + elsewhere
        self.modality = chance.choices(
            list(MODALITIES), [weight for weight, *_ in MODALITIES.values()]
        )[0]
        _, series_range, self.instance_range, self.instance_bytes = MODALITIES[self.modality]
        self.series_count = chance.randint(*series_range)
        share = (number + chance.random()) / population.studies
        seconds = share * YEARS * 365.25 * 86_400
        self.arrived = FIRST_DAY + datetime.timedelta(seconds=seconds)
        self.stamp = f"{self.arrived:%Y%m%d%H%M%S}{number % 1000:03}"
        self.ticks = int(self.arrived.timestamp() * 10_000_000) + 621_355_968_000_000_000
        self.device = f"1.2.752.99.{self.archive_id}.107.5.{40_000 + chance.randrange(60)}"
        self.uid_style = chance.choices(list(UID_STYLES), list(UID_STYLES.values()))[0]
        self.uid = f"1.2.752.99.{self.archive_id}.1.{self.stamp}.{10**12 + number}.{number % 97}"
        self.accession_number = f"SE{self.archive_id:02}{number:011}"
        self.body_part = chance.choice(BODY_PARTS)
        self.description = (
            f"{self.modality} {self.body_part.capitalize()} {chance.choice(DESCRIPTIONS)}"
        )
        self.physician = chance.randrange(PHYSICIANS)

    def _draw_person(self, people: int) -> int:
        kind = self.chance.choices(
            range(len(VISITS)), [weight * share for weight, share in VISITS]
        )[0]
        # People of one kind lie scattered: every tenth, so that shares are the same at any size.
        tenth = {0: (0, 14), 1: (14, 19), 2: (19, 20)}[kind]
        number = self.chance.randrange(people)
        return min(number // 20 * 20 + self.chance.randrange(*tenth), people - 1)

    def series(self) -> Iterator[SyntheticSeries]:
        """Give the series of the study."""
        chance = Random(self.study_id * 31 + self.seed)
        low, high = self.instance_range
        for position in range(self.series_count):
            # A localizer of a few, then stacks.
            few = self.modality in ("CT", "MR") and position == 0
            instances = chance.randint(2, 6) if few else chance.randint(low, high)
            yield SyntheticSeries(self, position, instances)
