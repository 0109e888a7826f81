"""The demonstration: one connection with real studies, loaded through the real doors."""
