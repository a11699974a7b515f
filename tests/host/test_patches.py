"""Functions that nodes hang on a MODEL: those that views would get wrong are refused before the
first step, the masks of known packs are cut, and everything else runs."""

from __future__ import annotations

import comfy.controlnet
import comfy.hooks
import comfy.model_patcher
import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from hires_fusion.sampling import patches
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews

from . import families, keeping
from .stub import cond, patcher, sample

SD = families.FAMILIES["SD 1.5"]


def random(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def mild(x, sigma, conds):
    text = conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1)
    return torch.tanh(x / (1 + sigma.view(-1, 1, 1, 1))) * (1 + 0.2 * text) + 0.1 * text


def viewed(model, **options):
    return add_views(model, local=LocalViews(jitter=False), **options)


def refused(model, match, **options):
    """Sampling with views ends before the network was called once."""
    calls = []
    if hasattr(model.model, "diffusion_model"):
        model.model.diffusion_model.register_forward_pre_hook(lambda *args: calls.append(1))
    else:
        calls = model.model.calls
    prompts = {"positive": cond(1.0), **options}
    for plan in ({"local": LocalViews()}, {"dilated": DilatedViews(factor=2)}):
        with pytest.raises(ValueError, match=match):
            sample(add_views(model, **plan), torch.zeros(1, 4, 32, 32), **prompts)
    assert calls == []


def test_memory_shared_with_a_function_on_the_canvas_is_refused():
    """What makes Self-Attention Guidance wrong, under any other name and in any other form."""

    def by_variable(model):
        kept = None

        def attend(q, k, v, extra):
            nonlocal kept
            kept = q
            return v

        def after(args):
            return args["denoised"] + 0 * kept.mean()

        model.set_model_attn1_replace(attend, "middle", 0, 0)
        model.set_model_sampler_post_cfg_function(after)

    def by_dictionary(model):
        kept = {}

        def attend(q, k, v, extra):
            kept["q"] = q
            return v

        model.set_model_attn1_replace(attend, "middle", 0, 0)
        model.set_model_sampler_pre_cfg_function(lambda args: args["conds_out"] + [kept])

    def by_list(model):
        kept = []

        def attend(q, k, v, extra):
            kept.append(q)
            return q, k, v

        model.set_model_attn1_patch(attend)
        model.set_model_sampler_cfg_function(lambda args: args["cond"] * len(kept))

    class Recorder:
        def attend(self, q, k, v, extra):
            self.scores = q
            return v

        def after(self, args):
            return args["denoised"] * self.scores.mean()

    def by_object(model):
        recorder = Recorder()
        model.set_model_attn1_replace(recorder.attend, "middle", 0, 0)
        model.set_model_sampler_post_cfg_function(recorder.after)

    for hang in (by_variable, by_dictionary, by_list, by_object):
        model = patcher(mild)
        hang(model)
        refused(model, "leave the node that sets both out")


def test_memory_within_the_network_is_no_matter():
    model, seen = patcher(mild), []
    shared = {"scale": 2.0}

    def first(q, k, v, extra):
        nonlocal seen
        seen = [q.shape]
        return q * shared["scale"], k, v

    model.set_model_attn1_patch(first)
    model.set_model_attn1_output_patch(lambda out, extra: out + len(seen))
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * shared["scale"])
    assert sample(viewed(model), torch.zeros(1, 4, 32, 32)).isfinite().all()


# Patches that hold a place, or keep a call


def holding_mask(model):
    mask = random(1, 32, 32)
    model.set_model_attn2_patch(lambda q, k, v, extra: (q * mask.mean(), k, v))


def holding_image_in_an_object(model):
    class Couple:
        def __init__(self):
            self.regions = [{"image": random(1, 256, 256, 3)}]

        def __call__(self, q, k, v, extra):
            return q, k, v

    model.set_model_attn2_patch(Couple())


def holding_hint_in_a_module(model):
    class Lite(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)
            self.cond_image = random(1, 3, 64, 64)

        def forward(self, q, k, v, extra):
            return q, k, v

    model.set_model_attn1_patch(Lite())


def holding_attention_bias(model):
    bias = random(1, 256, 256)

    def around(apply_model, args):
        return apply_model(args["input"], args["timestep"], **args["c"]) + bias.sum() * 0

    model.set_model_unet_function_wrapper(around)


def named_a_cache(model):
    model.model_options["transformer_options"]["teacache_thresh"] = 0.2


def mask_as_an_option(model):
    model.model_options["transformer_options"]["regions"] = [{"mask": random(1, 64, 64)}]


def wrapper_named_a_cache(model):
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "wavecache", lambda run, *a, **k: run(*a))


def replaced_forward(model):
    latent = random(1, 4, 32, 32)
    model.add_object_patch("diffusion_model.forward", lambda x, *a: x + latent.mean())


def multigpu_of_another(model):
    class DiffSynthCnetPatch:
        encoded_image_size = (64, 64)

    model.set_model_patch(DiffSynthCnetPatch(), "noise_refiner")


WRONG = [
    *(holding_mask, holding_image_in_an_object, holding_hint_in_a_module, holding_attention_bias),
    *keeping.ALL,
    *(named_a_cache, mask_as_an_option, wrapper_named_a_cache, replaced_forward),
    multigpu_of_another,
]


@pytest.mark.parametrize("hang", WRONG)
def test_what_views_would_get_wrong_is_refused(hang):
    model = patcher(mild)
    hang(model)
    with pytest.raises(ValueError, match=r"HiRes Fusion views .*(native-size|leave it out)"):
        patches.check(model.model_options)
        patches.check({"transformer_options": {"wrappers": model.wrappers}})
        patches.check_objects(model.object_patches)
    if hang is not replaced_forward:  # the stub has no network to replace
        refused(model, "HiRes Fusion views")


@pytest.mark.parametrize("hang", keeping.HARMLESS)
def test_what_a_call_hands_on_to_itself_runs(hang):
    model = patcher(mild)
    hang(model)
    patches.check(model.model_options)


def test_a_refusal_names_the_pack():
    def around(apply_model, args):
        return mask

    mask = random(1, 64, 64)
    around.__module__ = "/x/custom_nodes/ComfyUI-Couple.nodes"
    model = patcher(mild)
    model.set_model_unet_function_wrapper(around)
    refused(model, r"'.*around' \(pack ComfyUI-Couple\): it holds 'mask' \(1, 64, 64\)")


def test_patches_of_hooks_are_judged_too():
    mask = random(1, 32, 32)
    held = {"patches": {"attn2_patch": [lambda q, k, v, extra: (q * mask.mean(), k, v)]}}
    hooks = comfy.hooks.HookGroup()
    hooks.add(comfy.hooks.TransformerOptionsHook(held))
    refused(patcher(mild), "'mask'", positive=cond(1.0, hooks=hooks))


def weights_and_embeddings(model):
    lora, embeds = torch.randn(64, 64), torch.randn(1, 16, 768)
    zeros, strength = torch.zeros(1, 16, 768), [0.5]
    layer = torch.nn.Conv2d(3, 3, 3)

    def attend(q, k, v, extra):
        return q + lora.sum() + embeds.sum() + zeros.sum() + strength[0] + layer.weight.sum(), k, v

    model.set_model_attn2_patch(attend)


def options_of_numbers(model):
    options = model.model_options["transformer_options"]
    options["style"] = {"strength": 0.5, "blocks": [1, 2], "name": "soft"}


def wrappers_that_count(model):
    calls = 0

    class Meter:
        def __init__(self):
            self.calls, self.sizes = 0, {}

        def count(self, run, *args, **kwargs):
            self.calls += 1
            self.sizes[args[0].shape] = len(args)
            return run(*args, **kwargs)

    def around(apply_model, args):
        nonlocal calls
        calls += 1
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "meter", Meter().count)
    model.set_model_unet_function_wrapper(around)


def wrappers_that_measure(model):
    times = []

    def around(run, *args, **kwargs):
        times.append(len(times))
        return run(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "timer", around)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "cache", around)


def another_sampling(model):
    model.add_object_patch("model_sampling", model.get_model_object("model_sampling"))


@pytest.mark.parametrize(
    "hang",
    [
        *(weights_and_embeddings, options_of_numbers, wrappers_that_count),
        *(wrappers_that_measure, another_sampling),
    ],
)
def test_what_is_harmless_runs(hang):
    model = patcher(mild)
    hang(model)
    assert sample(viewed(model), torch.zeros(1, 4, 32, 32)).isfinite().all()


def style_aligned(model):
    """As that pack does: every picture of a call also looks at the first one of its prompt."""

    def patch(q, k, v, extra):
        half = k.shape[0] // len(extra["cond_or_uncond"])
        first = torch.arange(k.shape[0]) // half * half
        return q, torch.cat([k, k[first]], 1), torch.cat([v, v[first]], 1)

    model.set_model_attn1_patch(patch)


def mixing_around_calls(model):
    def around(apply_model, args):
        out = apply_model(args["input"], args["timestep"], **args["c"])
        return 0.5 * (out + out.mean(0, keepdim=True))

    model.set_model_unet_function_wrapper(around)


def mixing_around_the_network(model):
    def around(executor, *args, **kwargs):
        out = executor(*args, **kwargs)
        return 0.5 * (out + out.mean(0, keepdim=True))

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "mixing", around)


def mixing_in_a_part_of_the_model(model):
    model.add_object_patch("diffusion_model.out", mixing_module(model.model.diffusion_model.out))


def mixing_module(inner):
    class Mixing(torch.nn.Module):
        def forward(self, x):
            out = inner(x)
            return 0.5 * (out + out.mean(0, keepdim=True))

    return Mixing()


@pytest.mark.parametrize(
    "hang",
    [style_aligned, mixing_around_calls, mixing_around_the_network, mixing_in_a_part_of_the_model],
)
def test_what_looks_at_all_pictures_of_a_call_sees_no_two_views(hang):
    model = families.tiny(SD)
    x = families.latent(SD, 24, 28, batch=2)
    prompts = {"positive": families.cond(SD, 2), "negative": families.cond(SD, 3), "steps": 2}
    plain = sample(viewed(model), x, **prompts)
    hang(model)
    few, many = (sample(viewed(model, view_batch_size=n), x, **prompts) for n in (1, 4))
    assert (many - few).abs().max() <= 1e-5 * few.abs().max() < (few - plain).abs().max()
