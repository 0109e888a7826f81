"""The benchmark: BFR beside Orthanc on one machine, the same client and the same objects."""
