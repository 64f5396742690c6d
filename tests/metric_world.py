"""What the metric tests share: the shipped networks (untrained ones where there are none yet), contexts, batches.

tests/conftest.py makes its fixtures known to every file, so torch is imported where it is used and not before.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.metrics.features import files

SHIPPED = (files.EMBEDDED / "extractor.safetensors").is_file() and (files.EMBEDDED / "open_clip").is_dir()
needs_shipped = pytest.mark.skipif(not SHIPPED, reason="the embedded weights are not trained yet")


def save_untrained(folder: Path) -> None:
    """Networks of the right shape that know nothing, in the files of the shipped ones."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from harness.embedded import nets

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    state = nets.Extractor().state_dict().items()
    save_file({k: v.half() for k, v in state if not k.startswith("thumb")}, folder / "extractor.safetensors")
    tokenizer = nets.tokenizer()
    config = nets.open_clip_config(len(tokenizer))["model_cfg"]
    text = {k: v for k, v in config["text_cfg"].items() if not k.startswith("hf_")}
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text)
    nets.save_open_clip(model, folder / "open_clip", len(tokenizer), tokenizer)


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """The folder metrics load the embedded networks from."""
    if SHIPPED:
        yield files.EMBEDDED
        return
    before, folder = files.EMBEDDED, tmp_path_factory.mktemp("weights")
    save_untrained(folder)
    files.EMBEDDED = folder
    yield folder
    files.EMBEDDED = before


@pytest.fixture(scope="session")
def world_data(networks):
    from harness.data import load as data

    return data.load({"name": "embedded"}, (64, 64))


@pytest.fixture(scope="session")
def make_context(world_data, tmp_path_factory):
    """Contexts that share networks and reference statistics, as a worker's cells do."""
    from harness.metrics.context import Context, memory

    cache, once = tmp_path_factory.mktemp("cache"), memory()

    def make(**changes):
        return Context(**{"data": world_data, "cache_dir": cache, "once": once, "reference_count": 512, **changes})

    return make


def batch(source, indices, images=None, prompts=None, **more):
    from harness.metrics.base import Batch

    indices = list(indices)
    images = source.images(indices) if images is None else images
    return Batch(images, source.prompts(indices) if prompts is None else prompts, indices, **more)


def feed(metric, source, n: int, size: int = 32, images=None):
    """`metric` after the first n images of the data, or after `images` in their place."""
    for first in range(0, n, size):
        rows = range(first, min(first + size, n))
        metric.update(batch(source, rows, None if images is None else images[rows.start : rows.stop]))
    return metric
