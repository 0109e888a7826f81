"""What happened to whom and when: the studies of the demonstration and what they are made of."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bfr_command.demo import identities
from bfr_command.demo.identities import Patient

Door = Literal["C-STORE", "STOW-RS"]

WEST = "Provsjukhuset Väster"
EAST = "Testlasarettet Öster"
CLINIC = "Exempelröntgen Åby"


@dataclass(frozen=True, slots=True)
class Series:
    """One series: files that pydicom ships, or the name of a picture made by code."""

    number: int
    description: str
    bundled: tuple[str, ...] = ()  # paths below pydicom's data/test_files
    generated: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """One visit of one patient."""

    key: str  # never changes: the UIDs are made from it
    patient: Patient
    started_at: datetime  # local time of the hospital
    description: str
    body_part: str  # PS3.16 Annex L
    institution: str
    referrer: str
    accession_number: str
    door: Door
    series: tuple[Series, ...]


_MR_SYNTAXES = (
    ("expl", "MR_small.dcm"),
    ("impl", "MR_small_implicit.dcm"),
    ("big endian", "MR_small_bigendian.dcm"),
    ("RLE", "MR_small_RLE.dcm"),
    ("J2K", "MR_small_jp2klossless.dcm"),
    ("JPEG-LS", "MR_small_jpeg_ls_lossless.dcm"),
)
_TINY = "dicomdirtests/"
_TINY_MR = _TINY + "98892003/"


def _study(
    key: str,
    patient: Patient,
    started_at: str,
    description: str,
    body_part: str,
    place: tuple[str, str],
    door: Door,
    *series: Series,
) -> Study:
    institution, referrer = place
    started = datetime.fromisoformat(started_at)
    return Study(
        key=key,
        patient=patient,
        started_at=started,
        description=description,
        body_part=body_part,
        institution=institution,
        referrer=referrer,
        accession_number=f"PRV{started:%y%m%d}{key[-2:]}",
        door=door,
        series=series,
    )


_LUNG_CLINIC = (WEST, "Remittén^Åke^^Dr")
_HEART_CLINIC = (EAST, "Hjärtlund^Öivind^^Dr")
_CARE_CENTRE = (CLINIC, "Vårdström^Maj^^Dr")

STUDIES = (
    _study(
        "asa-01", identities.ASA, "2021-09-02T08:40:00", "Vilo-EKG 12 avledningar", "HEART",
        _CARE_CENTRE, "STOW-RS",
        Series(1, "EKG 12 avledningar", bundled=("waveform_ecg.dcm",)),
    ),
    _study(
        "asa-02", identities.ASA, "2024-11-12T13:05:00", "DT thorax med iv kontrast", "CHEST",
        _LUNG_CLINIC, "C-STORE",
        Series(2, "Thorax 5 mm", generated="ct-prior"),
    ),
    _study(
        "asa-03", identities.ASA, "2025-11-04T09:15:00", "Lungröntgen", "CHEST",
        _CARE_CENTRE, "STOW-RS",
        Series(1, "Frontal PA", generated="chest-radiograph"),
    ),
    _study(
        "asa-04", identities.ASA, "2025-11-18T10:30:00", "DT thorax och buk med iv kontrast",
        "CHESTABDOMEN", _LUNG_CLINIC, "C-STORE",
        Series(1, "Översiktsbild", generated="ct-scout"),
        Series(2, "Thorax buk 2 mm", generated="ct"),
        Series(3, "Thorax buk cor 5 mm", generated="ct-coronal"),
        Series(99, "Utlåtande", generated="report"),
    ),
    _study(
        "orjan-01", identities.ORJAN, "2021-04-20T14:20:00", "Ultraljud hjärta", "HEART",
        _HEART_CLINIC, "STOW-RS",
        Series(1, "Apikal fyrkammarbild", bundled=("examples_ybr_color.dcm",)),
    ),
    _study(
        "orjan-02", identities.ORJAN, "2023-02-14T07:50:00", "DT hjärta kalkbestämning", "HEART",
        _HEART_CLINIC, "C-STORE",
        Series(2, "Översikt", bundled=tuple(
            f"{_TINY}98892001/CT2N/{name}" for name in ("6293", "6924")
        )),
        Series(5, "EKG-triggad 2,5 mm", bundled=tuple(
            f"{_TINY}98892001/CT5N/{name}" for name in ("2062", "2392", "2693", "3023", "3353")
        )),
    ),
    _study(
        "orjan-03", identities.ORJAN, "2024-09-30T15:10:00", "Ultraljud hjärta", "HEART",
        _HEART_CLINIC, "C-STORE",
        Series(1, "Apikal fyrkammarbild, färgdoppler", generated="echocardiogram"),
    ),
    _study(
        "orjan-04", identities.ORJAN, "2026-02-10T11:45:00", "Lungröntgen", "CHEST",
        _CARE_CENTRE, "STOW-RS",
        Series(1, "Frontal", bundled=(f"{_TINY}77654033/CR1/6154",)),
        Series(2, "Sida", bundled=(f"{_TINY}77654033/CR2/6247",)),
        Series(3, "Liggande", bundled=(f"{_TINY}77654033/CR3/6278",)),
    ),
    _study(
        "marta-01", identities.MARTA, "2022-10-05T10:00:00", "Ultraljud obstetrik", "UTERUS",
        (WEST, "Barnmorsk^Pia Lö"), "STOW-RS",
        Series(1, "Cisterna magna", bundled=("examples_palette.dcm",)),
    ),
    _study(
        "marta-02", identities.MARTA, "2024-03-21T16:30:00", "MR hjärna", "HEAD",
        (EAST, "Nervstrand^Gösta^^Dr"), "C-STORE",
        *(
            Series(number, f"T2 3D {syntax}", bundled=(name,))
            for number, (syntax, name) in enumerate(_MR_SYNTAXES, start=1)
        ),
    ),
    _study(
        "marta-03", identities.MARTA, "2026-01-15T12:20:00", "MR hjärna", "HEAD",
        (EAST, "Nervstrand^Gösta^^Dr"), "STOW-RS",
        Series(1, "T1 tra", generated="mr-t1"),
        Series(2, "T2 tra", generated="mr-t2"),
    ),
    _study(
        "goran-01", identities.GORAN, "2021-05-11T09:30:00", "Skelettscintigrafi helkropp",
        "WHOLEBODY", (WEST, "Tumörberg^Kår^^Dr"), "C-STORE",
        Series(1, "Helkropp framifrån, JPEG", bundled=("JPEG-lossy.dcm",)),
        Series(2, "Helkropp framifrån, JPEG 2000", bundled=("JPEG2000.dcm",)),
    ),
    _study(
        "goran-02", identities.GORAN, "2022-02-08T08:10:00", "DT ländrygg", "SPINE",
        (WEST, "Tumörberg^Kår^^Dr"), "STOW-RS",
        Series(1, "Ländrygg 5 mm", bundled=("CT_small.dcm",)),
    ),
    _study(
        "goran-03", identities.GORAN, "2022-03-15T13:40:00", "Strålbehandling dosplan", "PROSTATE",
        (WEST, "Strålin^Bo^^Dr"), "C-STORE",
        Series(1, "Strukturer", bundled=("rtstruct.dcm",)),
        Series(2, "Plan 1", bundled=("rtplan.dcm",)),
        Series(3, "Dos", bundled=("rtdose.dcm",)),
        Series(4, "Dos, big endian", bundled=("rtdose_expb.dcm",)),
        Series(5, "Dos, RLE", bundled=("rtdose_rle.dcm",)),
    ),
    _study(
        "goran-04", identities.GORAN, "2023-05-23T10:15:00", "Segmentering lever", "LIVER",
        (WEST, "Tumörberg^Kår^^Dr"), "STOW-RS",
        Series(1, "Lever", bundled=("liver_1frame.dcm",)),
        Series(2, "Lever, big endian", bundled=("liver_expb_1frame.dcm",)),
    ),
    _study(
        "goran-05", identities.GORAN, "2025-06-03T17:00:00", "MR buk med kontrast", "ABDOMEN",
        (WEST, "Tumörberg^Kår^^Dr"), "STOW-RS",
        Series(18, "Markerad förändring", bundled=("examples_overlay.dcm",)),
    ),
    _study(
        "ebba-01", identities.EBBA, "2023-08-17T09:50:00", "Ultraljud mjukdelar hals", "NECK",
        (EAST, "Barnlund^Åsa^^Dr"), "C-STORE",
        Series(1, "Lymfkörtel, power", bundled=("examples_rgb_color.dcm",)),
        Series(2, "Lymfkörtel, power J2K", bundled=("examples_jpeg2k.dcm",)),
    ),
    _study(
        "ebba-02", identities.EBBA, "2025-12-02T14:00:00", "Ultraljud hjärta", "HEART",
        (EAST, "Barnlund^Åsa^^Dr"), "STOW-RS",
        Series(1, "Minibild", bundled=("ExplVR_BigEnd.dcm",)),
    ),
    _study(
        "signe-01", identities.SIGNE, "2021-11-23T11:11:00", "Mätprotokoll", "BREAST",
        _CARE_CENTRE, "C-STORE",
        Series(1, "Utlåtande, text", bundled=("reportsi.dcm",)),
        Series(2, "Utlåtande, strukturerat", bundled=("test-SR.dcm",)),
    ),
    _study(
        "signe-02", identities.SIGNE, "2024-05-07T08:25:00", "Inskannad remiss", "BREAST",
        _CARE_CENTRE, "STOW-RS",
        Series(1, "Remiss PDF", generated="referral"),
    ),
    _study(
        "rafael-01", identities.RAFAEL, "2023-06-26T22:35:00", "DT hjärna", "HEAD",
        (WEST, "Jourström^Ärla^^Dr"), "C-STORE",
        Series(4, "Hjärna 5 mm", bundled=("J2K_pixelrep_mismatch.dcm",)),
    ),
    _study(
        "rafael-02", identities.RAFAEL, "2023-06-28T07:30:00", "DT hjärna kontroll", "HEAD",
        (WEST, "Jourström^Ärla^^Dr"), "STOW-RS",
        Series(2, "Hjärna 5 mm, komprimerad", bundled=("693_J2KI.dcm",)),
    ),
    _study(
        "rafael-03", identities.RAFAEL, "2024-01-09T10:05:00", "DT hjärna kontroll", "HEAD",
        (WEST, "Nervstrand^Gösta^^Dr"), "C-STORE",
        Series(2, "Hjärna utan kontrast", bundled=tuple(
            f"{_TINY}77654033/CT2/{name}" for name in ("17106", "17136", "17166", "17196")
        )),
    ),
    _study(
        "reserve-01", identities.RESERVE, "2025-02-28T03:15:00", "MR hjärna akut", "HEAD",
        (EAST, "Jourström^Ärla^^Dr"), "STOW-RS",
        Series(1, "Lokaliserare", bundled=(f"{_TINY_MR}MR1/15820",)),
        Series(2, "Pilot tre plan", bundled=tuple(
            f"{_TINY_MR}MR2/{name}" for name in ("4950", "5011", "4981")
        )),
        Series(700, "Angio projektioner", bundled=tuple(
            f"{_TINY_MR}MR700/{name}"
            for name in ("4558", "4528", "4588", "4467", "4618", "4678", "4648")
        )),
    ),
    _study(
        "reserve-02", identities.RESERVE, "2025-03-03T12:00:00", "Teknisk kontroll bildvisning",
        "PHANTOM", (EAST, "Fysikson^Måns"), "C-STORE",
        Series(1, "Gråskala", bundled=("image_dfl.dcm",)),
        Series(2, "Färger RLE", bundled=("SC_rgb_rle.dcm",)),
        Series(3, "Färger JPEG", bundled=("SC_rgb_jpeg_dcmtk.dcm",)),
        Series(4, "Färger JPEG förlustfri", bundled=("SC_rgb_jpeg_gdcm.dcm",)),
        Series(5, "Färger 4:2:2", bundled=("SC_ybr_full_422_uncompressed.dcm",)),
        Series(6, "Färger, två bilder", bundled=("SC_rgb_rle_2frame.dcm",)),
        Series(7, "Färgord", bundled=("GDCMJ2K_TextGBR.dcm",)),
    ),
)  # fmt: skip
