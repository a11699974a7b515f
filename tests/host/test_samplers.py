"""Every sampler of the host: with views, and with its picture changed between steps."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import comfy.k_diffusion.sampling as k_diffusion
import comfy.samplers
import pytest
import torch

from hires_fusion.sampling import samplers as table
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews
from hires_fusion.sampling.samplers import NOTHING, SAMPLERS, SLOPES, X0, Access, access
from hires_fusion.sampling.steps import Transform, between_steps

from .stub import patcher, sample

NAMES = list(comfy.samplers.SAMPLER_NAMES)


def accepts(name):
    try:
        return access(comfy.samplers.sampler_object(name))
    except ValueError:
        return None


OPEN = [name for name in NAMES if accepts(name)]
CLOSED = [name for name in NAMES if not accepts(name)]
STOCHASTIC = ("sde", "ancestral", "seeds", "ddpm", "lcm", "sa_solver")


def noise_for(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latent(*size, batch=1, seed=1):
    return noise_for((batch, 4, *size), seed)


def textured(x, sigma, conds):
    """Not linear, and different from place to place."""
    near = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    wave = torch.sin(torch.arange(x[0].numel()).view(x[0].shape) * 0.7)
    text = conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1)
    return torch.tanh(near / (1 + sigma.view(-1, 1, 1, 1)) + 0.3 * wave) + 0.1 * text


def smooth(x, sigma, conds):
    near = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    text = conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1)
    return torch.tanh(near / (1 + sigma.view(-1, 1, 1, 1))) + 0.1 * text


def same(x, step, run):
    return x


def changed(name, transform, **options):
    sampler = name if not isinstance(name, str) else comfy.samplers.sampler_object(name)
    sampler.extra_options = {**sampler.extra_options, **options}
    begun = Transform(lambda run: lambda x, step: transform(x, step, run))
    return between_steps(sampler, begun)


def schedule(model, name="simple", steps=5):
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, name, steps)


@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_works_with_views(name):
    model = add_views(patcher(smooth, native_size=64), local=LocalViews())
    model = add_views(model, dilated=DilatedViews())
    x = latent(16, 13)
    runs = [
        sample(add_views(model, view_batch_size=n), x, sampler=name, scheduler="normal", steps=5)
        for n in (1, 16, 16)
    ]
    assert runs[0].shape == x.shape and torch.isfinite(runs[0]).all()
    assert torch.equal(runs[1], runs[2])
    assert (runs[0] - runs[1]).abs().max() <= 1e-5 * runs[0].abs().max()
    if any(part in name for part in STOCHASTIC):
        other = sample(model, x, sampler=name, scheduler="normal", steps=5, seed=8)
        assert not torch.equal(runs[1], other)


def test_levels_within_a_step_have_its_windows():
    from hires_fusion.sampling.denoiser import ViewRun

    run = ViewRun(3, torch.tensor([14.0, 5.0, 1.0, 0.0]))
    draws = {sigma: run.rng(sigma).random() for sigma in (14.0, 13.9, 5.0, 5.0003, 4.2, 0.3)}
    assert draws[14.0] == draws[13.9] != draws[5.0] == draws[5.0003] == draws[4.2] != draws[0.3]
    assert draws[14.0] == ViewRun(3).rng(14.0).random()  # the same on any schedule


def test_draws_survive_another_device_s_rounding():
    """Found on a GPU, whose schedule differs in the seventh digit: the windows stood elsewhere."""
    from hires_fusion.sampling.denoiser import ViewRun

    sigmas = torch.linspace(14.6, 0.03, 200)
    other = sigmas * (1 + 3e-7)
    same = [ViewRun(3).rng(float(a)).random() == ViewRun(3).rng(float(b)).random()
            for a, b in zip(sigmas, other, strict=True)]  # fmt: skip
    assert sum(same) >= 198


def test_the_table_knows_every_sampler_of_the_host():
    assert {table._name(comfy.samplers.sampler_object(name)) for name in NAMES} <= SAMPLERS.keys()
    assert set(CLOSED) == {"dpm_fast", "dpm_adaptive", "sa_solver", "uni_pc", "uni_pc_bh2"}
    assert len(OPEN) + len(CLOSED) == len(NAMES)


def test_the_page_says_what_the_table_says():
    page = Path(__file__).resolve().parents[2] / "docs" / "samplers.md"
    rows = re.findall(r"^\| ([a-z][^|]*) \| ([^|]*) \|$", page.read_text(encoding="utf-8"), re.M)
    said = {name: words for names, words in rows[1:] for name in names.split(", ")}
    words = {NOTHING: "exact", X0: "x0|likewise", SLOPES: "slopes"}
    assert said.keys() == {*SAMPLERS, "ddim"}
    for name, known in SAMPLERS.items():
        pattern = words[known.keeps] if isinstance(known, Access) else "refused"
        assert re.search(pattern, said[name])


@pytest.mark.parametrize("kind", ["EPS", "FLOW", "V_PREDICTION"])
@pytest.mark.parametrize("name", OPEN)
def test_changing_nothing_changes_nothing(name, kind):
    model = patcher(textured, kind=kind)
    whole = schedule(model)
    for sigmas in (whole, whole[2:], whole[1:4]):
        plain = sample(model, latent(8, 8, batch=2), sampler=name, sigmas=sigmas.clone())
        ours = sample(model, latent(8, 8, batch=2), sampler=changed(name, same), sigmas=sigmas)
        assert torch.isfinite(plain).all() and torch.equal(plain, ours)


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
@pytest.mark.parametrize("name", ["euler", "heunpp2", "dpmpp_2s_ancestral", "seeds_3", "dpmpp_2m"])
def test_every_schedule_has_one_change_a_step(name, scheduler):
    model, seen = patcher(textured), []

    def note(x, step, run):
        seen.append(step)
        return x

    sigmas = schedule(model, scheduler, 7)
    out = sample(model, latent(8, 8), sampler=changed(name, note), sigmas=sigmas)
    assert torch.equal(out, sample(model, latent(8, 8), sampler=name, sigmas=sigmas))
    assert seen == list(range(len(sigmas) - 1))


@pytest.mark.parametrize("name", ["euler", "heun", "heunpp2", "dpm_2", "lms", "ipndm", "lcm"])
def test_sigmas_may_repeat(name):
    sigmas, seen = torch.tensor([9.0, 4.0, 4.0, 1.0, 0.5, 0.5]), []
    sampler = changed(name, lambda x, step, run: seen.append(step) or x)
    ours = sample(patcher(textured), latent(8, 8), sampler=sampler, sigmas=sigmas)
    plain = sample(patcher(textured), latent(8, 8), sampler=name, sigmas=sigmas)
    assert torch.equal(ours.nan_to_num(7), plain.nan_to_num(7)) and seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("name", OPEN)
def test_the_model_sees_each_change_once_at_its_own_sigma(name, kind):
    model, marks, seen = patcher(textured, kind=kind), [], []

    def mark(x, step, run):
        marks.append((step, float(run.sigmas[step]), x + 0.01 * (step + 1)))
        return marks[-1][2]

    def look(x, sigma, conds):
        seen.append((float(sigma[0]), x.clone()))
        return textured(x, sigma, conds)

    model.model.denoiser = look
    sample(model, latent(8, 8), sampler=changed(name, mark), sigmas=schedule(model), cfg=1.0)
    assert [step for step, _, _ in marks] == list(range(5))
    for _, sigma, x in marks:
        assert any(abs(s - sigma) <= 2e-3 * sigma and torch.equal(x, y[:1]) for s, y in seen)


def without_history(keeps):
    """A denoiser whose steps all leave the same behind, so that history can't tell two runs."""

    def constant(x, sigma, conds):
        return torch.full_like(x, 0.4)

    def straight(x, sigma, conds):
        return x - sigma.view(-1, 1, 1, 1) * 0.4

    return {NOTHING: textured, X0: constant, SLOPES: straight}[keeps]


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("name", OPEN)
def test_a_sampler_goes_on_from_the_changed_picture(name, step):
    """Put into the state of another run, it ends as the other run does."""
    keeps = accepts(name).keeps
    model, states = patcher(without_history(keeps)), []

    def record(x, at, run):
        states.append(x.clone())
        return x

    def put(x, at, run):
        return states[step] if at == step else x

    sigmas = schedule(model, steps=6)[:-1]  # at sigma 0 only x0 would be left
    there = sample(model, latent(8, 8), sampler=changed(name, record), sigmas=sigmas)
    start = {"noise": noise_for((1, 4, 8, 8), 5), "sigmas": sigmas}
    here = sample(model, latent(8, 8, seed=9), sampler=name, **start)
    moved = sample(model, latent(8, 8, seed=9), sampler=changed(name, put), **start)
    assert not torch.allclose(here, there, atol=1e-3)
    assert torch.allclose(moved, there, atol=0 if keeps == NOTHING else 1e-4)


def test_euler_is_the_plain_loop():
    model = patcher(textured)
    sigmas, x = schedule(model)[1:], latent(8, 8)  # a full schedule starts at more than sigma
    noise, scale = noise_for(x.shape, 7), model.model.latent_format.scale_factor

    def pull(x, step, run):
        return 0.9 * x + 0.1 * run.reference(step) - 0.02 * step

    ours = sample(model, x, sampler=changed("euler", pull), sigmas=sigmas, noise=noise, cfg=1.0)
    z = x * scale + sigmas[0] * noise
    for i, (s0, s1) in enumerate(itertools.pairwise(sigmas)):
        z = 0.9 * z + 0.1 * (x * scale + s0 * noise) - 0.02 * i
        x0 = textured(z, s0.view(1), {"context": torch.ones(1, 1, 1)})
        z = z + (z - x0) / s0 * (s1 - s0)
    assert (ours * scale - z).norm() <= 1e-5 * z.norm()


@pytest.mark.parametrize(
    ("name", "options"), [("lms", {"order": 2}), ("ipndm_v", {"max_order": 2})]
)
def test_slopes_of_earlier_steps_are_those_of_their_changed_pictures(name, options):
    """The second order of both is Adams-Bashforth of unequal steps."""
    model = patcher(textured)
    sigmas, x = schedule(model, steps=7)[1:-1], latent(8, 8)
    noise, scale = noise_for(x.shape, 7), model.model.latent_format.scale_factor

    def pull(x, step, run):
        return 0.8 * x + 0.1

    sampler = changed(name, pull, **options)
    ours = sample(model, x, sampler=sampler, sigmas=sigmas, noise=noise, cfg=1.0)
    z, before, last = x * scale + sigmas[0] * noise, None, None
    for s0, s1 in itertools.pairwise(sigmas):
        z = 0.8 * z + 0.1
        slope = (z - textured(z, s0.view(1), {"context": torch.ones(1, 1, 1)})) / s0
        h, r = s1 - s0, 0 if last is None else (s1 - s0) / (2 * last)
        z = z + h * ((1 + r) * slope - (r * before if before is not None else 0))
        before, last = slope, h
    assert (ours * scale - z).norm() <= 1e-4 * z.norm()


@pytest.mark.parametrize("name", ["euler", "ddim", "heun", "dpm_2_ancestral", "sa_solver_pece"])
def test_denoise_masks(name):
    x, mask = latent(16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    plain = sample(patcher(textured), x, sampler=name, denoise_mask=mask)
    ours = sample(patcher(textured), x, sampler=changed(name, same), denoise_mask=mask)
    assert torch.equal(plain, ours)
    moved = changed(name, lambda x, step, run: x + 0.1)
    out = sample(patcher(textured), x, sampler=moved, denoise_mask=mask)
    assert torch.allclose(out[..., 8:], x[..., 8:], atol=1e-4)
    assert not torch.allclose(out[..., :8], plain[..., :8], atol=1e-2)


@pytest.mark.parametrize("name", CLOSED)
def test_what_cannot_be_right_is_refused_with_the_fix(name):
    with pytest.raises(ValueError, match="choose euler"):
        changed(name, same)


def test_other_packs_samplers_are_refused():
    def sample_euler(model, x, sigmas, **options):
        return x

    class Own(comfy.samplers.KSAMPLER):
        pass

    for sampler in (comfy.samplers.KSAMPLER(sample_euler), Own(k_diffusion.sample_euler)):
        with pytest.raises(ValueError, match="not one of ComfyUI's"):
            changed(sampler, same)


def test_ours_inside_another_packs_sampler_is_an_error():
    inner = changed("euler", same)
    outer = comfy.samplers.KSAMPLER(lambda model, x, sigmas, **o: inner.sampler_function(model, x))
    with pytest.raises(ValueError, match="connect it straight to the node"):
        sample(patcher(textured), latent(8, 8), sampler=outer)


@pytest.mark.parametrize("name", ["euler", "heun", "heunpp2", "dpm_2"])
def test_churn_is_refused(name):
    with pytest.raises(ValueError, match="set s_churn to 0"):
        changed(name, same, s_churn=1.0)


@pytest.mark.parametrize(
    "options", [{"use_pece": True}, {"use_pece": True, "corrector_order": 0}, {"use_pece": False}]
)
def test_options_of_the_adams_solver(options):
    sampler = comfy.samplers.KSAMPLER(k_diffusion.sample_sa_solver, options)
    if not options["use_pece"]:
        with pytest.raises(ValueError, match="sa_solver_pece"):
            changed(sampler, same)
        return
    plain = sample(patcher(textured), latent(8, 8), sampler=sampler, steps=6)
    assert torch.equal(
        plain, sample(patcher(textured), latent(8, 8), sampler=changed(sampler, same), steps=6)
    )


@pytest.mark.parametrize(
    "wrong", [Access(), Access(calls=table.three), Access(calls=table.two, last=True)]
)
def test_steps_that_are_not_as_known_are_an_error(monkeypatch, wrong):
    monkeypatch.setitem(SAMPLERS, "heun", wrong)
    with pytest.raises(ValueError, match="not those that HiRes Fusion knows"):
        sample(patcher(textured), latent(8, 8), sampler=changed("heun", same))
