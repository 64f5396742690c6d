"""Guidance against diffusers' own function, its limits, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from harness.errors import InputError
from harness.models.guidance import Guidance, combine, threshold


def predictions(shape=(3, 4, 8, 8)):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.7, 1.0])
def test_rescale_is_that_of_diffusers(phi):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    uncond, cond = predictions()
    theirs = rescale_noise_cfg(uncond + 7.5 * (cond - uncond), cond, guidance_rescale=phi)
    torch.testing.assert_close(combine(uncond, cond, Guidance(7.5, rescale=phi)), theirs, rtol=1e-5, atol=1e-5)


def test_scale_zero_is_unconditional_and_two_is_twice_the_difference():
    uncond, cond = predictions()
    assert torch.equal(combine(uncond, cond, Guidance(0.0)), uncond)
    torch.testing.assert_close(combine(uncond, cond, Guidance(2.0)), 2 * cond - uncond)


def test_full_rescale_keeps_the_deviation_of_each_image():
    uncond, cond = predictions()
    out = combine(uncond, cond, Guidance(9.0, rescale=1.0))
    torch.testing.assert_close(out.std((1, 2, 3)), cond.std((1, 2, 3)))


def test_thresholds():
    x0 = torch.linspace(-3, 3, 601).repeat(2, 1).view(2, 1, 601, 1) * torch.tensor([1.0, 0.2]).view(2, 1, 1, 1)
    assert torch.equal(threshold(x0, Guidance()), x0)
    assert threshold(x0, Guidance(threshold="static")).abs().max() == 1
    dynamic = threshold(x0, Guidance(threshold="dynamic", percentile=0.5))
    assert dynamic.abs().max() == 1
    assert dynamic[0, 0, 375, 0] == pytest.approx(0.75 / 1.5)  # half of |x0| lies below 1.5: divided by that
    assert torch.equal(dynamic[1], x0[1])  # never scaled up: 0.3 is below 1, and nothing exceeds 1


def test_threshold_of_latents_is_refused():
    Guidance(threshold="static").check(pixel_range=True)
    with pytest.raises(InputError, match="predicts latents"):
        Guidance(threshold="dynamic").check(pixel_range=False)


@pytest.mark.parametrize(
    ("scale", "knobs", "says"),
    [
        (-1, {}, "cfg=-1"),
        (3, {"rescale": 1.5}, "from 0 to 1"),
        (3, {"percentile": 0}, "percentile"),
        (3, {"threshold": "dynamc"}, "did you mean 'dynamic'"),
        (3, {"rescle": 0.5}, "did you mean 'rescale'"),
    ],
)
def test_bad_values_say_what_is_valid(scale, knobs, says):
    with pytest.raises(InputError, match=says):
        Guidance.parse(scale, knobs)
