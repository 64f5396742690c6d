"""Where this checkout's own files lie. Everything else asks here instead of counting its way up from itself."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the checkout: harness/, samplers/, conf/, reports/ lie in it
CONF = ROOT / "conf"  # Hydra's groups, a folder each
NOT_KNOBS = ("name", "solver", "default_schedule", "few_calls")  # what a file in there says beside its knobs
EMBEDDED = ROOT / "harness" / "embedded" / "weights"  # the embedded model, its metrics' networks beside it
# Guides it (harness/embedded/classifier.py). Not in that folder, whose content is the model's name in records.
CLASSIFIER = EMBEDDED.parent / "classifier.safetensors"
