"""Whether the image shows what its prompt names, attribute by attribute: the embedded world only."""

from __future__ import annotations

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Batch, Options, PerImageMetric
from harness.metrics.context import Context
from harness.metrics.features import extractors

# Which heads of the extractor must all be right. Heads without meaning for a prompt are right by definition; an
# attribute without any (the relation of one object) does not apply to the image.
ATTRIBUTES = {
    "shape": ("shape_0", "shape_1"),
    "colour": ("colour_0", "colour_1"),
    "size": ("size_0", "size_1"),
    "background": ("ground",),
    "light": ("light",),
    "position": ("position",),
    "relation": ("axis",),
}


class Attributes(PerImageMetric):
    """`attributes_all` is the share of images with everything right, the number of objects included.

    Objects are told apart by place (left or upper first), so a swapped pair is wrong in shape, colour or size.
    """

    name = "attributes"
    image_columns = tuple(f"attributes_{name}" for name in (*ATTRIBUTES, "all"))
    columns = bootstrap.columns(*image_columns)

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__(context, options)
        self.extractor = extractors.get("embedded", context)

    @classmethod
    def applies(cls, context: Context) -> bool:
        return context.data.name == "embedded"

    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        from harness.embedded import nets

        scenes = self.context.data.scenes(batch.indices)
        truth = {k: v.numpy() for k, v in nets.answers(scenes).items() if k in nets.SEEN}
        if self.context.task == "invert":  # whose prompts may be edited
            from harness.embedded.classifier import vocabulary

            words = vocabulary()
            truth = dict(zip(words.heads, words.targets(batch.prompts).numpy().T, strict=True))
        found = self.extractor.attributes(batch.images)
        right = {head: (found[head] == truth[head]) | (truth[head] < 0) for head in truth}
        out = {"attributes_all": np.logical_and.reduce(list(right.values())).astype(float)}
        for name, heads in ATTRIBUTES.items():
            applies = np.logical_or.reduce([truth[head] >= 0 for head in heads])
            every = np.logical_and.reduce([right[head] for head in heads])
            out[f"attributes_{name}"] = np.where(applies, every, np.nan)
        return out
