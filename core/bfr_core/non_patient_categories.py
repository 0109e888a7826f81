"""Non-patient categories: which SOP classes are of no patient, and what a search tells of them.

Sources: PS3.18 table 12.1.1-1, PS3.4 table GG.3-1 and Annexes U, X, BB and HH.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword

from bfr_core.instances import SOP_CLASS_UID, STUDY_INSTANCE_UID, Dataset, text


@dataclass(frozen=True, slots=True)
class Category:
    """A resource of non-patient instances."""

    sop_classes: frozenset[str]
    returned: frozenset[str]  # tags that a search returns unasked


def _returned(keywords: str) -> frozenset[str]:
    always = "SpecificCharacterSet SOPClassUID SOPInstanceUID TimezoneOffsetFromUTC "
    return frozenset(f"{tag_for_keyword(one):08X}" for one in (always + keywords).split())


CATEGORIES: Mapping[str, Category] = {
    "color-palettes": Category(
        frozenset({"1.2.840.10008.5.1.4.39.1"}),
        _returned(
            "ContentLabel ContentDescription AlternateContentDescriptionSequence"
            " ContentCreatorName ContentCreatorIdentificationCodeSequence"
            " PaletteColorLookupTableUID"
        ),
    ),
    # Protocol Approval too: its IOD is one of PS3.3 §A.82.
    "defined-procedure-protocols": Category(
        frozenset(
            {
                "1.2.840.10008.5.1.4.1.1.200.1",
                "1.2.840.10008.5.1.4.1.1.200.3",
                "1.2.840.10008.5.1.4.1.1.200.7",
            }
        ),
        _returned(
            "Modality Manufacturer ManufacturerModelName DeviceSerialNumber SoftwareVersions"
            " ModelSpecificationSequence ContentLabel ContentDescription ContentCreatorName"
            " ProtocolName CustodialOrganizationSequence ResponsibleGroupCodeSequence"
            " PotentialScheduledProtocolCodeSequence PotentialRequestedProcedureCodeSequence"
            " PotentialReasonsForProcedure PotentialReasonsForProcedureCodeSequence"
            " PotentialDiagnosticTasks PredecessorProtocolSequence"
            " InstanceCreationDate InstanceCreationTime ApprovalSubjectSequence"
        ),
    ),
    "hanging-protocols": Category(
        frozenset({"1.2.840.10008.5.1.4.38.1"}),
        _returned(
            "HangingProtocolName HangingProtocolDescription HangingProtocolLevel"
            " HangingProtocolCreator HangingProtocolCreationDateTime"
            " HangingProtocolDefinitionSequence NumberOfPriorsReferenced"
            " HangingProtocolUserIdentificationCodeSequence HangingProtocolUserGroupName"
            " NumberOfScreens NominalScreenDefinitionSequence"
        ),
    ),
    "implant-templates": Category(
        frozenset(
            {
                "1.2.840.10008.5.1.4.43.1",
                "1.2.840.10008.5.1.4.44.1",
                "1.2.840.10008.5.1.4.45.1",
            }
        ),
        _returned(
            "Manufacturer FrameOfReferenceUID ImplantName ImplantSize ImplantPartNumber"
            " EffectiveDateTime ReplacedImplantTemplateSequence DerivationImplantTemplateSequence"
            " OriginalImplantTemplateSequence ImplantTargetAnatomySequence ImplantTypeCodeSequence"
            " ImplantAssemblyTemplateName ImplantAssemblyTemplateIssuer"
            " ImplantAssemblyTemplateVersion ProcedureTypeCodeSequence SurgicalTechnique"
            " ImplantTemplateGroupName ImplantTemplateGroupDescription"
            " ImplantTemplateGroupIssuer ImplantTemplateGroupVersion"
        ),
    ),
    "inventories": Category(
        frozenset({"1.2.840.10008.5.1.4.1.1.201.1"}),
        _returned(
            "ContentDate ContentTime InventoryPurpose InventoryInstanceDescription InventoryLevel"
            " InventoryCompletionStatus NumberOfStudyRecordsInInstance TotalNumberOfStudyRecords"
            " ScopeOfInventorySequence"
        ),
    ),
}
CATEGORY_OF: Mapping[str, str] = {
    uid: name for name, category in CATEGORIES.items() for uid in category.sop_classes
}


def category_of(dataset: Dataset) -> str | None:
    """Return the category of an object that is of no patient; None when it belongs to a study.

    The object alone decides, so that packs tell the same on the day the index is built again.
    """
    if text(dataset, STUDY_INSTANCE_UID):
        return None
    return CATEGORY_OF.get(text(dataset, SOP_CLASS_UID))
