"""The loop and the noise streams, against arithmetic written out."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch

from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP, Level
from samplers.core.noise import NoiseStreams
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage
from samplers.core.walk import Walk

PROCESS = DiscreteVP.scaled_linear()


def random_plan(calls, reach, seed):
    """Any plan at all: every stage reaches back as far as it can, some coefficients are zero, some stages draw."""
    rng = np.random.default_rng(seed)
    stages = []
    for i in range(calls):
        back = min(reach, i + 1)
        states, x0 = (tuple(float(c) for c in rng.normal(size=back) * rng.integers(0, 2, back)) for _ in range(2))
        churn = ((0.9, 0.3), (0.8, 0.0), (1.0, 0.0))[rng.choice(3, p=(0.3, 0.2, 0.5))]
        noise = 0.2 if rng.random() < 0.3 else 0.0
        stages.append(Stage(Level(1, calls - i, i), Level(1, calls - i - 1, i + 1), states, x0, noise, churn))
    return Plan(Level(1, calls, 0), tuple(stages), Capabilities(1, calls))


def written_out(plan, denoise, x, noise):
    past, answers = [], []
    for stage in plan.stages:
        x = stage.churn[0] * x
        x = x + stage.churn[1] * noise.draw().double() if stage.churn[1] else x
        past.insert(0, x)
        answers.insert(0, denoise(x, stage.level))
        x = torch.zeros_like(x)
        for coefficients, tensors in ((stage.states, past), (stage.x0, answers)):
            for coefficient, tensor in zip(coefficients, tensors, strict=False):
                x = x + coefficient * tensor
        x = x + stage.noise * noise.draw().double() if stage.noise else x
    return x


@pytest.mark.parametrize(("calls", "reach", "seed"), itertools.product((1, 2, 9), (1, 2, 4, 9), range(3)))
def test_any_plan_is_executed_as_written(calls, reach, seed):
    plan = random_plan(calls, reach, seed)
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def denoise(x, level):
        return torch.tanh(x + level.sigma)

    expected = written_out(plan, denoise, x, NoiseStreams(seed, [0, 1], (3,)))
    found = integrate(plan, denoise, x, NoiseStreams(seed, [0, 1], (3,)))
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_influence_is_what_the_loop_does(seed):
    plan = random_plan(9, 4, seed)
    answers = torch.randn(9, 5, dtype=torch.float64)
    order = iter(answers)
    draws = [torch.randn(5, dtype=torch.float64) for _ in range(plan.draws)]
    x = torch.randn(5, dtype=torch.float64)
    result = integrate(plan, lambda x, level: next(order), x, _Given(draws))
    columns = torch.stack([x, *answers, *draws])
    assert torch.allclose(result, torch.from_numpy(plan.influence()[-1]) @ columns, rtol=1e-12, atol=1e-12)


class _Given:
    def __init__(self, draws):
        self._draws = iter(draws)

    def draw(self, above=None, below=None):
        return next(self._draws)


def unipc(steps=6):
    return registry.build_plan(registry.load("unipc"), schedules.build("karras", PROCESS, steps))


def test_the_start_is_left_alone_and_outputs_may_be_reused():
    """A denoiser may answer in the same tensor every time, as captured graphs do."""
    x = torch.randn(2, 4, 8, 8)
    before, out = x.clone(), torch.empty_like(x)
    reused = integrate(unipc(), lambda x, level: torch.tanh(x, out=out), x)
    assert torch.equal(x, before)
    assert torch.equal(reused, integrate(unipc(), lambda x, level: torch.tanh(x), x))


@pytest.mark.parametrize(
    ("sampler", "rows"),
    [("euler", 0), ("dpmpp", 2), ("unipc", 3), ("ddim", 0), ("plms", 5)],  # PLMS: four ε, and once the first state
)
def test_the_buffer_holds_what_is_needed_and_no_more(sampler, rows):
    plan = registry.build_plan(registry.load(sampler), schedules.build("leading", PROCESS, 40))
    assert plan.program.rows == rows


def test_low_precision_answers_and_strided_starts_are_welcome():
    x = torch.randn(2, 8, 8, 4).permute(0, 3, 1, 2)
    result = integrate(unipc(), lambda x, level: torch.tanh(x).bfloat16(), x)
    assert result.dtype == torch.float32 and result.isfinite().all()
    with pytest.raises(ValueError, match="float32 or float64"):
        integrate(unipc(), lambda x, level: x, x.half())


def test_after_stage_sees_every_state_and_its_level():
    levels = schedules.build("karras", PROCESS, 6)
    seen = []

    def keep_left_half(x, level):
        seen.append(level)
        return torch.cat([torch.full_like(x[..., :4], level.alpha), x[..., 4:]], -1)

    result = integrate(unipc(), lambda x, level: torch.tanh(x), torch.randn(2, 4, 8, 8), after_stage=keep_left_half)
    assert seen == [levels[k] for k in range(1, 7)]
    assert torch.equal(result[..., :4], torch.ones(2, 4, 8, 4))


def test_noise_is_asked_for_when_a_plan_draws():
    plan = registry.build_plan({"solver": "ddim", "eta": 1.0}, schedules.build("leading", PROCESS, 4))
    with pytest.raises(ValueError, match="noise streams"):
        integrate(plan, lambda x, level: x, torch.randn(1, 4))


def test_streams_depend_on_seed_image_and_draw_alone():
    streams = NoiseStreams(3, [7, 0, 12], (4, 8, 8))
    first, second = streams.draw(), streams.draw()
    other = NoiseStreams(3, [12], (4, 8, 8))
    assert torch.equal(other.draw()[0], first[2]) and torch.equal(other.draw()[0], second[2])
    assert first.dtype == torch.float32 and first.shape == (3, 4, 8, 8)
    rows = torch.cat([first, second, NoiseStreams(4, [7, 0, 12], (4, 8, 8)).draw()]).view(9, -1).double()
    correlation = torch.corrcoef(rows) - torch.eye(9)
    assert correlation.abs().max() < 0.25  # 256 numbers: 4 standard deviations


def test_streams_are_standard_normal_and_never_repeat():
    many = NoiseStreams(0, range(3000), (4,)).draw()
    assert abs(float(many.mean())) < 0.03 and abs(float(many.std()) - 1) < 0.03
    assert len(torch.unique(many[:, 0])) > 2990
    assert len({tuple(row) for row in many.tolist()}) == 3000


def adams(steps=6):
    """Three-step Adams–Bashforth on ε = (x − α·x0)/σ: what reads states and outputs of the past in one ratio."""
    levels = schedules.build("karras", PROCESS, steps, end="sigma_min")
    return registry.build_plan({"solver": "ipndm", "max_order": 3}, levels)


def test_a_state_and_its_output_share_a_row_where_they_are_used_as_one():
    plan = adams()
    assert plan.program.rows == 3 and all(step.keep_state == 0 for step in plan.program.steps)
    x = torch.randn(2, 3, dtype=torch.float64)
    expected = written_out(plan, lambda x, level: torch.tanh(x), x, None)
    assert torch.allclose(integrate(plan, lambda x, level: torch.tanh(x), x), expected, rtol=1e-12, atol=1e-12)
    # With one of the two used by itself, they do not share.
    stages = list(plan.stages)
    stages[-1] = Stage(stages[-1].level, stages[-1].result, (*stages[-1].states[:2], 0.5), stages[-1].x0)
    apart = Plan(plan.start, tuple(stages), plan.capabilities)
    expected = written_out(apart, lambda x, level: torch.tanh(x), x, None)
    assert apart.program.rows > 3
    assert torch.allclose(integrate(apart, lambda x, level: torch.tanh(x), x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", ["euler", "unipc", "ipndm", "heun"])
def test_a_denoiser_may_answer_with_the_state_it_was_given(solver):
    plan = registry.build_plan({"solver": solver}, schedules.build("karras", PROCESS, 5, end="sigma_min"))
    x = torch.randn(2, 3, dtype=torch.float64)
    expected = written_out(plan, lambda x, level: x, x, None)
    assert torch.allclose(integrate(plan, lambda x, level: x, x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", ["euler", "dpmpp", "unipc", "plms", "heun", "dpmpp_sde"])
@pytest.mark.parametrize("shape", [(2,), (4, 16, 16)])
def test_images_are_the_same_to_the_bit_at_batch_1_7_and_64(solver, shape):
    """The loop's own arithmetic; the denoiser here is one whose own does not depend on the batch either."""
    plan = registry.build_plan({"solver": solver}, schedules.build("karras", PROCESS, 6))

    def run(indices):
        streams = NoiseStreams(0, indices, shape)
        return integrate(plan, lambda x, level: x.mul(0.5).sub(level.alpha), streams.draw(), streams)

    all_64, seven = run(range(64)), run(range(3, 10))
    assert torch.equal(all_64[3:10], seven) and torch.equal(run([5]), seven[2:3])


@pytest.mark.parametrize("solver", ["euler", "dpmpp", "unipc", "ipndm", "heun", "restart", "dpmpp_sde"])
def test_a_walk_is_driven_from_outside_and_a_copy_of_it_goes_on_by_itself(solver):
    plan = registry.build_plan({"solver": solver}, schedules.build("karras", PROCESS, 5, end="sigma_min"))
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = integrate(plan, lambda x, level: torch.tanh(x), x, NoiseStreams(0, [0, 1], (3,)))
    walk, noise, half = Walk(plan, x), NoiseStreams(0, [0, 1], (3,)), None
    while not walk.over:
        if walk.index == plan.nfe // 2:
            half = copy.deepcopy((walk, noise))
        assert walk.level == plan.stages[walk.index].level
        walk.advance(torch.tanh(walk.churn(noise)), noise)
    assert torch.equal(walk.state, expected) and walk.level == plan.stages[-1].result
    other, noise = half
    while not other.over:
        other.advance(torch.tanh(other.churn(noise)), noise)
    assert torch.equal(other.state, expected) and other.state.data_ptr() != walk.state.data_ptr()


def test_a_walk_goes_on_from_what_is_written_into_its_state():
    """What a step remembers of its call is the state that was evaluated, not the one before it was written to."""
    plan = registry.build_plan({"solver": "heun"}, schedules.build("karras", PROCESS, 2, end="sigma_min"))
    walk, x = Walk(plan, torch.ones(1, 3, dtype=torch.float64)), torch.full((1, 3), 2.0, dtype=torch.float64)
    walk.state.copy_(x)
    for _ in plan.stages:
        walk.advance(walk.churn() / 2)
    assert torch.equal(walk.state, integrate(plan, lambda x, level: x / 2, x))
