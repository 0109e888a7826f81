"""The DIMSE door: DICOM services over associations (PS3.7, PS3.8)."""
