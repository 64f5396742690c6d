"""Tasks: where a run starts, how long it is, what is held fixed."""

from __future__ import annotations

import pytest
import tiny
import torch
import yaml

from harness.errors import InputError
from harness.models.guidance import Guidance
from harness.models.load import load as load_model
from harness.tasks.img2img import Img2Img
from harness.tasks.inpaint import Inpaint, latent_mask
from harness.tasks.load import CONF, load, names
from harness.tasks.txt2img import Txt2Img
from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.noise import NoiseStreams


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    top = tmp_path_factory.mktemp("models")
    return {k: load_model(tiny.spec(tiny.folder(top / k, k)), "fp32", "cpu") for k in ("sd1", "inpaint")}


@pytest.fixture(scope="module")
def sources():
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def masks():
    masks = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    masks[0, :, 8:24, 4:20] = 1
    masks[1, :, 16:] = 1
    return masks


def schedule_of(model, name="karras", **knobs):
    return lambda steps: schedules.build(name, model.process, steps, **knobs)


def run(model, task, sampler="dpmpp", steps=4, strength=1.0, sources=None, masks=None, indices=(0, 1), **how):
    """A whole run: (images, latents, number of steps)."""
    levels, ran = task.levels(schedule_of(model, **how), steps, strength)
    noise = NoiseStreams(7, indices, model.latent_shape)
    start = task.start(model, levels, noise, sources, masks, strength=strength)
    latents = start.state
    if levels is not None:
        text = model.encode_text(["", *["a red circle"] * len(indices)])
        denoise = model.denoiser(text[1:].joined(start.shown), text[:1], Guidance(3.0))
        plan = registry.build_plan(registry.load(sampler), levels)
        latents = start.finish(integrate(plan, denoise, start.state, noise, start.after_stage))
    return start.paste(model.decode(latents)), latents, ran


# ------------------------------------------------------------------------------------------------ how long, from where


@pytest.mark.parametrize(
    ("steps", "strength", "keep", "ran", "whole"),
    [
        (20, 0.6, False, 12, 20),
        (20, 1.0, False, 20, 20),
        (5, 0.1, False, 1, 5),  # int(0.5) would be none
        (50, 0.58, False, 29, 50),  # 50 · 0.58 is 28.999999999999996
        (20, 0.6, True, 20, 34),
        (10, 0.1, True, 10, 100),
        (3, 1.0, True, 3, 3),
    ],
)
def test_strength_says_how_many_steps_run_and_where_they_start(models, steps, strength, keep, ran, whole):
    schedule = schedule_of(models["sd1"])
    levels, number = Img2Img().levels(schedule, steps, strength, keep)
    assert (number, levels.steps) == (ran, ran)
    assert levels.ratio == pytest.approx(schedule(whole).ratio[whole - ran :])


def test_strength_zero_gives_the_source_back_without_a_step(models, sources):
    model = models["sd1"]
    assert Img2Img().levels(schedule_of(model), 20, 0.0) == (None, 0)
    images, latents, ran = run(model, Img2Img(), strength=0.0, sources=sources)
    assert ran == 0
    torch.testing.assert_close(latents, model.encode_images(sources))
    assert torch.equal(images, model.decode(model.encode_images(sources)))


def test_strength_outside_its_range_is_refused(models):
    for strength in (-0.1, 1.01):
        with pytest.raises(InputError, match="strength"):
            Img2Img().levels(schedule_of(models["sd1"]), 10, strength)


def test_text_to_image_starts_from_noise_alone(models):
    model = models["sd1"]
    levels, ran = Txt2Img().levels(schedule_of(model), 6)
    eps = NoiseStreams(7, (0, 1), model.latent_shape).draw()
    assert ran == 6
    start = Txt2Img().start(model, levels, NoiseStreams(7, (0, 1), model.latent_shape))
    torch.testing.assert_close(start.state, eps)
    scaled = Txt2Img(start_scale="sigma").start(model, levels, NoiseStreams(7, (0, 1), model.latent_shape))
    torch.testing.assert_close(scaled.state, eps * levels.sigma[0])
    assert not torch.equal(scaled.state, start.state)


def test_image_to_image_starts_from_the_noised_source(models, sources):
    model = models["sd1"]
    levels, _ = Img2Img().levels(schedule_of(model), 10, 0.5)
    start = Img2Img().start(model, levels, NoiseStreams(7, (0, 1), model.latent_shape), sources)
    eps = NoiseStreams(7, (0, 1), model.latent_shape).draw()
    torch.testing.assert_close(start.state, levels.alpha[0] * model.encode_images(sources) + levels.sigma[0] * eps)
    known = Img2Img().start(
        model, levels, NoiseStreams(7, (0, 1), model.latent_shape), source_latents=model.encode_images(sources)
    )
    torch.testing.assert_close(known.state, start.state)


def test_low_strength_stays_nearer_to_the_source(models, sources):
    model = models["sd1"]
    clean = model.encode_images(sources)
    near, far = ((run(model, Img2Img(), steps=10, strength=s, sources=sources)[1] - clean).norm() for s in (0.1, 0.9))
    assert near < far


def test_an_image_does_not_depend_on_its_batch(models, sources):
    model = models["sd1"]
    both = run(model, Img2Img(), strength=0.5, sources=sources)[1]
    alone = run(model, Img2Img(), strength=0.5, sources=sources[1:], indices=(1,))[1]
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------------- inpainting


@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("sampler", ["euler", "unipc"])
def test_blending_keeps_the_source_outside_the_mask(models, sources, masks, end, sampler):
    model = models["sd1"]
    _, latents, ran = run(model, Inpaint(), sampler, sources=sources, masks=masks, end=end)
    mask = latent_mask(masks, model.downscale, "nearest").bool().expand_as(latents)
    clean = model.encode_images(sources)
    assert ran == 4
    torch.testing.assert_close(latents[~mask], clean[~mask])
    assert (latents - clean)[mask].abs().mean() > 0.1


def test_blending_happens_at_every_stage_with_the_noise_of_the_start(models, sources, masks):
    model = models["sd1"]
    levels, _ = Inpaint().levels(schedule_of(model), 4, 1.0)
    start = Inpaint().start(model, levels, NoiseStreams(7, (0, 1), model.latent_shape), sources, masks, strength=1.0)
    eps = NoiseStreams(7, (0, 1), model.latent_shape).draw()
    mask = latent_mask(masks, model.downscale, "nearest").bool().expand_as(eps)
    x = torch.full_like(eps, 5.0)
    out = start.after_stage(x, levels[2])
    known = levels.alpha[2] * model.encode_images(sources) + levels.sigma[2] * eps
    torch.testing.assert_close(out[~mask], known[~mask])
    assert (out[mask] == 5).all() and (x == 5).all()


def test_strength_of_inpainting(models, sources, masks):
    """1 starts from noise alone, whatever the schedule's first level; less starts from the noised source."""
    model = models["sd1"]

    def state(strength, sources):
        levels, _ = Inpaint().levels(schedule_of(model, "leading"), 4, strength)
        noise = NoiseStreams(7, (0, 1), model.latent_shape)
        return Inpaint().start(model, levels, noise, sources, masks, strength=strength).state

    other = 255 - sources
    assert torch.equal(state(1.0, sources), state(1.0, other))
    with pytest.raises(ValueError, match="strength"):
        state(None, sources)
    assert not torch.equal(state(0.5, sources), state(0.5, other))


def test_nine_channels_see_mask_and_masked_source(models, sources, masks):
    model = models["inpaint"]
    levels, _ = Inpaint().levels(schedule_of(model), 4, 1.0)
    start = Inpaint().start(model, levels, NoiseStreams(7, (0, 1), model.latent_shape), sources, masks, strength=1.0)
    extra = start.shown.parts["channels"]
    assert start.after_stage is None and extra.shape == (2, 5, 8, 8)
    assert torch.equal(extra[:, :1], latent_mask(masks, 4, "nearest"))
    vae = model.parts.vae
    grey = (sources.float() / 127.5 - 1) * (1 - masks.float())
    shown = vae.encode(grey).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(extra[:, 1:], shown, rtol=1e-4, atol=1e-5)
    images, _, _ = run(model, Inpaint(), sources=sources, masks=masks)
    hidden = sources.where(~masks.bool(), sources.flip(-1))  # what lies under the mask must not matter
    assert torch.equal(run(model, Inpaint(), sources=hidden, masks=masks)[0], images)


def test_paste_puts_back_the_very_pixels(models, sources, masks):
    outside = ~masks.bool().expand_as(sources)
    for name in ("sd1", "inpaint"):
        plain = run(models[name], Inpaint(), sources=sources, masks=masks)[0]
        pasted = run(models[name], Inpaint(paste_source=True), sources=sources, masks=masks)[0]
        assert torch.equal(pasted[outside], sources[outside])
        assert torch.equal(pasted[~outside], plain[~outside])
        assert not torch.equal(plain[outside], sources[outside])


def test_method_must_fit_the_model(models, sources, masks):
    model = models["sd1"]
    levels, _ = Inpaint().levels(schedule_of(model), 4, 1.0)
    with pytest.raises(InputError, match="method=blend or auto"):
        Inpaint(method="channels").start(
            model, levels, NoiseStreams(7, (0, 1), model.latent_shape), sources, masks, strength=1.0
        )


@pytest.mark.parametrize(
    ("shape", "value", "says"),
    [((2, 1, 16, 32), 1, "2x1x32x32"), ((2, 3, 32, 32), 1, "does not fit"), ((2, 1, 32, 32), 255, "holds 255")],
)
def test_a_mask_that_does_not_fit_is_refused(models, sources, shape, value, says):
    model = models["sd1"]
    levels, _ = Inpaint().levels(schedule_of(model), 4, 1.0)
    mask = torch.full(shape, value, dtype=torch.uint8)
    with pytest.raises(InputError, match=says):
        Inpaint().start(model, levels, NoiseStreams(7, (0, 1), model.latent_shape), sources, mask, strength=1.0)


def test_masks_at_latent_size():
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    mask[..., 5, 5] = 1  # inside the second cell of four pixels, not at its corner
    assert latent_mask(mask, 4, "nearest").sum() == 0
    assert latent_mask(mask, 4, "cover").nonzero().tolist() == [[0, 0, 1, 1]]
    random = torch.randint(0, 2, (2, 1, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    theirs = torch.nn.functional.interpolate(random.float(), size=(8, 8))
    assert torch.equal(latent_mask(random, 4, "nearest"), theirs)


# -------------------------------------------------------------------------------------------------------- registry


def test_yaml_and_class_say_the_same():
    assert {"txt2img", "img2img", "inpaint"} <= set(names())
    for name in names():
        spec = yaml.safe_load((CONF / f"{name}.yaml").read_text())
        task = load(spec)
        for declared in ("name", "uses_strength", "needs_sources", "needs_masks", "default_strength"):
            assert spec[declared] == getattr(task, declared), (name, declared)
        assert task == type(task)()  # the YAML's knobs are the defaults


def test_unknown_task_and_knob():
    with pytest.raises(InputError, match="did you mean 'inpaint'"):
        load({"name": "inpant"})
    with pytest.raises(InputError, match="did you mean 'paste_source'"):
        load({"name": "inpaint", "paste_sorce": True})
    with pytest.raises(InputError, match=r"task\.method"):
        load({"name": "inpaint", "method": "magic"})
