"""VQAScore (2404.01291, eq. 1): the probability that a model of questions about images answers "yes".

By InstructBLIP with FlanT5 in transformers' layout, one of the models of the paper; its question is asked in the words
of the authors' package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError
from harness.metrics import bootstrap
from harness.metrics.base import Options
from harness.metrics.features import own_weights
from harness.metrics.features.own_weights import ScoreMetric, Source

if TYPE_CHECKING:
    import torch

SOURCE = Source("Salesforce/instructblip-flan-t5-xl")
BATCH = 8  # images at once: the language model is large


class VqaScore(ScoreMetric):
    name = "vqa_score"
    columns = (*bootstrap.columns("vqa_score"), "vqa_score_definition")
    image_columns = ("vqa_score",)

    @classmethod
    def check(cls, options: Options) -> None:
        if not isinstance(options["question"], str) or options["question"].count("{}") != 1:
            raise InputError(f"question={options['question']!r} of metric vqa_score: write {{}} where the prompt goes")
        if not isinstance(options["answer"], str) or not options["answer"].strip():
            raise InputError(f"answer={options['answer']!r} of metric vqa_score: give a word, as in yes")
        super().check(options)

    @classmethod
    def found(cls, options: Options) -> Path:
        return SOURCE.find(cls.name, options["path"], options["allow_pickle"])

    def load(self, found: Path) -> Asker:
        return Asker(found, self.options, self.context.device)


class Asker:
    """exp of the mean log-probability of the answer's tokens, its end included, as the authors' package has it."""

    def __init__(self, folder: Path, options: Options, device: str) -> None:
        from transformers import AutoProcessor, InstructBlipForConditionalGeneration

        pickled = {} if options["allow_pickle"] else {"use_safetensors": True}
        net = InstructBlipForConditionalGeneration.from_pretrained(folder, local_files_only=True, **pickled)
        self.net = net.eval().requires_grad_(False).to(device)
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self.question, self.answer, self.device = options["question"], options["answer"], device
        label = own_weights.label(folder)
        side = self.processor.image_processor.size["height"]
        how = f"transformers' InstructBLIP, pil-bicubic-crop of torchvision to {side}x{side}"
        self.definition = f"P('{self.answer}' | {self.question!r}) (2404.01291), {label}, {how}"

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        # The authors' package keeps the aspect and cuts, where transformers' processor would squeeze.
        seen = own_weights.cropped(images, self.processor.image_processor.size["height"])
        found = [self._ask(seen[k : k + BATCH], prompts[k : k + BATCH]) for k in range(0, len(seen), BATCH)]
        return np.concatenate(found)

    def _ask(self, seen: Sequence, prompts: Sequence[str]) -> np.ndarray:
        import torch

        questions = [self.question.replace("{}", prompt) for prompt in prompts]
        asked = self.processor(images=list(seen), text=questions, padding=True, truncation=True, return_tensors="pt")
        answer = self.processor.tokenizer(self.answer, return_tensors="pt")["input_ids"].to(self.device)
        labels = answer.repeat(len(questions), 1)
        with torch.inference_mode():
            logits = self.net(**asked.to(self.device), labels=labels).logits.double()
        said = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
        return said.mean(1).exp().cpu().numpy()
