"""Our plans under k-diffusion's signature, against k-diffusion itself; and in the menus of a ComfyUI."""

from __future__ import annotations

import inspect
import sys
import types
import warnings

import pytest
import torch

from samplers import registry
from samplers.hosts import k_diffusion

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from k_diffusion import sampling as theirs

SHAPE = (3, 4, 8, 8)
SIGMAS = theirs.get_sigmas_karras(12, 0.03, 14.6)


def unit(seed=0, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model(x, sigma, **extra):
    """x0 of some function of both."""
    wide = (sigma**2 + 1).sqrt().view(-1, 1, 1, 1)
    return torch.tanh(x.roll(1, -1) / wide * 0.7 + x / wide * 0.4) * 0.8


class Noise:
    """The same numbers whoever asks, and what was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, above, below):
        self.asked.append((float(above), float(below)))
        return unit(100 + len(self.asked))


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


PAIRS = {
    "sample_euler": ("euler", {}),
    "sample_heun": ("heun", {}),
    "sample_dpmpp_2m": ("dpmpp", {"lower_order_final": False}),
    "sample_dpm_2": ("dpm2", {}),
    "sample_lms": ("lms", {}),
    "sample_euler_ancestral": ("euler_a", {}),
    "sample_dpm_2_ancestral": ("dpm2_a", {}),
    "sample_dpmpp_2s_ancestral": ("dpmpp_2s_a", {}),
    "sample_dpmpp_2m_sde": ("dpmpp_2m_sde", {"eta": 0.7}),
    "sample_dpmpp_3m_sde": ("dpmpp_3m_sde", {}),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("end", [len(SIGMAS), len(SIGMAS) - 1])  # at 0, and above
def test_the_result_is_k_diffusions(name, end):
    sampler, knobs = PAIRS[name]
    sigmas, x = SIGMAS[:end], unit() * SIGMAS[0]
    given = {key: value for key, value in knobs.items() if key == "eta"}
    drawn = [Noise(), Noise()]
    function = getattr(theirs, name)
    if "noise_sampler" in inspect.signature(function).parameters:
        given["noise_sampler"] = drawn[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if "lms" in name and end < len(SIGMAS):
            pytest.skip("its quadrature is off where the last step is long")
        expected = function(model, x, sigmas, disable=True, **given)
    found = k_diffusion.sample(
        model,
        x,
        sigmas,
        None,
        None,
        True,
        sampler=sampler,
        noise_sampler=drawn[1] if "noise_sampler" in given else None,
        **knobs,
    )
    assert relative(found, expected) <= 3e-5
    assert relative(found, k_diffusion.sample(model, unit(1) * SIGMAS[0], sigmas, disable=True, sampler=sampler)) > 1e-2


def test_the_callback_comes_once_a_step_with_what_k_diffusion_says():
    seen = [[], []]
    x = unit() * SIGMAS[0]
    theirs.sample_heun(model, x, SIGMAS, callback=seen[0].append, disable=True)
    k_diffusion.sample(model, x, SIGMAS, callback=seen[1].append, disable=True, sampler="heun")
    assert len(seen[0]) == len(seen[1]) == 12
    for one, other in zip(*seen, strict=True):
        assert {*one} == {*other} and one["i"] == other["i"]
        for key in ("sigma", "sigma_hat"):
            assert float(one[key]) == pytest.approx(float(other[key]), rel=1e-6)
        for key in ("x", "denoised"):
            assert relative(other[key], one[key]) <= 1e-5


PLANNED = [name for name in registry.names() if not (registry.is_adaptive(name) or registry.has_own_levels(name))]


@pytest.mark.parametrize("sampler", PLANNED)
def test_every_sampler_runs_on_a_flow(sampler):
    """x0 and ε are what they were where the model knows them: only the scaling of the state is in question."""
    t = torch.linspace(1, 0.05, 9)
    clean, noise = torch.full(SHAPE, 0.3), unit()
    seen = []

    def knows(x, sigma, **extra):
        seen.append(float(sigma[0]))
        return clean

    found = k_diffusion.sample(knows, noise.clone(), t, {"seed": 3}, disable=True, sampler=sampler, flow=True)
    assert found.isfinite().all() and max(seen) == 1 and min(seen) >= 0.05 - 1e-6
    if registry.capabilities(sampler, 8).stochastic:
        assert relative(found - 0.95 * clean, found) > 0.01
    elif sampler != "ipndm_v":  # whose published weights do not add up
        assert relative(found, 0.95 * clean + 0.05 * noise) <= 3e-5


def test_what_is_asked_of_a_noise_sampler_is_in_the_models_sigma():
    for flow, sigmas in ((False, SIGMAS[:4]), (True, torch.tensor([1.0, 0.7, 0.4, 0.1]))):
        noise = Noise()
        x = unit() * sigmas[0]
        k_diffusion.sample(model, x, sigmas, disable=True, sampler="euler_a", noise_sampler=noise, flow=flow)
        assert torch.allclose(torch.tensor(noise.asked), torch.stack([sigmas[:-1], sigmas[1:]], 1), rtol=1e-6)


def test_a_seed_decides_the_noise_and_the_model_gets_the_extra_arguments():
    got = []

    def noting(x, sigma, **extra):
        got.append(extra)
        return model(x, sigma)

    def run(seed):
        return k_diffusion.sample(
            noting, unit(), SIGMAS[4:], {"seed": seed, "cond": 1}, disable=True, sampler="euler_a"
        )

    assert torch.equal(run(5), run(5)) and not torch.equal(run(5), run(6))
    assert got[0] == {"seed": 5, "cond": 1}


def test_a_low_precision_state_is_walked_in_float32():
    x = (unit() * SIGMAS[0]).bfloat16()
    exact = k_diffusion.sample(lambda x, s: model(x.bfloat16().float(), s), x.float(), SIGMAS, disable=True)
    found = k_diffusion.sample(lambda x, s: model(x.float(), s.float()).bfloat16(), x, SIGMAS, disable=True)
    assert found.dtype == torch.bfloat16 and relative(found.float(), exact) < 0.05


def test_a_function_shows_the_knobs_of_its_sampler():
    function = k_diffusion.function({"name": "euler", "s_noise": 1.1})
    parameters = inspect.signature(function).parameters
    assert [*parameters][:7] == ["model", "x", "sigmas", "extra_args", "callback", "disable", "noise_sampler"]
    assert parameters["s_churn"].default == 0.0 and parameters["s_noise"].default == 1.1
    assert function.__name__ == "sample_euler"
    x = unit() * SIGMAS[0]
    churned = function(model, x, SIGMAS, {"seed": 0}, disable=True, s_churn=5.0)
    assert relative(function(model, x, SIGMAS, disable=True), churned) > 1e-3
    assert torch.equal(function(model, x, SIGMAS[:1]), x)


@pytest.mark.parametrize(
    ("said", "call"),
    [
        ("while it runs", lambda: k_diffusion.function("dpm_adaptive")),
        ("did you mean 's_churn'", lambda: k_diffusion.sample(model, unit(), SIGMAS, sampler="euler", s_chrun=1)),
        ("did you mean", lambda: k_diffusion.sample(model, unit(), SIGMAS, sampler="eulr")),
        ("must fall at every step", lambda: k_diffusion.sample(model, unit(), [1.0, 2.0, 0.0])),
        ("must fall from above 0", lambda: k_diffusion.sample(model, unit(), [0.0, 0.0])),
        ("0 to 1", lambda: k_diffusion.sample(model, unit(), SIGMAS, flow=True)),
    ],
)
def test_bad_input_is_one_line(said, call):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ ComfyUI


@pytest.fixture
def comfy(monkeypatch):
    """The names of ComfyUI that are used, as its comfy/samplers.py and comfy/model_sampling.py have them."""
    modules = {
        name: types.ModuleType(name)
        for name in (
            "comfy",
            "comfy.samplers",
            "comfy.model_sampling",
            "comfy.k_diffusion",
            "comfy.k_diffusion.sampling",
        )
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        if "." in name:
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, module)
    samplers = modules["comfy.samplers"]
    samplers.KSAMPLER_NAMES = ["euler", "heun"]
    samplers.SAMPLER_NAMES = [*samplers.KSAMPLER_NAMES, "ddim"]
    samplers.KSampler = type("KSampler", (), {"SAMPLERS": samplers.SAMPLER_NAMES})
    modules["comfy.model_sampling"].CONST = type("CONST", (), {})
    modules["comfy.model_sampling"].EPS = type("EPS", (), {})
    return modules["comfy"]


def test_comfyui_finds_our_samplers_by_name(comfy):
    from samplers.hosts.comfyui import NODE_CLASS_MAPPINGS, register

    assert NODE_CLASS_MAPPINGS == {}
    names = register()
    assert register() == names and "plan_unipc" in names and "plan_dpm_adaptive" not in names
    for menu in (comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSAMPLER_NAMES):
        assert menu[:2] == ["euler", "heun"] and all(menu.count(name) == 1 for name in names)

    class Wrapped:
        def __init__(self, scaling):
            inner = types.SimpleNamespace(model_sampling=scaling())
            self.inner_model = types.SimpleNamespace(inner_model=inner)

        def __call__(self, x, sigma, **extra):
            return model(x, sigma)

    function = comfy.k_diffusion.sampling.sample_plan_dpmpp
    x = unit() * SIGMAS[0]
    found = function(Wrapped(comfy.model_sampling.EPS), x, SIGMAS, extra_args={"seed": 1}, callback=None, disable=True)
    assert relative(found, theirs.sample_dpmpp_2m(model, x, SIGMAS, disable=True)) <= 3e-5
    t = torch.tensor([1.0, 0.7, 0.3, 0.0])
    flow = function(Wrapped(comfy.model_sampling.CONST), unit(), t, disable=True)
    assert torch.equal(flow, k_diffusion.sample(model, unit(), t, disable=True, sampler="dpmpp", flow=True))
    with pytest.raises(ValueError, match="model_sampling"):
        function(object(), x, SIGMAS, disable=True)
