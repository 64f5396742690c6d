"""A model kind is one file: the loader finds it, a sweep settles its cells, and a session runs them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from harness.errors import InputError
from harness.measure.session import Session
from harness.models import kinds
from harness.models.load import kind_of
from harness.paths import ROOT
from harness.sweep.commandline import read
from harness.sweep.settle import ask

# It makes one grey a prompt, and shares nothing with the shipped kinds: its states are pixels, it has a second part of
# conditioning and neither a network nor a tokenizer.
TOY = """
from harness.errors import InputError
from harness.models.base import Conditioning, Kind, Model, dtype_of
from harness.models.guidance import combine, threshold
from samplers.core.levels import DiscreteVP


class Toy(Kind):
    def check(self, spec, task=None):
        if not 0 < spec["lightest"] <= 1:
            raise InputError(f"model.lightest={spec['lightest']!r} is not valid: give a number above 0, at most 1")

    def check_use(self, spec, data, precision, negative_prompt):
        pass

    def fingerprint(self, spec):
        return f"toy-{spec['lightest']}"

    def process(self, spec):
        return DiscreteVP.trained("linear", 1e-4, 0.02)

    def load(self, spec, precision, device):
        import torch

        class Greys(Model):
            name, process, latent_shape, size = spec["name"], self.process(spec), (3, 64, 64), (64, 64)
            state_dtype, device, pixel_range = dtype_of(precision), torch.device("cpu"), True

            def encode_text(self, prompts):
                grey = torch.tensor([[len(prompt) % 5 / 5 * spec["lightest"]] for prompt in prompts])
                return Conditioning({"grey": grey, "half": torch.stack([grey / 2, grey / 2], 2)})

            def encode_images(self, images):
                return (images / 127.5 - 1).to(self.state_dtype)

            def decode(self, latents):
                return ((latents + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

            def denoiser(self, cond, uncond, guidance):
                grey = cond.parts["grey"][:, :, None, None]
                assert torch.equal(cond.parts["half"].sum(2)[:, :, None, None], grey)
                if guidance.on:
                    grey = combine(uncond.parts["grey"][:, :, None, None].expand_as(grey), grey, guidance)

                def denoise(x, level):
                    self.calls += 1
                    return threshold(grey.expand_as(x), guidance)

                return denoise

        return Greys()


KIND = Toy()
"""
YAML = """
name: toy
kind: toy
lightest: 0.5           # grey of the longest prompts, 0 to 1
pixel_range: true
default_data: embedded
default_cfg: 1.0
"""
WORDS = ["n_images=3", "batch_size=2", "timing=off", "threads=1", "device=cpu", "steps=3", "metrics=[discretisation]"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder beside the package's own, with the one file of the new kind."""
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "toy.py").write_text(TOY)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path / "kinds")])
    yield Session(tmp_path / "results")
    sys.modules.pop("harness.models.kinds.toy", None)
    vars(kinds).pop("toy", None)


def run(session: Session, *words: str, **changes):
    (values,) = read([*WORDS, *words]).values
    cell = ask({**values, "model": {**yaml.safe_load(YAML), **changes}})
    return cell, session.run(cell, lambda what, images: None).checked()


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_sde", "dpm_adaptive"])
@pytest.mark.parametrize("task", ["txt2img", "img2img"])
def test_a_kind_is_one_file(toy, sampler, task):
    cell, record = run(toy, f"sampler={sampler}", f"task={task}", "strength=1", "schedule.end=zero")
    made = toy._generator(cell, toy.model).batch([0, 1, 2])
    greys = [round((len(prompt) % 5 / 5 * 0.5 + 1) * 127.5) for prompt in made.prompts]
    assert (made.images == torch.tensor(greys).view(3, 1, 1, 1)).all() and len(record.images) == 3
    row = record.cell
    assert row["model"] == "toy" and row["nfe"] == round(made.calls / 3) > 0
    assert row["flops"] is None and row["prompts_truncated"] is None
    if sampler == "euler":
        assert row["nfe"] == row["steps_run"] and row["discretisation_error"] < 1e-3


def test_it_inpaints_and_is_guided(toy):
    cell, _ = run(toy, "sampler=euler", "task=inpaint", "cfg=3", "guidance.threshold=static", lightest=1)
    made = toy._generator(cell, toy.model).batch(range(3))
    outside = ~made.masks.bool().expand_as(made.images)
    assert torch.equal(made.images[outside], made.sources[outside])
    greys = torch.tensor([min(1, 3 * (len(prompt) % 5 / 5)) for prompt in made.prompts]).view(3, 1, 1, 1)
    assert (made.images - (greys + 1) * 127.5)[~outside].abs().max() <= 1


def test_a_model_without_networks_fails_in_its_own_words(toy, monkeypatch):
    def decode(self, latents):
        raise FloatingPointError("the greys are not finite")

    run(toy)
    monkeypatch.setattr(type(toy.model), "decode", decode)
    with pytest.raises(FloatingPointError, match="the greys are not finite"):
        run(toy, "seed=1")


def test_what_is_wrong_is_said_by_the_kind(toy):
    with pytest.raises(InputError, match=r"model\.lightest=2 is not valid"):
        run(toy, lightest=2)
    with pytest.raises(InputError, match=r"model\.kind='tyo' is not valid; did you mean 'toy'"):
        kind_of({"kind": "tyo"})


# ------------------------------------------------------------------------------------------ nobody else asks for a kind


def asked(tree: ast.AST, names: set[str]) -> set[str]:
    """What of a file asks for a kind of model: its modules, its name compared, its key in a spec, or an attribute."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            homes = {f"harness.models.{place}{name}" for name in names for place in ("", "kinds.")}
            found |= imported & {*homes, "harness.models.kinds"}
        elif isinstance(node, ast.Compare):
            found |= {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and n.value in names}
        elif isinstance(node, (ast.Subscript, ast.Call)):
            text = ast.unparse(node)
            pattern = r"""(model|spec)(\['kind'\]|\.get\('kind')|(get|has)attr\((\w+\.)*model,"""
            found |= {text} if re.search(pattern, text) else set()
    return found


QUESTIONS = """
from harness.models.latent import LatentModel
from harness.models import analytic
from harness.models.kinds.analytic import KIND
cell.model.get('kind') in others
cell.model['kind'].upper()
kind == 'analytic'
getattr(generator.model, 'token_limit', None)
"""


def test_such_questions_are_seen():
    for line in QUESTIONS.strip().splitlines():
        assert asked(ast.parse(line), {"latent", "analytic"}), line
    assert not asked(ast.parse("row['kind'] == 'timed' and model.truth is None"), {"latent", "analytic"})


def test_nobody_outside_the_models_asks_for_a_kind():
    names = {path.stem for path in Path(kinds.__path__[0]).glob("*.py")} - {"__init__"}
    assert {"latent", "analytic"} <= names
    outside = [p for top in ("harness", "reports") for p in (ROOT / top).rglob("*.py")]
    outside = [path for path in outside if path.parent.name not in ("models", "kinds")]
    assert len(outside) > 100
    found = {str(path.relative_to(ROOT)): asked(ast.parse(path.read_text()), names) for path in outside}
    assert {path: words for path, words in found.items() if words} == {}
