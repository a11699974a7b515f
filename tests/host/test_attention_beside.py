"""Windowed attention beside what hosts and other nodes hang on a MODEL."""

from __future__ import annotations

import functools

import comfy.model_management
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from hires_fusion.sampling.attention import OVERRIDE, WindowedAttention
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import LocalViews

from .attending import FLUX, KNOWN, SD, both, counting, draw, large, windowed
from .families import FAMILIES, cond, latent, tiny


@both
def test_an_override_that_is_there_is_asked_for_every_window(family):
    x = large(family)
    model = tiny(family)
    counted, calls = counting(model)
    assert torch.equal(draw(family, windowed(counted), x), draw(family, windowed(model), x))
    after, later = counting(windowed(model))
    draw(family, after, x)
    assert later == calls and len({batch for batch, *_ in calls}) > 1


@both
@pytest.mark.parametrize("kind", [WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL])
@pytest.mark.parametrize("chains", [False, True])
def test_a_host_that_sets_its_own_override_before_every_call(family, kind, chains):
    seen = []

    def host(executor, *args, **kwargs):
        for options in (*args, kwargs.get("transformer_options")):
            if isinstance(options, dict) and "sigmas" in options:
                there = options.get(OVERRIDE) if chains else None
                options[OVERRIDE] = functools.partial(own, there)
        return executor(*args, **kwargs)

    def own(there, function, q, k, v, *args, **kwargs):
        seen.append(q.shape)
        if there is not None:
            return there(function, q, k, v, *args, **kwargs)
        return function(q, k, v, *args, **kwargs)

    model, x = tiny(family), large(family)
    wanted = draw(family, windowed(model), x)
    for first in (True, False):
        changed = model.clone()
        for step in (0, 1):
            if (step == 0) == first:
                changed.add_wrapper_with_key(kind, "host", host)
            else:
                changed = windowed(changed)
        if kind == WrappersMP.DIFFUSION_MODEL and not first and not chains and family is FLUX:
            continue  # it is inside, and throws away what is outside
        assert torch.equal(draw(family, changed, x), wanted) and seen
        seen.clear()


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - set(KNOWN)))
def test_other_networks_are_refused(name):
    with pytest.raises(ValueError, match=r"doesn't know where .* use Tiled Diffusion"):
        windowed(tiny(FAMILIES[name]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Lumina 2", {"reference_latents": [torch.zeros(1, 16, 8, 8)]}, "remove them from the"),
        ("Qwen-Image", {}, "2 frames or layers"),
    ],
)
def test_what_has_no_one_grid_is_refused_before_the_model_is_called(name, options, message):
    family = FAMILIES[name]
    counted, calls = counting(tiny(family))
    x = large(family)
    x = x.repeat(1, 1, 2, 1, 1) if family.frames else x
    ((text, known),) = cond(family, 2)
    with pytest.raises(ValueError, match=message):
        draw(family, windowed(counted), x, positive=[[text, known | options]])
    assert not calls


def self_attention_guidance(model):
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    return SelfAttentionGuidance.execute(model, 0.5, 2.0)[0]


def hypertile(model):
    from comfy_extras.nodes_hypertile import HyperTile

    return HyperTile.execute(model, 32, 2, 0, False)[0]


def merging(model):
    from comfy_extras.nodes_tomesd import TomePatchModel

    return TomePatchModel.execute(model, 0.3)[0]


@pytest.mark.parametrize("other", [self_attention_guidance, hypertile, merging])
def test_nodes_that_move_the_tokens_are_refused_in_either_order(other):
    for model in (other(windowed(tiny(SD))), windowed(other(tiny(SD)))):
        counted, calls = counting(model)
        with pytest.raises(ValueError, match="changes the self-attention"):
            draw(SD, counted, large(SD))
        assert not calls


@pytest.mark.parametrize("first", [True, False])
def test_perturbed_attention_guidance_keeps_its_own_layer(first):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    def guided(model):
        return PerturbedAttentionGuidance.execute(model, 2.0)[0]

    model, x = tiny(SD), large(SD)
    changed = guided(windowed(model)) if first else windowed(guided(model))
    got = draw(SD, changed, x, steps=1)
    assert not torch.equal(got, draw(SD, windowed(model), x, steps=1))
    native = latent(SD, SD.cells, SD.cells)
    assert torch.equal(draw(SD, changed, native), draw(SD, guided(model), native))


def test_inside_a_view_it_is_nothing():
    model = tiny(SD)
    x = large(SD)
    tiled = add_views(model, local=LocalViews())
    plain = draw(SD, tiled, x)
    for changed in (windowed(tiled), add_views(windowed(model), local=LocalViews())):
        assert torch.equal(plain, draw(SD, changed, x))
    wide = add_views(windowed(model), local=LocalViews(window=2 * SD.cells))
    assert not torch.equal(draw(SD, wide, x), draw(SD, add_views(wide, local=None), x))


def test_a_picture_that_is_shrunk_inside_to_native_size_has_no_windows():
    from comfy_extras.nodes_model_downscale import PatchModelAddDownscale

    model, x = tiny(SD), latent(SD, 2 * SD.cells, 2 * SD.cells)
    whole = (1, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")
    shrunk = PatchModelAddDownscale.execute(model, *whole)[0]
    assert torch.equal(draw(SD, windowed(shrunk), x), draw(SD, shrunk, x))
    assert not torch.equal(draw(SD, windowed(model), x), draw(SD, model, x))


def test_cancel_ends_it_between_steps_and_the_next_run_is_the_same():
    model, x = windowed(tiny(SD)), large(SD)
    wanted = draw(SD, model, x)

    def cancel(step, *_):
        comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        draw(SD, model, x, callback=cancel)
    assert torch.equal(draw(SD, model, x), wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query_block": 0.0}, "blocks are above 0"),
        ({"query_block": 1.5}, "at most 1 window"),
        ({"window": 0.5}, "at least 1 native side"),
    ],
)
def test_settings_that_mean_nothing(settings, message):
    with pytest.raises(ValueError, match=message):
        WindowedAttention(**settings)
