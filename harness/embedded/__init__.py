"""The embedded world and the model trained on it. Imports no torch, so that a sweep may be planned without."""

# Of drawings, captions, sources and masks; part of every fingerprint of this data. Raise it when one pixel or one
# caption changes (tests/test_embedded.py holds some of them): a record must never meet other images under its name.
WORLD_VERSION = 2
