"""Prompts of a file, without images, before a model asks for them. No torch at its top."""

from __future__ import annotations

from pathlib import Path

from harness.data import captions, fingerprints, statistics
from harness.data.base import Data, Kind, Knobs
from harness.errors import InputError
from harness.knob_paths import expanded

LATENTS = (".safetensors", ".npy", ".pt", ".pth")


class Prompts(Kind):
    def check(self, knobs: Knobs, n_images: int | None = None, task: str | None = None) -> None:
        asked = prompts(knobs)
        statistics.check(knobs)
        self._latents(knobs)
        if not isinstance(knobs["cycle"], bool):
            raise InputError(f"data.cycle={knobs['cycle']!r} is not valid: give true or false")
        if n_images is not None and n_images > len(asked) and not knobs["cycle"]:
            raise InputError(
                f"n_images={n_images} is more than the {len(asked)} prompts of the data: use n_images={len(asked)}, or "
                "data.cycle=true to begin anew after the last"
            )
        if task in ("img2img", "inpaint", "edit"):
            raise InputError(f"task={task} needs an image for each prompt, data=prompts has none: take data=folder")

    def _latents(self, knobs: Knobs) -> None:
        if knobs["latents"] is None:
            return
        file = expanded(knobs["latents"])
        if file.suffix not in LATENTS or not file.is_file():
            valid = ", ".join(LATENTS)
            raise InputError(f"data.latents={str(file)!r} is not a file of initial noise: give a {valid} file")
        if file.suffix in (".pt", ".pth") and not knobs["allow_pickle"]:
            raise InputError(
                f"data.latents={str(file)!r} is a pickle: say data.allow_pickle=true if you trust its author"
            )

    def fingerprint(self, knobs: Knobs) -> str:
        files: list[Path] = [expanded(knobs[name]) for name in ("latents", "statistics") if knobs[name] is not None]
        return fingerprints.of_prompts({"cycle": knobs["cycle"]}, prompts(knobs), files)

    def load(self, knobs: Knobs, size: tuple[int, int]) -> Data:
        from harness.data.prompts import PromptData

        return PromptData(knobs, prompts(knobs), size, self.fingerprint(knobs))


def prompts(knobs: Knobs) -> list[str]:
    """What is asked of the model, in the order of the file. InputError for what cannot be read."""
    if knobs["prompts"] is None:
        raise InputError(
            "data=prompts needs data.prompts=FILE: text with a prompt a line, CSV, TSV, JSON, JSONL, parquet"
        )
    template = knobs["template"]
    if not isinstance(template, str) or template.count("{}") != 1:
        raise InputError(f"data.template={template!r} is not valid: write {{}} where the prompt goes")
    return [template.replace("{}", text) for text in captions.prompt_lines(expanded(knobs["prompts"]), knobs["column"])]


KIND = Prompts()
