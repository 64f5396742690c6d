"""Every axis of a cell, a line each: what it changes, the columns it fills, how it is shown, checked and left out.

Everything that needs a list of axes derives it from here: the cell with its id and its columns, the sweep, the schema
of the records, the reference runs, the names in reports, what a figure holds equal and what a gate matches cells by.

To add an axis, add a line to AXES with `since` one above today's version of the schema, and its default to
conf/sweep.yaml. It is then a field of every cell. A cell that has it at its default keeps the id, the canonical form
and the reference runs that it had before, and older cells and records are read as having the default. Code that reads
the field spells it in `Cell` for the type checker, as `tiling: bool = axes.default("tiling")`. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness import protocols
from harness.bounds import CFG, MOST_SEED, MOST_STEPS, Adapters, Interval, Number, OneOf, Text, Whole, YesOrNo
from harness.paths import NOT_KNOBS
from harness.specs import Spec, to_plain

PRECISIONS = ("fp64", "fp32", "bf16", "fp16")
TIMINGS = ("quick", "full", "off")
IMPLEMENTATIONS = ("native", "diffusers", "k_diffusion")
NOISES = ("independent", "brownian")

# What an axis changes.
LIMIT = "limit"  # the latents that infinitely many steps lead to: every axis here has reference runs of its own
PATH = "path"  # the latents of so many steps, which a reference run judges; it shares the run's levels, if anything
ROUNDING = "rounding"  # the last digits of latents, and cost: reference runs are kept apart, reports are not
IMAGES = "images"  # what is made of the latents
ESTIMATE = "estimate"  # nothing that is made: how much of it is measured, so how well quality is known
COST = "cost"  # time and memory of a timed run alone
PASS = "pass"  # the quality pass alone: how long it takes, and which measures it fills
CHANGES = (LIMIT, PATH, ROUNDING, IMAGES, ESTIMATE, COST, PASS)
MADE = (LIMIT, PATH, IMAGES)  # what decides the images: two cells that agree in it asked the same question
QUALITY = (*MADE, ESTIMATE)

# When a column tells cells apart in a report.
NAME, LAST, NEVER = "where cells differ in it", "where all else leaves two cells with one name", "never"
FIRST = 3  # the schema's version when this table was made: the axes of that day always stand in a canonical form


class Column(NamedTuple):
    """A column of a table of records. `kind` is a key of ARROW_TYPES in harness/store/schema.py."""

    name: str
    kind: str
    unit: str
    meaning: str


def _same(value: Any) -> Any:
    return value


def _name(group: Spec) -> str:
    return group.name


def knobs(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """What can be set of a task, a sampler, ..."""
    return {name: to_plain(value) for name, value in group.items() if name not in NOT_KNOBS}


@dataclass(frozen=True)
class Part:
    """A column of the cells table that an axis fills, and how reports show it.

    `value` takes the axis's value to the column's; None where a run finds it out. `phrase` says it in a sentence, by
    default after the column's name. `common`: a reader always asks for it, so it is said also where all cells agree.
    """

    column: Column
    value: Callable[[Any], Any] | None = _same
    told: str = NAME
    heading: str = ""
    phrase: str = ""
    common: bool = False

    @property
    def name(self) -> str:
        return self.column.name

    @property
    def title(self) -> str:
        """The heading of a report's table."""
        return self.heading or self.name.replace("_", " ")

    @property
    def words(self) -> str:
        return self.phrase or f"{self.name} {{}}"


@dataclass(frozen=True)
class Axis:
    """One axis. It is a field of `Cell`, and a key of conf/sweep.yaml where it is asked for.

    `check` turns what was given into the value or raises InputError; None where only harness/sweep/settle.py can tell.
    `default` is the value of cells and records that are older than the axis (null: unknown); `since` the version of
    the records' schema that brought it. `group`: a choice of the files in conf/NAME. `variant`: another value is
    another line of a figure. `loads`: another value needs the model loaded anew. `apart`: a table of results does not
    rank cells that differ in it. `fits`: it is put into a model that is loaded already, where the model takes such.
    `asked`: False where it is found out; `kept`: False where it ends in another axis.
    """

    name: str
    changes: str
    parts: tuple[Part, ...]
    check: Callable[[str, Any], Any] | None = None
    default: Any = None
    since: int = FIRST
    group: bool = False
    variant: bool = False
    loads: bool = False
    apart: bool = False
    asked: bool = True
    kept: bool = True
    fits: bool = False

    def __post_init__(self) -> None:
        if self.changes not in CHANGES:
            raise ValueError(f"axis {self.name}: changes={self.changes!r} is not valid; valid: {', '.join(CHANGES)}")
        if self.since > FIRST and self.kept and self.check is None:
            raise ValueError(f"axis {self.name} has no check: give one, as YesOrNo() of harness/bounds.py")

    @property
    def always_written(self) -> bool:
        """Whether it stands in a cell's canonical form, so in its id, at its default too."""
        return self.since <= FIRST

    def valid(self, given: Any) -> Any:
        """The value that `given` means. InputError where it is none."""
        return given if self.check is None else self.check(self.name, given)

    def settled(self, values: Mapping[str, Any]) -> Any:
        """The value in a composed config; the default where that does not have the axis."""
        given = values.get(self.name, self.default)
        return given if not self.always_written and given == self.default else self.valid(given)

    def unusual(self, value: Any) -> str:
        """The value in words where it is not the default; "" where it is, or where there is no default."""
        if value == self.default or (self.default is None and self.always_written) or not self.parts:
            return ""
        if self.parts[0].told == NEVER:
            return ""
        return self.parts[0].words.format(value)


def _column(name: str, kind: str, unit: str, meaning: str, *value: Any, **shown: Any) -> Part:
    return Part(Column(name, kind, unit, meaning), *value, **shown)


def _plainly(name: str, meaning: str, *value: Any, **shown: Any) -> Part:
    """A column of text that needs no word before it."""
    return _column(name, "text", "", meaning, *value, phrase="{}", **shown)


def _images(name: str, meaning: str, **shown: Any) -> Part:
    return _column(name, "int", "images", meaning, **shown)


def _knobs(name: str, meaning: str) -> Part:
    return _column(f"{name}_knobs", "json", "", meaning, knobs, phrase="{}")


def _fitted(name: str, changes: str, kind: str, meaning: str, check: Any, default: Any, phrase: str = "") -> Axis:
    """What is put into a pipeline: came with version 4 of the schema."""
    part = _column(name, kind, "", meaning, phrase=phrase or (name.replace("_", " ") if kind == "bool" else ""))
    return Axis(name, changes, (part,), check, default=default, since=FIRST + 1, variant=True, loads=True, fits=True)


# In the order in which reports show them.
AXES: tuple[Axis, ...] = (
    Axis(
        "task", LIMIT,
        (
            _plainly("task", "txt2img, img2img, inpaint, edit or invert", _name, common=True),
            _knobs("task", "options of the task"),
        ),
        group=True, apart=True,
    ),
    Axis(
        "model", LIMIT,
        (
            _plainly("model", "name of the model's configuration", _name, common=True),
            _column("height", "int", "pixels", "height of the images", None),
            _column("width", "int", "pixels", "width of the images", None),
        ),
        group=True, loads=True, apart=True,
    ),
    Axis(
        "model_fingerprint", LIMIT,
        (_plainly("model_fingerprint", "hash or revision of the weights", told=LAST),),
        loads=True, apart=True, asked=False,
    ),
    Axis(
        "data", LIMIT,
        (_plainly("data", "name of the data: prompts, sources, masks, reference", _name),),
        group=True, apart=True,
    ),
    Axis(
        "data_fingerprint", LIMIT, (_plainly("data_fingerprint", "hash of the data", told=LAST),),
        apart=True, asked=False,
    ),
    Axis(
        "sampler", PATH,
        (
            _plainly("sampler", "name of the sampler", _name, common=True),
            _knobs("sampler", "every knob of the sampler"),
        ),
        group=True, variant=True,
    ),
    Axis(
        "implementation", PATH,
        (_plainly("implementation", "whose arithmetic stepped: native, diffusers or k_diffusion", heading="by"),),
        OneOf(IMPLEMENTATIONS), default="native", variant=True,
    ),
    Axis(
        "noise", PATH,
        (_plainly("noise", "independent: a draw of its own each time; brownian: increments of one path"),),
        OneOf(NOISES), default="independent", variant=True,
    ),
    Axis(
        "schedule", PATH,
        (
            _plainly("schedule", "name of the noise schedule", _name, common=True),
            _knobs("schedule", "every knob of the schedule"),
        ),
        group=True, variant=True,
    ),
    Axis(
        "steps", PATH, (_column("steps", "int", "steps", "steps asked for", phrase="{} steps", common=True),),
        Whole(1, MOST_STEPS),
    ),
    Axis("nfe", PATH, (), Whole(1, 10 * MOST_STEPS), kept=False),  # it is asked for in the place of steps
    Axis(
        "cfg", LIMIT, (_column("cfg", "float", "", "classifier-free guidance scale; 1 = off", common=True),),
        Number(*CFG),
    ),
    Axis(
        "strength", PATH,
        (_column("strength", "float", "", "share of the schedule that runs (img2img, inpaint), 0..1", common=True),),
        Number(0, 1), apart=True,
    ),
    Axis(
        "precision", LIMIT,
        (_plainly("precision", "fp64, fp32, bf16 or fp16: weights and activations", heading="prec.", common=True),),
        OneOf(PRECISIONS), loads=True,
    ),
    Axis(
        "n_images", ESTIMATE,
        (_images("n_images", "images generated and measured", heading="N", phrase="{} images", common=True),),
        Whole(1, 1_000_000), apart=True,
    ),
    Axis("seed", LIMIT, (_column("seed", "int", "", "seed of the noise streams"),), Whole(0, MOST_SEED), apart=True),
    Axis(
        "guidance", LIMIT,
        (
            _column(
                "guidance_rescale", "float", "", "φ of 2305.08891; 0 = off", lambda guidance: guidance["rescale"],
                heading="rescale", phrase="rescale {}",
            ),
            _knobs("guidance", "thresholding and other options of the guidance"),
        ),
    ),
    Axis(
        "negative_prompt", LIMIT,
        (_column("negative_prompt", "text", "", "prompt of the unconditional half", phrase="negative prompt '{}'"),),
        apart=True,
    ),
    Axis(
        "keep_steps", PATH,
        (_column("keep_steps", "bool", "", "whether the number of steps is kept whatever the strength"),),
        YesOrNo(),
    ),
    Axis(
        "device", ROUNDING, (_plainly("device", "device asked for and used: cpu, cuda, ...", told=LAST),), loads=True
    ),
    Axis(
        "threads", COST,
        (_column("threads", "int", "threads", "CPU threads of the worker", told=LAST, phrase="{} threads"),),
        Whole(1, 4_096), loads=True,
    ),
    Axis(
        "batch_size", PASS,
        (_images("batch_size", "images a batch of the quality pass", told=LAST, phrase="batches of {}"),),
        Whole(1, 65_536),
    ),
    Axis("metrics", PASS, (_column("metrics", "json", "", "names of the metrics asked for", to_plain, told=NEVER),)),
    Axis(
        "reference_count", ESTIMATE,
        (_images("reference_count", "reference images behind FID, KID, precision and recall", told=NEVER),),
        Whole(2, 1_000_000, ": FID needs a covariance"),
    ),
    Axis(
        "timing", COST,
        (_column("timing_preset", "text", "", "quick, full or off: how long the timing pass was", told=NEVER),),
        OneOf(TIMINGS),
    ),
    Axis(
        "timing_batch", COST, (_images("timing_batch", "images that one timed run makes", told=NEVER),),
        Whole(1, 65_536),
    ),
    Axis(
        "classifier_scale", LIMIT,
        (
            _column(
                "classifier_scale", "float", "", "scale of guidance by a classifier's gradient (2105.05233); 0 = off",
                heading="classifier", phrase="classifier {}",
            ),
        ),
        Number(0, 1_000), default=0.0, since=FIRST + 2, variant=True,
    ),
    Axis(
        "classifier_fingerprint", LIMIT,
        (_column("classifier_fingerprint", "text", "", "hash of the classifier that guides, or exact", told=NEVER),),
        Text(), default="", since=FIRST + 2, variant=True, asked=False,
    ),
    _fitted(
        "adapters", LIMIT, "json", "LoRAs, ControlNets and other adapters put into the model", Adapters(), (),
        "adapters {}",
    ),
    _fitted("adapter_scale", LIMIT, "float", "what every adapter's scale is multiplied by", Number(-10, 10), 1.0),
    _fitted(
        "attention", ROUNDING, "text", "default (PyTorch's), sliced, math, flash, xformers or sage: what computes it",
        OneOf(("default", "sliced", "math", "flash", "xformers", "sage"), {"sdpa": "default"}), "default",
        "attention {}",
    ),
    _fitted("vae_slicing", ROUNDING, "bool", "whether images are decoded one by one", YesOrNo(), False),
    _fitted("vae_tiling", IMAGES, "bool", "whether large images are decoded in tiles", YesOrNo(), False),
    _fitted("channels_last", ROUNDING, "bool", "whether weights lie channels last", YesOrNo(), False),
    _fitted(
        "offload", ROUNDING, "text", "none, model, sequential or group: what waits off the device until it is called",
        OneOf(("none", "model", "sequential", "group")), "none", "offload {}",
    ),
    _fitted(
        "compile", ROUNDING, "text", "none or a mode of torch.compile for the network",
        OneOf(("none", "default", "reduce-overhead", "max-autotune")), "none", "compile {}",
    ),
    _fitted("fuse_qkv", ROUNDING, "bool", "whether projections of attention are one product", YesOrNo(), False),
    _fitted("layerwise_casting", LIMIT, "bool", "whether weights are stored in 8 bits", YesOrNo(), False),
    _fitted("freeu", LIMIT, "bool", "FreeU (2309.11497) with its factors for SD 1.x", YesOrNo(), False),
    _fitted(
        "step_cache", LIMIT, "text", "none, first_block or taylorseer: what of the blocks is used again at later calls",
        OneOf(("none", "first_block", "taylorseer")), "none", "step cache {}",
    ),
    _fitted(
        "quantization", LIMIT, "text", "none, int8, fp8 or nf4: how weights of linear layers are stored",
        OneOf(("none", "int8", "fp8", "nf4")), "none", "{}",
    ),
    _fitted("tf32", ROUNDING, "bool", "whether float32 products are rounded to TF32", YesOrNo(), False),
    _fitted(
        "pag_scale", LIMIT, "float", "scale of perturbed-attention guidance (2403.17377); 0 = off", Number(0, 100), 0.0,
        "PAG {}",
    ),
    _fitted(
        "cfg_interval", LIMIT, "json", "σ/α between which there is guidance (2404.07724); []: everywhere",
        Interval(0, 1e6), (), "guided at σ {}",
    ),
    Axis(
        "protocol", PASS, (_plainly("protocol", "published protocol that protocol_verdict is about", told=NEVER),),
        OneOf(protocols.NAMES), default="none", since=FIRST + 2,
    ),
)  # fmt: skip

AXIS = {axis.name: axis for axis in AXES}
KEPT = tuple(axis for axis in AXES if axis.kept)  # the fields of a cell
GROUPS = tuple(axis.name for axis in AXES if axis.group)
# Axis → the column of its knobs.
KNOBS = {axis.name: part.name for axis in AXES for part in axis.parts if part.value is knobs}
PARTS = {part.name: part for axis in AXES for part in axis.parts}


def default(name: str) -> Any:
    return AXIS[name].default


def columns(where: Callable[[Axis], bool] = lambda axis: True) -> list[str]:
    """The columns of the axes that `where` takes."""
    return [part.name for axis in AXES if where(axis) for part in axis.parts]


def changing(*kinds: str) -> Iterable[Axis]:
    """The axes that change one of these."""
    return (axis for axis in AXES if axis.changes in kinds)


def written(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `values` by axis that are hashed: all but those at the default of an axis that was added later."""
    return {name: value for name, value in values.items() if AXIS[name].always_written or value != default(name)}


def told(when: str) -> list[Part]:
    """The parts that tell cells apart in that case (`when`): the first part of every axis, then the other parts."""
    first = [part for axis in AXES for part in axis.parts[:1] if part.told == when]
    return first + [part for axis in AXES for part in axis.parts[1:] if part.told == when]
