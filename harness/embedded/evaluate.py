"""Is the embedded model good enough to measure with? `python -m harness.embedded.evaluate`

Prints what the model card claims: reconstruction, the classifier on real drawings, retrieval of the open_clip model,
and which share of held-out prompts the generated images get right, at several CFG scales.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from harness.embedded import nets, world
from harness.embedded.train import WEIGHTS
from harness.errors import interruptible

CHECK_START = 4_000_000_000  # image numbers nothing else uses
SHEET = 32  # images of a kind on the sheet
ROW = 16  # of them in a row


def load_extractor(folder: Path) -> nets.Extractor:
    from safetensors.torch import load_file

    net = nets.Extractor()
    missing, unexpected = net.load_state_dict(load_file(folder / "extractor.safetensors"), strict=False)
    if unexpected or any(not name.startswith(nets.Extractor.TRAINING_ONLY) for name in missing):
        raise ValueError(f"{folder}/extractor.safetensors does not fit: missing {missing}, unexpected {unexpected}")
    return net.float().eval()


@torch.inference_mode()
def right(extractor: nets.Extractor, images: torch.Tensor, scenes: world.Scenes) -> dict[str, np.ndarray]:
    """Per head, (N,) float: 1 right, 0 wrong, NaN where the head has no meaning for the scene."""
    logits = extractor.attributes(torch.cat([extractor(part) for part in images.split(256)]))
    out = {}
    answers = nets.answers(scenes)
    for name in nets.SEEN:
        target = answers[name]
        hit = (logits[name].argmax(1) == target).double()
        out[name] = torch.where(target >= 0, hit, torch.nan).numpy()
    return out


def reconstruction(model, count: int = 512, cycles: tuple[int, int] = (16, 32)) -> tuple[float, float]:
    """What encoding and decoding leave of real drawings: mean PSNR in dB, and the power of detail between so many
    cycles an image over that of the drawings.

    A decoder that only lowers the squared error keeps a third of the detail; its images are blurred whatever the
    sampler does.
    """
    images = world.render(world.split_scenes(count, held_out=True, start=CHECK_START))
    decoded = decode_encoded(model, images)
    error = (decoded.double() - images.double()).pow(2).mean((1, 2, 3))
    psnr = (10 * torch.log10(255**2 / error)).mean().item()
    return psnr, _detail(decoded, cycles) / _detail(images, cycles)


@torch.inference_mode()
def decode_encoded(model, images: torch.Tensor) -> torch.Tensor:
    """What the autoencoder makes of images, uint8 (N, 3, 64, 64): the best that any sampler can show."""
    return torch.cat([model.decode(model.encode_images(part)) for part in images.split(64)])


def _detail(images: torch.Tensor, cycles: tuple[int, int]) -> float:
    grey = images.float().mean(1)
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().pow(2).mean(0)
    along = torch.fft.fftfreq(world.IMAGE_SIZE) * world.IMAGE_SIZE
    radius = (along[:, None] ** 2 + along[None] ** 2).sqrt()
    return power[(radius >= cycles[0]) & (radius < cycles[1])].sum().item()


@torch.inference_mode()
def retrieval(folder: Path, groups: int = 32, among: int = 64) -> tuple[float, float]:
    """Top-1 share image→text and text→image among `among` drawings with different captions."""
    import open_clip

    clip, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder / 'open_clip'}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder / 'open_clip'}")
    clip.float().eval()
    image_hits, text_hits = [], []
    for group in range(groups):
        scenes = world.split_scenes(2 * among, held_out=True, start=CHECK_START + 1_000_000 * (group + 1))
        scenes = scenes.take(np.sort(np.unique(scenes.caption_code(), return_index=True)[1])[:among])
        image = clip.encode_image(world.render(scenes).float() / 127.5 - 1, normalize=True)
        text = clip.encode_text(tokenize(scenes.captions()), normalize=True)
        table = image @ text.T
        own = torch.arange(among)
        image_hits.append((table.argmax(1) == own).float().mean().item())
        text_hits.append((table.argmax(0) == own).float().mean().item())
    return float(np.mean(image_hits)), float(np.mean(text_hits))


def generate(model, prompts: list[str], cfg: float, steps: int, seed: int = 0) -> torch.Tensor:
    """Images by DPM++ 2M on Karras levels, uint8."""
    from harness.models.guidance import Guidance
    from samplers import schedules
    from samplers.core.integrate import integrate
    from samplers.core.noise import NoiseStreams
    from samplers.solvers.dpmpp import DPMpp

    levels = schedules.build("karras", model.process, steps)
    plan = DPMpp().plan(levels)
    out = []
    with torch.inference_mode():
        for start in range(0, len(prompts), 64):
            part = prompts[start : start + 64]
            noise = NoiseStreams(seed, range(start, start + len(part)), model.latent_shape)
            denoise = model.denoiser(model.encode_text(part), model.encode_text([""]), Guidance(scale=cfg))
            out.append(model.decode(integrate(plan, denoise, noise.draw(), noise)))
    return torch.cat(out)


def show_accuracy(table: Table, label: str, hits: dict[str, np.ndarray], scenes: world.Scenes) -> None:
    one, two = scenes.objects == 1, scenes.objects == 2
    ones = ("ground", "light", "position", "shape_0", "colour_0", "size_0")
    every = np.stack([np.nan_to_num(value, nan=1.0) for value in hits.values()]).min(0)
    cells = [f"{100 * np.nanmean(hits[name][one]):.1f}" for name in ones]
    cells += [f"{100 * every[one].mean():.1f}", f"{100 * every[two].mean():.1f}"]
    table.add_row(label, *cells)


def save_sheet(kinds: list[torch.Tensor], file: Path) -> None:
    """Blocks of SHEET images one below the other, at twice their size: drawings, reconstructions, samples by CFG."""
    from PIL import Image

    side, gap = world.IMAGE_SIZE, 8
    rows = SHEET // ROW
    sheet = Image.new("RGB", (ROW * side, len(kinds) * (rows * side + gap) - gap), "white")
    for block, images in enumerate(kinds):
        for n, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
            top = block * (rows * side + gap) + n // ROW * side
            sheet.paste(Image.fromarray(image), (n % ROW * side, top))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", default="1,3,5", help="CFG scales, comma-separated")
    parser.add_argument("--sheet", type=Path, help=f"write {SHEET} drawings and what became of them there")
    args = parser.parse_args()
    from harness.models.load import load

    model = load({"name": "embedded", "path": str(args.weights), "height": 64, "width": 64}, "fp32", "cpu")
    extractor = load_extractor(args.weights)
    console = Console(width=140)
    psnr, detail = reconstruction(model)
    kept = f"{100 * detail:.0f} % of the power of fine detail"
    console.print(f"VAE: {psnr:.2f} dB on 512 held-out drawings, {kept}")
    image, text = retrieval(args.weights)
    console.print(
        f"open_clip retrieval among 64 captions: {100 * image:.1f} % image→text, {100 * text:.1f} % text→image"
    )
    table = Table(
        *("% right", "ground", "light", "position", "shape", "colour", "size"),
        *("one: all", "two: all"),
    )
    scenes = world.split_scenes(4096, held_out=True, start=CHECK_START)
    show_accuracy(table, "real drawings", right(extractor, world.render(scenes), scenes), scenes)
    scenes = world.split_scenes(args.prompts, held_out=True)
    drawn = world.render(scenes)
    decoded = decode_encoded(model, drawn)
    show_accuracy(table, f"{args.prompts} of them, encoded and decoded", right(extractor, decoded, scenes), scenes)
    sheet = [drawn[:SHEET], decoded[:SHEET]]
    for cfg in map(float, args.cfg.split(",")):
        images = generate(model, scenes.captions(), cfg, args.steps)
        show_accuracy(table, f"{args.prompts} prompts, cfg {cfg:g}", right(extractor, images, scenes), scenes)
        sheet.append(images[:SHEET])
    console.print(table)
    if args.sheet:
        save_sheet(sheet, args.sheet)


if __name__ == "__main__":
    sys.exit(interruptible(main))
