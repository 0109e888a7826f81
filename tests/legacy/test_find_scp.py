"""C-FIND of Patient Root and Study Root (PS3.4 §C.4.1)."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_CANCEL, C_FIND
from tests.conftest import House, add_house
from tests.legacy.requester import (
    FIND,
    PATIENT_ROOT,
    STUDY_ROOT,
    association,
    find,
    keep,
    key,
)
from tests.legacy.test_store_scp import serving
from tests.samples import ct_instance, ct_series, mr_instance

from bfr_core.settings import Settings
from bfr_core.store import Store
from bfr_legacy.dimse.server import DimseServer

RELATIONAL, COMBINED, FUZZY, ZONES = b"\1\0\0\0", b"\0\1\0\0", b"\0\0\1\0", b"\0\0\0\1"


def values(found: list[Dataset], keyword: str) -> list[object]:
    return [one[keyword].value for one in found]


@pytest.mark.conforms("PS3.4 §C.4.1.1", "a match is one pending response, Success comes last")
async def test_each_study_that_matches_is_a_pending_response(
    dimse: DimseServer, store: Store, house: House
) -> None:
    studies = [ct_instance(PatientID="1"), ct_instance(PatientID="1"), ct_instance(PatientID="2")]
    await keep(store, house, *studies)
    answers = await find(dimse.port, key("STUDY", PatientID="1", StudyInstanceUID=""))
    assert answers.statuses == [0xFF00, 0xFF00, 0x0000]
    expected = {one.StudyInstanceUID for one in studies[:2]}
    assert set(values(answers.identifiers, "StudyInstanceUID")) == expected


@pytest.mark.conforms("PS3.4 §C.6.2.1", "Study Root: keys of patient and study at STUDY level")
async def test_a_study_tells_what_is_asked_for_and_nothing_else(
    dimse: DimseServer, store: Store, house: House
) -> None:
    study = ct_series(3, ModalitiesInStudy="CT")
    second = mr_instance(
        StudyInstanceUID=study[0].StudyInstanceUID, StudyDescription=study[0].StudyDescription
    )
    await keep(store, house, *study, second)
    answers = await find(
        dimse.port,
        key(
            "STUDY",
            StudyInstanceUID=study[0].StudyInstanceUID,
            PatientName="",
            StudyDate="",
            StudyTime="",
            AccessionNumber="",
            ModalitiesInStudy="",
            NumberOfStudyRelatedSeries="",
            NumberOfStudyRelatedInstances="",
            NumberOfPatientRelatedStudies="",
            InstanceAvailability="",
            RetrieveAETitle="",
        ),
    )
    [found] = answers.identifiers
    assert found.QueryRetrieveLevel == "STUDY"
    assert found.RetrieveAETitle == "ARCHIVE"
    assert found.InstanceAvailability == "ONLINE"
    assert found.PatientName == "Testsson^Åsa"
    assert (found.StudyDate, found.StudyTime) == ("20240305", "101500")
    assert sorted(found.ModalitiesInStudy) == ["CT", "MR"]
    assert (found.NumberOfStudyRelatedSeries, found.NumberOfStudyRelatedInstances) == (2, 4)
    assert found.NumberOfPatientRelatedStudies == 1
    assert "PatientID" not in found


@pytest.mark.conforms("PS3.4 §C.6.1.1.2", "Patient Root: patients with what is held of them")
async def test_patients_are_found_with_their_counts(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await keep(store, house, *ct_series(2, PatientID="1"), ct_instance(PatientID="1"))
    await keep(store, house, ct_instance(PatientID="2", PatientName="Annan^Person"))
    answers = await find(
        dimse.port,
        key(
            "PATIENT",
            PatientName="test*",
            PatientID="",
            PatientBirthDate="",
            NumberOfPatientRelatedStudies="",
            NumberOfPatientRelatedSeries="",
            NumberOfPatientRelatedInstances="",
        ),
        root=PATIENT_ROOT,
    )
    [found] = answers.identifiers
    assert (found.PatientID, found.PatientBirthDate) == ("1", "19850101")
    assert found.NumberOfPatientRelatedStudies == 2
    assert found.NumberOfPatientRelatedSeries == 2
    assert found.NumberOfPatientRelatedInstances == 3


@pytest.mark.conforms("PS3.4 §C.4.1.3.1", "each level is searched below its unique keys")
async def test_every_level_is_searched(dimse: DimseServer, store: Store, house: House) -> None:
    series = ct_series(3)
    first = series[0]
    await keep(store, house, *series)
    above = {"PatientID": first.PatientID, "StudyInstanceUID": first.StudyInstanceUID}
    answers = await find(
        dimse.port,
        key("SERIES", **above, SeriesInstanceUID="", NumberOfSeriesRelatedInstances=""),
        root=PATIENT_ROOT,
    )
    [found] = answers.identifiers
    assert found.SeriesInstanceUID == first.SeriesInstanceUID
    assert found.NumberOfSeriesRelatedInstances == 3
    answers = await find(
        dimse.port,
        key(
            "IMAGE",
            **above,
            SeriesInstanceUID=first.SeriesInstanceUID,
            SOPInstanceUID="",
            InstanceNumber="2",
            SliceThickness=None,
            PatientName="",
        ),
        root=PATIENT_ROOT,
    )
    [found] = answers.identifiers
    assert found.SOPInstanceUID == series[1].SOPInstanceUID
    assert found.SliceThickness == 5  # any element of the header may be asked for
    assert found.PatientName == "Testsson^Åsa"


@pytest.mark.parametrize(
    ("root", "identifier", "element"),
    [
        (STUDY_ROOT, key("", StudyInstanceUID=""), 0x00080052),
        (STUDY_ROOT, key("PATIENT", PatientID=""), 0x00080052),
        (STUDY_ROOT, key("SERIE", StudyInstanceUID=""), 0x00080052),
        (STUDY_ROOT, key("SERIES", SeriesInstanceUID=""), 0x0020000D),
        (STUDY_ROOT, key("IMAGE", StudyInstanceUID="1.2", SOPInstanceUID=""), 0x0020000E),
        (PATIENT_ROOT, key("STUDY", StudyInstanceUID=""), 0x00100020),
        (PATIENT_ROOT, key("STUDY", PatientID="1*", StudyInstanceUID=""), 0x00100020),
    ],
)
@pytest.mark.conforms("PS3.4 §C.4.1.1.4", "an identifier that does not match is A900, with element")
async def test_an_identifier_that_does_not_fit_its_model_is_refused(
    dimse: DimseServer, root: str, identifier: Dataset, element: int
) -> None:
    answers = await find(dimse.port, identifier, root=root)
    assert answers.statuses == [0xA900]
    assert answers.final.OffendingElement == element
    assert answers.final.ErrorComment


@pytest.mark.conforms("PS3.4 §C.4.1.1.4", "a value that is none is Cxxx, with the element")
async def test_a_value_that_is_none_is_refused(dimse: DimseServer) -> None:
    def odd() -> Dataset:
        identifier = key("STUDY", StudyInstanceUID="")
        identifier.add_new(0x00080020, "LO", "yesterday")
        identifier[0x00080020].VR = "DA"
        return identifier

    answers = await find(dimse.port, await asyncio.to_thread(odd))
    assert answers.statuses == [0xC000]
    assert answers.final.OffendingElement == 0x00080020


@pytest.mark.conforms("PS3.4 §C.4.1.1.3.2", "unsupported optional keys are told by FF01")
async def test_keys_that_are_not_supported_are_told(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await keep(store, house, ct_instance())
    answers = await find(
        dimse.port, key("STUDY", StudyInstanceUID="", PatientComments="", OtherPatientIDs="7")
    )
    assert answers.statuses == [0xFF01, 0x0000]
    [found] = answers.identifiers
    assert found.PatientComments is None or found.PatientComments == ""


@pytest.mark.conforms("PS3.4 §C.5.1.1", "relational queries by extended negotiation")
async def test_a_relational_query_needs_no_keys_above(
    dimse: DimseServer, store: Store, house: House
) -> None:
    one, other = ct_instance(AccessionNumber="A1"), ct_instance(AccessionNumber="A2")
    await keep(store, house, one, other)
    identifier = key("IMAGE", AccessionNumber="A2", SOPInstanceUID="")
    assert (await find(dimse.port, identifier)).statuses == [0xA900]
    answers = await find(dimse.port, identifier, agreed=RELATIONAL)
    assert values(answers.identifiers, "SOPInstanceUID") == [other.SOPInstanceUID]


@pytest.mark.parametrize(
    "asked", ["svenson", "Anders Svensson", "svensson^anders", "Ander Sven*", "ANDERS"]
)
@pytest.mark.conforms("PS3.4 §C.5.1.1", "fuzzy matching of names by extended negotiation")
async def test_names_match_fuzzily_where_that_is_agreed(
    dimse: DimseServer, store: Store, house: House, asked: str
) -> None:
    await keep(store, house, ct_instance(PatientName="Svensson^Anders", PatientID="1"))
    await keep(store, house, ct_instance(PatientName="Lundqvist^Berit", PatientID="2"))
    identifier = key("STUDY", PatientName=asked, PatientID="")
    answers = await find(dimse.port, identifier, agreed=FUZZY)
    assert values(answers.identifiers, "PatientID") == ["1"]
    if "^" not in asked:
        assert (await find(dimse.port, identifier)).identifiers == []


@pytest.mark.conforms("PS3.4 §C.5.1.1", "a date and its time are one moment where agreed")
async def test_dates_and_times_are_one_moment_where_that_is_agreed(
    dimse: DimseServer, store: Store, house: House
) -> None:
    for number, (date, time) in enumerate(
        (("20240304", "220000"), ("20240305", "030000"), ("20240305", "130000")), 1
    ):
        await keep(
            store, house, ct_instance(StudyDate=date, StudyTime=time, AccessionNumber=str(number))
        )
    identifier = key(
        "STUDY", StudyDate="20240304-20240305", StudyTime="210000-120000", AccessionNumber=""
    )
    answers = await find(dimse.port, identifier, agreed=COMBINED)
    assert set(values(answers.identifiers, "AccessionNumber")) == {"1", "2"}
    identifier.StudyTime = "120000-230000"
    answers = await find(dimse.port, identifier)
    assert set(values(answers.identifiers, "AccessionNumber")) == {"1", "3"}


@pytest.mark.conforms("PS3.4 §C.5.1.1", "time zones are adjusted where that is agreed")
async def test_a_search_in_another_time_zone_finds_the_same_moment(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await keep(
        store,
        house,
        ct_instance(StudyDate="20240305", StudyTime="003000", TimezoneOffsetFromUTC="+0100"),
    )
    identifier = key(
        "STUDY", StudyDate="20240304", StudyInstanceUID="", TimezoneOffsetFromUTC="+0000"
    )
    assert (await find(dimse.port, identifier)).identifiers == []
    [found] = (await find(dimse.port, identifier, agreed=ZONES)).identifiers
    assert (found.StudyDate, found.TimezoneOffsetFromUTC) == ("20240305", "+0100")
    identifier.TimezoneOffsetFromUTC = "+0100"
    assert (await find(dimse.port, identifier, agreed=ZONES)).identifiers == []


@pytest.mark.parametrize(
    ("character_set", "answered"),
    [
        ("ISO_IR 100", "ISO_IR 100"),
        ("ISO_IR 192", "ISO_IR 192"),
        (["ISO 2022 IR 6", "ISO 2022 IR 100"], ["ISO 2022 IR 6", "ISO 2022 IR 100"]),
        ("ISO_IR 144", "ISO_IR 192"),
    ],
)
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
@pytest.mark.conforms("PS3.4 §C.4.1.1.3.1", "Specific Character Set of request and answer")
async def test_names_come_in_and_go_out_in_the_character_set_of_the_request(
    dimse: DimseServer,
    store: Store,
    house: House,
    character_set: str | list[str],
    answered: str | list[str],
    syntax: str,
) -> None:
    await keep(store, house, ct_instance(PatientName="Ångström^Märta", PatientID="1"))
    await keep(store, house, ct_instance(PatientName="Angel^Maria", PatientID="2"))
    name = "" if character_set == "ISO_IR 144" else "Ångström*"
    identifier = key("STUDY", SpecificCharacterSet=character_set, PatientID="1", PatientName=name)
    [found] = (await find(dimse.port, identifier, syntax=syntax)).identifiers
    assert found.SpecificCharacterSet == answered
    assert found.PatientName == "Ångström^Märta"


async def test_cyrillic_and_swedish_names_go_out_with_code_extensions(
    dimse: DimseServer, store: Store, house: House
) -> None:
    for number, name in enumerate(("Ångström^Märta", "Люкceмбypг^Åsa"), 1):
        await keep(
            store,
            house,
            ct_instance(PatientName=name, PatientID=str(number), SpecificCharacterSet="ISO_IR 192"),
        )
    terms = ["ISO 2022 IR 100", "ISO 2022 IR 144"]
    identifier = key("STUDY", SpecificCharacterSet=terms, PatientName="", PatientID="")
    found = (await find(dimse.port, identifier)).identifiers
    assert {str(one.PatientName) for one in found} == {"Ångström^Märta", "Люкceмбypг^Åsa"}
    assert all(list(one.SpecificCharacterSet) == terms for one in found)


@pytest.mark.conforms("PS3.4 §C.2.2.2.2", "A list of UIDs matches each of them")
async def test_a_list_of_uids_matches_each_of_them(
    dimse: DimseServer, store: Store, house: House
) -> None:
    studies = [ct_instance() for _ in range(3)]
    await keep(store, house, *studies)
    wanted = [one.StudyInstanceUID for one in studies[:2]]
    answers = await find(dimse.port, key("STUDY", StudyInstanceUID=wanted))
    assert set(values(answers.identifiers, "StudyInstanceUID")) == set(wanted)


@pytest.mark.conforms("PS3.4 §C.2.2.2.6", "Sequence matching of Request Attributes")
async def test_a_key_within_a_sequence_matches(
    dimse: DimseServer, store: Store, house: House
) -> None:
    series = []
    for number in ("RP1", "RP2"):
        request = Dataset()
        request.RequestedProcedureID = number
        request.ScheduledProcedureStepID = "SPS"
        series.append(
            ct_instance(
                StudyInstanceUID="1.2.3",
                SeriesNumber=number[-1],
                RequestAttributesSequence=[request],
            )
        )
    await keep(store, house, *series)
    asked = Dataset()
    asked.RequestedProcedureID = "RP2"
    identifier = key(
        "SERIES",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="",
        RequestAttributesSequence=[asked],
    )
    answers = await find(dimse.port, identifier)
    assert answers.statuses == [0xFF00, 0x0000]
    [found] = answers.identifiers
    assert found.SeriesInstanceUID == series[1].SeriesInstanceUID
    [item] = found.RequestAttributesSequence
    assert item.RequestedProcedureID == "RP2"
    assert "ScheduledProcedureStepID" not in item


@pytest.mark.conforms("PS3.4 §C.2.2.2.4", "Wild card matching of text")
async def test_modalities_and_wild_cards_match(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await keep(store, house, ct_instance(AccessionNumber="VGR-1"), mr_instance())
    answers = await find(dimse.port, key("STUDY", ModalitiesInStudy="CT", AccessionNumber=""))
    assert values(answers.identifiers, "AccessionNumber") == ["VGR-1"]
    answers = await find(dimse.port, key("STUDY", ModalitiesInStudy="", AccessionNumber="VGR-?"))
    assert values(answers.identifiers, "ModalitiesInStudy") == ["CT"]


@pytest.mark.conforms("PS3.4 §C.4.1.1.4", "more matches than the limit end with A700")
async def test_more_matches_than_allowed_end_with_out_of_resources(
    house: House, with_settings: Callable[..., Settings]
) -> None:
    async with serving(with_settings(dimse_find_matches_max=2)) as (store, port):
        await keep(store, house, *(ct_instance() for _ in range(3)))
        answers = await find(port, key("STUDY", StudyInstanceUID=""))
    assert answers.statuses == [0xFF00, 0xFF00, 0xA700]
    assert "more than 2" in answers.final.ErrorComment


@pytest.mark.conforms("PS3.4 §C.4.1.3", "C-CANCEL ends a query with FE00")
async def test_a_query_that_is_cancelled_stops(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await keep(store, house, *(ct_instance(rows=8, columns=8) for _ in range(300)))

    def talk() -> list[int]:
        statuses = []
        model = STUDY_ROOT + FIND
        with association(dimse.port, [(model, [ImplicitVRLittleEndian])]) as made:
            cancel = C_CANCEL()
            cancel.MessageIDBeingRespondedTo = 1
            found = made.send_c_find(key("STUDY", StudyInstanceUID="", PatientName=""), model)
            made.dimse.send_msg(cancel, made.accepted_contexts[0].context_id or 0)
            statuses = [int(status.Status) for status, _ in found]
            # A request that comes later under the same Message ID is another one.
            found = made.send_c_find(key("STUDY", StudyInstanceUID=""), model)
            assert len(list(found)) == 301
        return statuses

    statuses = await asyncio.to_thread(talk)
    assert statuses[-1] == 0xFE00
    assert len(statuses) < 301


@pytest.mark.conforms("PS3.4 §C.4.1.3", "a search sees the archive that was called alone")
async def test_a_dedicated_archive_answers_its_own_data_only(
    dimse: DimseServer, store: Store, house: House
) -> None:
    other = await add_house(store, "OTHER", "MODALITY")
    mine = ct_instance()
    await keep(store, house, mine)
    await keep(store, other, ct_instance())
    answers = await find(dimse.port, key("STUDY", StudyInstanceUID=""))
    assert values(answers.identifiers, "StudyInstanceUID") == [mine.StudyInstanceUID]
    async with store.database.transaction() as tx:
        rows = await tx.rows("SELECT * FROM audit_record WHERE action = 'search'")
    assert [(row["door"], row["caller"], row["archive_id"]) for row in rows] == [
        ("C-FIND", "MODALITY", house.archive.archive_id)
    ]


async def test_without_a_database_a_query_is_told_so(
    dimse: DimseServer, store: Store, house: House
) -> None:
    def talk() -> list[int]:
        with association(dimse.port, [(STUDY_ROOT + FIND, [ImplicitVRLittleEndian])]) as made:
            asyncio.run_coroutine_threadsafe(store.database.pool.close(), loop).result()
            found = made.send_c_find(key("STUDY", StudyInstanceUID=""), STUDY_ROOT + FIND)
            return [int(status.Status) for status, _ in found]

    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(talk) == [0xA700]


async def test_an_identifier_that_cannot_be_decoded_is_refused(dimse: DimseServer) -> None:
    def talk() -> list[int]:
        with association(dimse.port, [(STUDY_ROOT + FIND, [ImplicitVRLittleEndian])]) as made:
            request = C_FIND()
            request.MessageID, request.Priority = 1, 2
            request.AffectedSOPClassUID = STUDY_ROOT + FIND
            request.Identifier = io.BytesIO(b"\x08\0\x52\0\xff\0\0\0STUDY ")
            made._reactor_checkpoint.clear()
            made.dimse.send_msg(request, made.accepted_contexts[0].context_id or 0)
            response: Any = made.dimse.get_msg(block=True)[1]
            made._reactor_checkpoint.set()
            return [int(response.Status)]

    assert await asyncio.to_thread(talk) == [0xC000]
