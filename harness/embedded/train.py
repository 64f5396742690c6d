"""Train the embedded model from nothing: `python -m harness.embedded.train`.

Stages run in order and each continues from its checkpoint (`--work`, git-ignored): the VAE, the feature extractor,
the open_clip model, then text encoder + UNet, the inpainting UNet (from the UNet), and the VAE's decoder once more
(sharpen.py). `export` writes the folder that the harness ships. About 4 hours on two cores, minutes on a GPU.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from harness.embedded import flaws, nets, world
from harness.embedded.sharpen import Denoised, train_decoder
from harness.embedded.stage import RECIPES, Run, autocast, drawings, loop, to_signed, training_indices
from harness.errors import interruptible

WEIGHTS = Path(__file__).parent / "weights"
DROP_CONDITION = 0.10  # share of captions replaced by "" so that the UNet also learns the unconditional score
MIN_SNR_GAMMA = 5.0  # loss weight min(SNR, γ)/SNR for ε-prediction, 2303.09556
LATENT_POOL = 65_536  # drawings whose latents are cached
MASK_POOL = 16_384  # drawings with a mask and masked latents, for inpainting


# ---------------------------------------------------------------------------------------------------- the stages


def train_vae(work: Path, device: str) -> nn.Module:
    recipe = RECIPES["vae"]
    run = Run("vae", nets.vae().to(memory_format=torch.channels_last), recipe, work, device)
    net = run.module

    def losses(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = to_signed(world.render(drawings(step, recipe.batch)), device)
        with autocast(device):
            posterior = net.encode(x).latent_dist
            out = net.decode(posterior.sample()).sample
        error = F.mse_loss(out.float(), x)
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        edges = F.l1_loss(out.float(), x)
        return error + 0.05 * edges + 3e-5 * kl, {"dB": 10 * math.log10(4 / error.item()), "kl": kl.item()}

    loop(run, losses)
    return run.load_averaged()


def train_extractor(work: Path, device: str) -> nn.Module:
    recipe = RECIPES["extractor"]
    run = Run("extractor", nets.Extractor().to(memory_format=torch.channels_last), recipe, work, device)
    net = run.module

    def losses(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        scenes = drawings(step, recipe.batch)
        images = world.render(scenes).to(device)
        targets = {k: v.to(device) for k, v in nets.answers(scenes).items()}
        seen, spoilt = flaws.spoil(images.float())
        with autocast(device):
            places = net.places(seen)
            features = net.squeeze(places.flatten(1))
            logits, thumb, told = net.attributes(features), net.thumb(features), net.flaws(places.mean((2, 3)))
        named = sum(F.cross_entropy(logits[k].float(), targets[k], ignore_index=-1) for k in nets.SEEN)
        small = F.interpolate(images.float() / 127.5 - 1, size=net.THUMB, mode="area").flatten(1)
        drawn = F.mse_loss(thumb.float(), small)
        right = torch.stack(
            [(logits[k].argmax(1) == targets[k])[targets[k] >= 0].float().mean() for k in nets.SEEN]
        ).mean()
        flawed = F.mse_loss(told.float(), spoilt)
        shown = {"names": named.item(), "thumb": drawn.item(), "flaws": flawed.item(), "right": right.item()}
        return named + 5 * drawn + 120 * flawed, shown

    loop(run, losses)
    return run.load_averaged()


def build_open_clip(vocabulary: int) -> nn.Module:
    import open_clip

    config = nets.open_clip_config(vocabulary)["model_cfg"]
    text = {k: v for k, v in config["text_cfg"].items() if not k.startswith("hf_")}
    return open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text)


def train_clip(work: Path, device: str) -> nn.Module:
    recipe, tok = RECIPES["clip"], nets.tokenizer()
    run = Run("clip", build_open_clip(len(tok)), recipe, work, device)
    net = run.module

    def losses(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        scenes = drawings(step, recipe.batch)
        images = to_signed(world.render(scenes), device)
        tokens = tok(
            scenes.captions(), padding="max_length", truncation=True, max_length=nets.CONTEXT, return_tensors="pt"
        ).input_ids.to(device)
        with autocast(device):
            image, text = net.encode_image(images, normalize=True), net.encode_text(tokens, normalize=True)
        logits = net.logit_scale.clamp(max=math.log(100)).exp() * image.float() @ text.float().T
        # The same caption twice in a batch is right twice.
        code = torch.from_numpy(scenes.caption_code().astype(np.int64)).to(device)
        target = (code[:, None] == code[None]).float()
        target = target / target.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss, {
            "loss": loss.item(),
            "top1": (logits.argmax(1) == torch.arange(len(logits), device=device)).float().mean().item(),
        }

    loop(run, losses)
    return run.load_averaged()


@torch.no_grad()
def latent_pool(work: Path, autoencoder: nn.Module, device: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Posterior moments (N, 8, 16, 16) float16 and tokens (N, 24) of the training drawings, and the scaling factor."""
    path = work / "latents.pt"
    if not path.exists():
        parts = [world.scenes(i) for i in np.array_split(training_indices(LATENT_POOL), LATENT_POOL // 128)]
        moments = torch.cat([_moments(autoencoder, world.render(part), device) for part in parts])
        scale = 1.0 / moments[:8192, :4].float().std().item()
        captions = [caption for part in parts for caption in part.captions()]
        torch.save({"moments": moments, "tokens": _tokens(captions), "scale": scale}, path)
    pool = torch.load(path, weights_only=True)
    return pool["moments"], pool["tokens"], pool["scale"]


def _moments(autoencoder: nn.Module, images: torch.Tensor, device: str) -> torch.Tensor:
    with autocast(device):
        return autoencoder.encode(to_signed(images, device)).latent_dist.parameters.half().cpu()


@cache
def _tokenizer():
    return nets.tokenizer()


def _tokens(captions: list[str]) -> torch.Tensor:
    tok = _tokenizer()
    return tok(captions, padding="max_length", truncation=True, max_length=nets.CONTEXT, return_tensors="pt").input_ids


def _sample(moments: torch.Tensor, scale: float) -> torch.Tensor:
    mean, logvar = moments.float().chunk(2, 1)
    return scale * (mean + (0.5 * logvar.clamp(-30, 20)).exp() * torch.randn_like(mean))


def _diffusion_loss(
    denoiser: nn.Module, clean: torch.Tensor, context: torch.Tensor, extra: torch.Tensor | None
) -> torch.Tensor:
    """Weighted ε loss at one random timestep an image, stratified over the batch."""
    n, device = len(clean), clean.device
    cumulative = nets.training_noise().alphas_cumprod.to(device)
    t = ((torch.rand(1, device=device) + torch.arange(n, device=device) / n) % 1 * nets.TRAIN_TIMESTEPS).long()
    a = cumulative[t].view(-1, 1, 1, 1)
    noise = torch.randn_like(clean)
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    model_input = noisy if extra is None else torch.cat([noisy, extra], 1)
    with autocast(device.type):
        eps = denoiser(model_input.contiguous(memory_format=torch.channels_last), t, context).sample
    snr = (a / (1 - a)).view(-1)
    weight = snr.clamp(max=MIN_SNR_GAMMA) / snr
    return (weight * (eps.float() - noise).pow(2).mean((1, 2, 3))).mean()


class Conditioner(nn.Module):
    """Text encoder with heads that name what stands where, read off its end-of-text token.

    The denoising loss alone takes very long to find out which object "left of" puts where: text must be resolved and
    looked up before a pixel feels it. The heads ask the text encoder for it directly; they are not shipped.
    """

    WEIGHT = 0.005  # of the heads' cross-entropy beside the denoising loss

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.encoder = nets.text_encoder(vocabulary)
        self.heads = nn.ModuleDict({name: nn.Linear(nets.TEXT_WIDTH, n) for name, n in nets.HEADS.items()})

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.encoder(ids).last_hidden_state

    def naming_loss(self, context: torch.Tensor, ids: torch.Tensor, answers: dict[str, torch.Tensor]) -> torch.Tensor:
        end = context[torch.arange(len(ids)), ids.argmax(1)].float()
        losses = [F.cross_entropy(head(end), answers[name], ignore_index=-1) for name, head in self.heads.items()]
        return self.WEIGHT * torch.stack(losses).nansum()


def train_unet(work: Path, device: str, autoencoder: nn.Module) -> nn.ModuleDict:
    recipe = RECIPES["unet"]
    moments, tokens, scale = latent_pool(work, autoencoder, device)
    answers = {k: v.to(device) for k, v in nets.answers(world.scenes(training_indices(LATENT_POOL))).items()}
    nothing = _tokens([""])
    net = nets.unet().to(memory_format=torch.channels_last)
    both = nn.ModuleDict({"unet": net, "text": Conditioner(len(_tokenizer()))})
    run = Run("unet", both, recipe, work, device)

    def losses(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(len(moments), (recipe.batch,))
        dropped = torch.rand(recipe.batch) < DROP_CONDITION
        ids = torch.where(dropped[:, None], nothing, tokens[rows]).to(device)
        with autocast(device):
            context = both["text"](ids)
        named = {k: torch.where(dropped.to(device), -1, v[rows.to(device)]) for k, v in answers.items()}
        naming = both["text"].naming_loss(context, ids, named)
        loss = _diffusion_loss(both["unet"], _sample(moments[rows].to(device), scale), context, None)
        return loss + naming, {"loss": loss.item(), "naming": naming.item()}

    loop(run, losses)
    return run.load_averaged()


def random_masks(count: int, seed: int) -> torch.Tensor:
    """Masks to repaint, (N, 1, 64, 64) float32 in {0, 1}: boxes on the latent's 4-pixel grid, some the whole."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, 1, 64, 64), np.float32)
    for mask in masks:
        if rng.random() < 0.1:
            mask[:] = 1
            continue
        height, width = 4 * rng.integers(4, 13, 2)
        top, left = 4 * rng.integers(0, (64 - height) // 4 + 1), 4 * rng.integers(0, (64 - width) // 4 + 1)
        mask[:, top : top + height, left : left + width] = 1
    return torch.from_numpy(masks)


@torch.no_grad()
def masked_pool(work: Path, autoencoder: nn.Module, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks at latent size (N, 1, 16, 16), moments (N, 8, 16, 16) of the first MASK_POOL drawings masked to grey."""
    path = work / "masked.pt"
    if not path.exists():
        masks, out = random_masks(MASK_POOL, seed=7), []
        chunks = zip(np.array_split(training_indices(MASK_POOL), MASK_POOL // 128), masks.split(128), strict=True)
        for index, mask in chunks:
            images = world.render(world.scenes(index)).float()
            # Grey 127.5 is 0 in the VAE's range: what diffusers' inpainting pipeline shows under the mask.
            out.append(_moments(autoencoder, images * (1 - mask) + 127.5 * mask, device))
        torch.save({"masks": F.interpolate(masks, size=16, mode="nearest"), "moments": torch.cat(out)}, path)
    pool = torch.load(path, weights_only=True)
    return pool["masks"], pool["moments"]


def train_inpaint(work: Path, device: str, autoencoder: nn.Module, parent: nn.ModuleDict) -> nn.Module:
    """Start from the 4-channel UNet with five new input channels at zero; the text encoder stays as it is."""
    recipe = RECIPES["inpaint"]
    moments, tokens, scale = latent_pool(work, autoencoder, device)
    masks, masked = masked_pool(work, autoencoder, device)
    nothing = _tokens([""])
    net = nets.unet(9)
    start = parent["unet"].state_dict()
    kernel = torch.zeros_like(net.conv_in.weight)
    kernel[:, :4] = start["conv_in.weight"]
    net.load_state_dict({**start, "conv_in.weight": kernel})
    text = parent["text"].to(device).eval()
    run = Run("inpaint", net.to(memory_format=torch.channels_last), recipe, work, device)

    def losses(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(len(masks), (recipe.batch,))
        ids = torch.where(torch.rand(recipe.batch, 1) < DROP_CONDITION, nothing, tokens[rows]).to(device)
        with torch.no_grad():
            context = text(ids)
        extra = torch.cat([masks[rows].to(device), _sample(masked[rows].to(device), scale)], 1)
        loss = _diffusion_loss(run.module, _sample(moments[rows].to(device), scale), context, extra)
        return loss, {"loss": loss.item()}

    loop(run, losses)
    return run.load_averaged()


def one_call(pair: nn.ModuleDict, scale: float) -> Denoised:
    """Latents noised to timesteps and denoised by one call of the UNet with their captions, without guidance."""
    pair.eval().requires_grad_(False)
    cumulative = nets.training_noise().alphas_cumprod

    def denoised(z: torch.Tensor, t: torch.Tensor, captions: list[str]) -> torch.Tensor:
        a = cumulative.to(z.device)[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * scale * z + (1 - a).sqrt() * torch.randn_like(z)
        context = pair["text"](_tokens(captions).to(z.device))
        eps = pair["unet"](noisy.contiguous(memory_format=torch.channels_last), t, context).sample.float()
        return (noisy - (1 - a).sqrt() * eps) / a.sqrt() / scale

    return denoised


# ---------------------------------------------------------------------------------------------------- the folder


def export(folder: Path, autoencoder, pair: nn.ModuleDict, inpaint, scale: float, extractor, clip) -> None:
    """Write the two diffusers folders' parts, the open_clip folder and the extractor, float16 safetensors.

    The inpainting pipeline shares every part but its UNet, so only that is written: `unet_inpaint`.
    """
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import save_file

    tok = nets.tokenizer()
    autoencoder.register_to_config(scaling_factor=round(scale, 5))
    pipe = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=pair["text"].encoder,
        tokenizer=tok,
        unet=pair["unet"],
        scheduler=nets.training_noise(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (pipe.vae, pipe.text_encoder, pipe.unet, inpaint):
        part.to("cpu", torch.float16)
    pipe.save_pretrained(folder, safe_serialization=True)
    inpaint.save_pretrained(folder / "unet_inpaint", safe_serialization=True)
    nets.save_open_clip(clip.cpu(), folder / "open_clip", len(tok), tok)
    state = {k: v for k, v in extractor.state_dict().items() if not k.startswith(nets.Extractor.TRAINING_ONLY)}
    shipped = {k: v.half().cpu().contiguous() for k, v in state.items()}
    save_file(shipped, folder / "extractor.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".embedded-training"), help="checkpoints and caches")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder the finished model is written to")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stages", default="vae,extractor,clip,unet,inpaint,decoder,export")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.work.mkdir(parents=True, exist_ok=True)
    stages = args.stages.split(",")
    unknown = set(stages) - {*RECIPES, "export"}
    if unknown:
        parser.error(f"unknown stage {sorted(unknown)}; valid: {', '.join(RECIPES)}, export")
    everything = "export" in stages
    if everything or {"vae", "decoder", "unet", "inpaint"} & set(stages):
        autoencoder = train_vae(args.work, args.device)
    if everything or "extractor" in stages:
        extractor = train_extractor(args.work, args.device)
    if everything or "clip" in stages:
        clip = train_clip(args.work, args.device)
    if everything or {"unet", "decoder", "inpaint"} & set(stages):
        pair = train_unet(args.work, args.device, autoencoder)
    if everything or "inpaint" in stages:
        inpaint = train_inpaint(args.work, args.device, autoencoder, pair)
    if everything or "decoder" in stages:
        denoised = one_call(pair, latent_pool(args.work, autoencoder, args.device)[2])
        autoencoder = train_decoder(args.work, args.device, autoencoder, denoised)
    if everything:
        scale = latent_pool(args.work, autoencoder, args.device)[2]
        export(args.out, autoencoder, pair, inpaint, scale, extractor, clip)
        print(f"wrote {args.out}; next: python -m harness.embedded.evaluate")


if __name__ == "__main__":
    sys.exit(interruptible(main))
