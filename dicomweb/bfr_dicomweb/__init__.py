"""DICOMweb: the archive as an origin server of PS3.18."""
