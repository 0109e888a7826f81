"""Questions to the index: what doors and portals ask it, by the core's own functions."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from bench.index.people import COMMON, Person, person
from bench.index.studies import ARCHIVE_SHARES, Population, SyntheticStudy
from bfr_core import events, instance_search, locator, patients, statistics, study_search
from bfr_core.access import operator
from bfr_core.matching import Match
from bfr_core.store import Store

PATIENT_NAME, PATIENT_ID, ACCESSION_NUMBER = "00100010", "00100020", "00080050"
STUDY_DATE, MODALITIES_IN_STUDY = "00080020", "00080061"
STUDY_UID, SERIES_UID, SOP_UID = "0020000D", "0020000E", "00080018"
READER = operator("bench")
LIMIT = 50

Ask = Callable[[Store], Awaitable[Sequence[object]]]


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of question: how to make one about a study, and whether it must find something."""

    key: str
    title: str
    make: Callable[["About"], Ask]
    finds: bool = True


@dataclass(frozen=True, slots=True)
class About:
    """What a question is about: a study by chance."""

    population: Population
    study: SyntheticStudy
    chance: Random


def _studies(*matches: Match, archive_id: int | None = None, limit: int = LIMIT) -> Ask:
    return lambda store: study_search.search_studies(
        store, READER, "QIDO-RS", archive_id=archive_id, matches=matches, limit=limit, offset=0
    )


def _by_patient(about: About) -> Ask:
    return _studies(Match(PATIENT_ID, (_person(about).identifier,)))


def _by_patient_here(about: About) -> Ask:
    match = Match(PATIENT_ID, (_person(about).identifier,))
    return _studies(match, archive_id=about.study.archive_id)


def _by_accession(about: About) -> Ask:
    return _studies(Match(ACCESSION_NUMBER, (about.study.accession_number,)))


def _by_study_uid(about: About) -> Ask:
    return _studies(Match(STUDY_UID, (about.study.uid,)))


def _newest_of_range(about: About) -> Ask:
    return _studies(Match(STUDY_DATE, (f"{about.study.arrived.year}0101-",)))


def _by_day_here(about: About) -> Ask:
    match = Match(STUDY_DATE, (f"{about.study.arrived:%Y%m%d}",))
    return _studies(match, archive_id=about.study.archive_id)


def _by_modality_and_date(about: About) -> Ask:
    dates = Match(STUDY_DATE, (f"{about.study.arrived:%Y%m}01-{about.study.arrived:%Y%m}28",))
    return _studies(Match(MODALITIES_IN_STUDY, (about.study.modality,)), dates)


def _by_modality_and_date_here(about: About) -> Ask:
    dates = Match(STUDY_DATE, (f"{about.study.arrived:%Y%m}01-{about.study.arrived:%Y%m}28",))
    match = Match(MODALITIES_IN_STUDY, (about.study.modality,))
    return _studies(match, dates, archive_id=about.study.archive_id)


def _by_modality_nobody_sends(about: About) -> Ask:
    return _studies(Match(MODALITIES_IN_STUDY, ("OPT",)))


def _by_name_prefix(about: About) -> Ask:
    family, given = _person(about).name.split("^")
    return _studies(Match(PATIENT_NAME, (f"{family}^{given[:3]}*",)))


def _by_family_name(about: About) -> Ask:
    return _studies(Match(PATIENT_NAME, (_person(about).name.split("^")[0] + "*",)))


def _by_name_infix(about: About) -> Ask:
    return _studies(Match(PATIENT_NAME, ("*" + _person(about).name.split("^")[0][1:6] + "*",)))


def _by_common_name_and_day(about: About) -> Ask:
    name = about.chance.choice(list(COMMON))
    dates = Match(STUDY_DATE, (f"{about.study.arrived:%Y%m%d}",))
    return _studies(Match(PATIENT_NAME, (f"{name}*",)), dates)


def _series(about: About) -> Ask:
    match = Match(STUDY_UID, (about.study.uid,))
    return lambda store: study_search.search_series(
        store,
        READER,
        "QIDO-RS",
        archive_id=None,
        matches=[match],
        limit=1000,
        offset=0,
        with_study=False,
    )


def _series_by_uid(about: About) -> Ask:
    match = Match(SERIES_UID, (next(about.study.series()).uid,))
    return lambda store: study_search.search_series(
        store,
        READER,
        "QIDO-RS",
        archive_id=None,
        matches=[match],
        limit=1000,
        offset=0,
        with_study=False,
    )


def _instances(*matches: Match) -> Ask:
    return lambda store: instance_search.search_instances(
        store,
        READER,
        "QIDO-RS",
        archive_id=None,
        matches=matches,
        limit=1000,
        offset=0,
        includefield=(),
    )


def _instances_of_study(about: About) -> Ask:
    return _instances(Match(STUDY_UID, (about.study.uid,)))


def _sop_uid(about: About) -> str:
    series = list(about.study.series())[-1]
    return series.sop_instance_uid(about.chance.randrange(series.instances))


def _instance_by_uid(about: About) -> Ask:
    return _instances(Match(SOP_UID, (_sop_uid(about),)))


def _locate(about: About) -> Ask:
    uid = _sop_uid(about)

    async def ask(store: Store) -> Sequence[object]:
        async with store.database.transaction() as tx:
            return await locator.find_sealed(tx, [uid])

    return ask


def _locate_new(about: About) -> Ask:
    uid = f"{about.study.device}.{about.study.stamp}7.1.{about.chance.randrange(500)}"

    async def ask(store: Store) -> Sequence[object]:
        async with store.database.transaction() as tx:
            return await locator.find_sealed(tx, [uid])

    return ask


def _portal_by_number(about: About) -> Ask:
    text = _person(about).identifier
    return lambda store: patients.search_patients(store, READER, text, LIMIT)


def _portal_by_birth_date(about: About) -> Ask:
    text = _person(about).identifier[:8]
    return lambda store: patients.search_patients(store, READER, text, LIMIT)


def _portal_by_name(about: About) -> Ask:
    family, given = _person(about).name.split("^")
    text = f"{given.split()[0]} {family}"
    return lambda store: patients.search_patients(store, READER, text, LIMIT)


def _portal_newest(about: About) -> Ask:
    return lambda store: patients.search_patients(store, READER, "", LIMIT)


def _portal_patient(about: About) -> Ask:
    async def ask(store: Store) -> Sequence[object]:
        return (await patients.find_patient(store, READER, about.study.patient_id))[1]

    return ask


def _portal_study(about: About) -> Ask:
    async def ask(store: Store) -> Sequence[object]:
        archive = f"UNIT{about.study.archive_id}"
        return (await patients.find_study(store, READER, archive, about.study.uid))[2]

    return ask


def _arrived(about: About) -> Ask:
    return lambda store: patients.latest_studies(
        store, READER, modality=None, archive=None, limit=100
    )


def _arrived_of_modality_here(about: About) -> Ask:
    archive = f"UNIT{about.chance.randint(1, len(ARCHIVE_SHARES))}"
    return lambda store: patients.latest_studies(
        store, READER, modality=about.study.modality, archive=archive, limit=100
    )


def _arrived_of_no_modality(about: About) -> Ask:
    return lambda store: patients.latest_studies(
        store, READER, modality="OPT", archive=None, limit=100
    )


def _statistics(about: About) -> Ask:
    async def ask(store: Store) -> Sequence[object]:
        async with store.database.transaction() as tx:
            contents = await statistics.archive_contents(tx)
            await statistics.job_counts(tx)
            await events.latest_events(tx, 50)
        return contents

    return ask


QUESTIONS = (
    Question("patient", "QIDO by PatientID", _by_patient),
    Question("patient.archive", "QIDO by PatientID, one archive", _by_patient_here),
    Question("accession", "QIDO by AccessionNumber", _by_accession),
    Question("study", "QIDO by StudyInstanceUID", _by_study_uid),
    Question("range", "QIDO by StudyDate from a year on, newest 50", _newest_of_range),
    Question("day.archive", "QIDO by one day, one archive", _by_day_here),
    Question("modality", "QIDO by modality and month", _by_modality_and_date),
    Question("modality.archive", "… one archive", _by_modality_and_date_here),
    Question("modality.none", "QIDO by a modality nobody sends", _by_modality_nobody_sends, False),
    Question("name.prefix", "QIDO by family name and beginning of given name", _by_name_prefix),
    Question("name.family", "QIDO by family name*", _by_family_name),
    Question("name.infix", "QIDO by *part of a name*", _by_name_infix),
    Question("name.day", "QIDO by common name* and one day", _by_common_name_and_day, False),
    Question("series", "QIDO series of a study", _series),
    Question("series.uid", "QIDO by SeriesInstanceUID alone", _series_by_uid),
    Question("instances", "QIDO instances of a study (reads manifests)", _instances_of_study),
    Question("instance", "QIDO by SOPInstanceUID alone (reads manifests)", _instance_by_uid),
    Question("locate", "locator, an instance that is sealed", _locate),
    Question("locate.new", "locator, an instance that is new", _locate_new, False),
    Question("portal.number", "patient search, number", _portal_by_number),
    Question("portal.birth", "patient search, birth date", _portal_by_birth_date),
    Question("portal.name", "patient search, given and family name", _portal_by_name),
    Question("portal.newest", "patient search, empty", _portal_newest),
    Question("portal.patient", "patient with all studies", _portal_patient),
    Question("portal.study", "study with its series", _portal_study),
    Question("arrived", "list of arrived studies", _arrived),
    Question("arrived.filter", "… of one archive and modality", _arrived_of_modality_here),
    Question("arrived.none", "… of a modality nobody sends", _arrived_of_no_modality, False),
    Question("statistics", "status page", _statistics),
)


def subjects(population: Population, number: int, seed: int) -> list[About]:
    """Return the studies to ask about: sealed ones, over all years."""
    chance = Random(population.seed * 5 + seed)
    last = max(1, population.studies - 1000)
    return [
        About(population, SyntheticStudy(population, chance.randrange(last)), chance)
        for _ in range(number)
    ]


def _person(about: About) -> Person:
    return person(about.population.seed, about.study.person)
