"""What the harness asks of a model, and of a kind of model before one is loaded. Imports no torch by itself.

A kind is one file in harness/models/kinds/ whose `KIND` is a `Kind`; a YAML in conf/model/ names it. What it loads is a
`Model`. Nobody outside this folder asks of which kind a model is: what differs between kinds is said here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness.errors import InputError
from harness.models.guidance import Guidance
from samplers import schedules
from samplers.core.levels import Level, NoiseLevels, Process

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from harness.models.mixture import Mixture
    from samplers.core.noise import NoiseStreams
    from samplers.core.plan import Plan

Spec = Mapping[str, Any]  # the values of conf/model/NAME.yaml; a cell's are a ModelSpec
Drawn = Callable[[str], "Tensor"]  # a folder -> uint8 (N, 3, H, W)
Denoise = Callable[["Tensor", Level], "Tensor"]  # (state, level) -> the model's estimate x0 of the clean state


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What a model is told of each image beside its state: tensors by name, row k of every one belongs to image k.

    Only the model that made it reads `parts`. Everybody else takes rows of it (`cond[1:]`), stacks rows, joins what is
    known from elsewhere, and keeps rows by the prompt that they came from. So a model may add parts of any shape
    (pooled embeddings, sizes of images, control images, image prompts) without a change elsewhere. The rows of a part
    all have one shape, whatever the prompt: a model pads what differs in length.

    >>> import torch
    >>> cond = Conditioning({"text": torch.zeros(3, 77, 768), "pooled": torch.zeros(3, 768)})
    >>> len(cond), len(cond[1:]), len(Conditioning.stack([cond[:1], cond]))
    (3, 2, 4)
    """

    parts: Mapping[str, Tensor]  # each (N, ...), at least one

    def __len__(self) -> int:
        """How many images it is of."""
        return len(next(iter(self.parts.values())))

    def __getitem__(self, rows: slice) -> Conditioning:
        return self._each(lambda part: part[rows])

    def __iter__(self) -> Iterator[Conditioning]:
        """Row by row, each of one image."""
        return (self[k : k + 1] for k in range(len(self)))

    @classmethod
    def stack(cls, rows: Sequence[Conditioning]) -> Conditioning:
        """The rows of several, which must have the same parts, in one."""
        import torch

        return cls({name: torch.cat([one.parts[name] for one in rows]) for name in rows[0].parts})

    def joined(self, other: Conditioning | None) -> Conditioning:
        """With the parts of `other`, which is of the same images; itself where there is no other."""
        return self if other is None else Conditioning({**self.parts, **other.parts})

    def to(self, device: torch.device | str) -> Conditioning:
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        return Conditioning({name: change(part) for name, part in self.parts.items()})


class Truth(Protocol):
    """What a model knows that no sampler has to find: where its ODE leads, and how its points are distributed."""

    @property
    def definition(self) -> str:
        """How `exact` solves, in words for the record."""
        ...

    def exact(
        self,
        start: Tensor,
        cond: Conditioning,
        uncond: Conditioning | None,
        guidance: Guidance,
        from_level: Level,
        to_level: Level,
    ) -> Tensor:
        """Where the probability-flow ODE of the guided denoiser takes the states `start` (N, ...): float64 (N, ...)."""
        ...

    def law(self, level: Level) -> Mixture:
        """The law of the states at this level without guidance, by class."""
        ...


class Network(NamedTuple):
    """A network of a model, for whoever looks for the one that first gave NaN or infinity."""

    name: str  # as a message calls it
    module: nn.Module  # whose weights are looked through
    called: nn.Module  # the module that is called: a VAE's halves are called one by one


class Model(ABC):
    """Prompts to conditioning, images to states and back, and the denoiser of the sampling loop.

    Images are uint8 RGB (N, 3, H, W) on the CPU. States are (N, *latent_shape) in `state_dtype` on `device`, scaled as
    `process` says: x = α·x0 + σ·ε, so a clean state has about unit variance.
    """

    name: str  # of conf/model
    process: Process  # the noise that it was trained with
    device: torch.device
    state_dtype: torch.dtype  # float32, or float64 where that precision is asked for
    latent_shape: tuple[int, ...]  # of one state: (C, h, w), or (d,) of a point
    size: tuple[int, int] = (0, 0)  # height and width of an image in pixels; zeros: states are points without an image
    downscale: int = 1  # pixels a latent, each way
    pixel_range: bool = False  # whether x0 is pixels in [-1, 1], which thresholding may clip
    sees_masks: bool = False  # whether it was trained to inpaint, and `show_masked` says what it is shown for that
    has_unconditional: bool = True  # whether guidance needs a prediction without the prompt; else a scale is all
    token_limit: int | None = None  # tokens of a prompt that are read, start and end included; None: it reads no text
    calls: int = 0  # denoiser calls so far: one evaluates a whole batch, and both halves of guidance

    @property
    def makes_images(self) -> bool:
        return self.size != (0, 0)

    @property
    def truth(self) -> Truth | None:
        """The exact solution and law, where the model knows them."""
        return None

    @property
    def networks(self) -> Sequence[Network]:
        """What it computes with; none where it is a formula, whose FLOPs nobody counts."""
        return ()

    def too_long(self, prompts: Sequence[str]) -> list[bool]:
        """For each prompt whether `encode_text` cuts it short."""
        return [False] * len(prompts)

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """A row a prompt, the same row for a prompt whatever the others are; "" is the unconditional one."""

    def encode_negative(self, prompt: str) -> Conditioning | None:
        """The one row of a negative prompt, where that is not what `encode_text` makes of it; else None."""
        return None

    def encode_images(self, images: Tensor) -> Tensor:
        """Clean states of images of the model's size. InputError where the model takes none, or not this size."""
        raise InputError(f"model {self.name} takes no images: use it with task=txt2img")

    def show_masked(self, images: Tensor, masks: Tensor, latent_masks: Tensor) -> Conditioning:
        """What an inpainting model is shown of its sources, where `sees_masks`.

        Masks are 1 where to repaint: uint8 (N, 1, H, W) of the images, float32 (N, 1, h, w) of their latents.
        """
        raise NotImplementedError(f"model {self.name} is not one that sees masks")

    def show(self, images: Tensor, drawn: Drawn) -> Conditioning | None:
        """What it is shown of its sources, uint8 (N, 3, H, W), in every task that has them; None where nothing.

        `drawn` gives, of a folder, the images there that have the names of these.
        """
        return None

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Clean states to images; (N, 3, 0, 0) where there are none. FloatingPointError where they are not finite."""

    @abstractmethod
    def denoiser(self, cond: Conditioning, uncond: Conditioning | None, guidance: Guidance) -> Denoise:
        """`denoise(x, level) -> x0` for a batch of these images, in the state's type; each call counts in `calls`.

        `uncond` is the conditioning of the negative prompt: one row, or one an image; None where guidance is off.
        InputError for a guidance that has no meaning for the model, and for conditioning that lacks a part.
        """

    def run(
        self,
        plan: Plan,
        state: Tensor,
        noise: NoiseStreams,
        cond: Conditioning,
        uncond: Conditioning | None,
        guidance: Guidance,
        after_stage: Callable[[Tensor, Level], Tensor] | None = None,
        on_call: Callable[[int], None] | None = None,
    ) -> Tensor:
        """The last state of the plan from `state` at its start; what the others are: `integrate` and `denoiser`.

        A model that owns its loop replaces this. `on_call(k)` follows call k; with k = −1 it may come once before the
        first, where the model has then done what does not belong to a call.
        """
        from samplers.core.integrate import integrate

        return integrate(plan, self.denoiser(cond, uncond, guidance), state, noise, after_stage, on_call)

    def fit(self, fitted: Mapping[str, Any]) -> None:
        """Put in adapters and throw switches, by axis (harness/axes.py); `Kind.check_fitted` has let them pass."""
        raise InputError(f"model {self.name} takes no adapters and switches")

    def levels(self, schedule: Mapping[str, Any], steps: int) -> NoiseLevels:
        """The levels of so many steps of a schedule (`name` and knobs); ValueError where there are none."""
        return built(schedule, self.process, steps)


class Kind(ABC):
    """What is known of a kind of model from a spec alone. A sweep asks it before any process has loaded torch."""

    # Knobs that came when cells had been recorded: at null they are left out of a cell, whose id stays what it was.
    later: tuple[str, ...] = ()

    @abstractmethod
    def check(self, spec: Spec, task: str | None = None) -> Any:
        """InputError for everything that can be wrong with a model before it is loaded, and for this task.

        What was found out on the way, for the kind's own `load`; None where that is nothing.
        """

    @abstractmethod
    def check_use(self, spec: Spec, data: Mapping[str, Any], precision: str, negative_prompt: str) -> None:
        """InputError for what is wrong only together with these data, this precision or this negative prompt."""

    @abstractmethod
    def fingerprint(self, spec: Spec) -> str:
        """Short text that changes with the weights, or with the numbers of a formula."""

    @abstractmethod
    def process(self, spec: Spec) -> Process:
        """The forward process of the model, against which noise levels are checked."""

    def levels(self, spec: Spec, schedule: Mapping[str, Any], steps: int) -> NoiseLevels:
        """What `Model.levels` will say, by which a cell is judged before a model is loaded."""
        return built(schedule, self.process(spec), steps)

    def classifier(self, spec: Spec) -> str | None:
        """What guides the model by its gradient, as short text that changes with it; None where nothing does."""
        return None

    def check_run(self, spec: Spec, guidance: Guidance, adaptive: bool, implementation: str) -> None:
        """InputError for guidance or for a way to step that the model cannot have; by default it has all.

        But for a classifier, which few have.
        """
        if guidance.classifier and self.classifier(spec) is None:
            raise InputError(
                f"classifier_scale={guidance.classifier:g}: model {spec.get('name')} has no classifier whose gradient "
                "could guide; set it to 0, or take model=embedded or gmm"
            )

    def check_fitted(
        self, spec: Spec, fitted: Mapping[str, Any], precision: str, device: str, task: str
    ) -> Mapping[str, Any]:
        """Adapters and switches as the cell keeps them; InputError for those that cannot be here, with this task."""
        if fitted:
            raise InputError(f"{next(iter(fitted))} is put into pipelines: use model=pipeline, not {spec.get('name')}")
        return fitted

    @abstractmethod
    def load(self, spec: Spec, precision: str, device: str) -> Model:
        """The model on `device`, checked as `check` does. `precision`: fp64, fp32, bf16 or fp16."""


STOCK = "stock"  # the schedule that only a pipeline has: the levels that its own scheduler walks


def built(schedule: Mapping[str, Any], process: Process, steps: int) -> NoiseLevels:
    if schedule["name"] == STOCK:
        raise InputError(
            "schedule=stock is what a pipeline's own scheduler walks: take it with model=pipeline, or another schedule"
        )
    knobs = {name: value for name, value in schedule.items() if name != "name"}
    return schedules.build(schedule["name"], process, steps, **knobs)


def dtype_of(precision: str) -> torch.dtype:
    import torch

    return {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
