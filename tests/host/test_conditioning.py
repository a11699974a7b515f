"""Every view gets exactly its own part of the conditioning."""

from __future__ import annotations

import comfy.conds
import comfy.controlnet
import comfy.hooks
import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import pytest
import torch

from hires_fusion.fusion_ops import windows
from hires_fusion.sampling import conditioning
from hires_fusion.sampling.conditioning import GLOBAL, LOCAL, PATH
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews

from .halves import CANVAS, LATTICES, NATIVE, assert_halves
from .stub import cond, patcher, sample


def text(x, sigma, conds):
    """x0 is what the prompt says, everywhere."""
    return conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(x).clone()


AREA = {"area": (9, 17, 2, 6)}  # height, width, top, left


@pytest.mark.parametrize("dilated", [False, True])
@pytest.mark.parametrize(
    "regions",
    [
        lambda: cond(9.0, **AREA) + cond(2.0),
        lambda: cond(9.0, area=("percentage", 0.4, 0.9, 0.3, 0.05)) + cond(2.0),
        lambda: cond(9.0, strength=0.5, **AREA) + cond(5.0, mask=torch.ones(1, 8, 8)),
        lambda: cond(9.0, mask=torch.rand(1, 40, 30), mask_strength=0.7) + cond(1.0),
        lambda: cond(9.0, mask=torch.eye(40)[None], **AREA) + cond(1.0),
        lambda: cond(9.0, mask=torch.eye(40)[None]) + cond(1.0, default=True),
        lambda: cond(9.0, start_percent=0.5, end_percent=1.0) + cond(2.0, end_percent=0.9),
    ],
    ids=["area", "percentage", "strength", "mask", "mask and area", "default", "timesteps"],
)
def test_regions_are_where_the_host_puts_them(regions, dilated):
    torch.manual_seed(0)
    positive = regions()
    plan = {"dilated": LATTICES} if dilated else {"local": LocalViews(border="clamp")}
    empty = torch.zeros(1, 4, 40, 33)
    settings = {"cfg": 1.0, "positive": positive, "steps": 2}
    plain = sample(patcher(text), empty, **settings)
    viewed = sample(add_views(patcher(text), **plan), empty, **settings)
    # 8 times the blur's normalisation error of the lattices
    assert (plain - viewed).abs().max() <= (2e-3 if dilated else 1e-5) * plain.abs().max()


def test_views_that_a_region_does_not_touch_cost_nothing():
    region = torch.zeros(1, *CANVAS)
    region[..., 2:7] = 1
    model = add_views(
        patcher(text), local=LocalViews(stride=NATIVE, jitter=False), view_batch_size=1
    )
    settings = {"cfg": 1.0, "steps": 1}
    sample(
        model, torch.zeros(1, 4, *CANVAS), positive=cond(2.0, mask=region) + cond(1.0), **settings
    )
    assert sum(len(x) for x in model.model.calls) == 3  # two windows, one of them with both


def test_reference_latents_of_the_canvas_are_cut_and_others_shared():
    whole, other = torch.rand(1, 4, *CANVAS), torch.rand(1, 4, 8, 8)
    views = windows.WindowSet(windows.windows(CANVAS, NATIVE, NATIVE), CANVAS)
    listed = {"ref_latents": comfy.conds.CONDList([whole, other])}
    cut = conditioning.for_views(
        None, [[{"model_conds": listed}]], views, torch.zeros(1, 4, *CANVAS), slice(1, 2)
    )
    got = cut[0][0]["model_conds"]["ref_latents"].cond
    assert torch.equal(got[0], whole[..., NATIVE:]) and torch.equal(got[1], other)


def test_attention_patches_keep_their_conds_apart():
    """What IPAdapter-like patches rely on: chunks of the batch in the order of cond_or_uncond."""

    def attend(x, sigma, conds):
        options = conds["transformer_options"]
        chunks = x.chunk(len(options["cond_or_uncond"]))
        parts = [
            chunk * 0 + kind for chunk, kind in zip(chunks, options["cond_or_uncond"], strict=True)
        ]
        return torch.cat(parts) + 0.1 * x

    assert_halves(patcher(attend), lambda columns: cond(1.0))


def test_hooks_act_on_their_own_cond():
    hook = comfy.hooks.TransformerOptionsHook(
        {"hooked": {"mark": 5}}, hook_scope=comfy.hooks.EnumHookScope.HookedOnly
    )
    hooks = comfy.hooks.HookGroup()
    hooks.add(hook)

    def marked(x, sigma, conds):
        return text(x, sigma, conds) + conds["transformer_options"].get("hooked", {}).get("mark", 0)

    region = torch.zeros(1, *CANVAS)
    region[..., 20:] = 1
    positive = cond(1.0, mask=region, hooks=hooks) + cond(2.0, mask=1 - region)
    settings = {"cfg": 1.0, "positive": positive, "steps": 1}
    empty = torch.zeros(1, 4, *CANVAS)
    plain = sample(patcher(marked), empty, **settings)
    viewed = sample(add_views(patcher(marked), local=LocalViews()), empty, **settings)
    assert (plain - viewed).abs().max() <= 1e-5 * plain.abs().max()
    assert plain[..., 20:].min() > 2 * plain[..., :20].max()


def test_local_and_global_prompts_reach_their_views():
    positive = [[torch.full((1, 1, 1), v), {PATH: p}] for v, p in ((3.0, GLOBAL), (7.0, LOCAL))]
    settings = {"cfg": 1.0, "positive": positive, "steps": 1}
    scale = patcher(text).model.latent_format.scale_factor
    cases = [
        ({"local": LocalViews()}, (32, 32), 7.0),
        ({"dilated": LATTICES}, (32, 32), 3.0),
        ({"local": LocalViews(), "dilated": DilatedViews()}, (16, 16), 3.0),
    ]
    for plan, canvas, expected in cases:
        out = sample(add_views(patcher(text), **plan), torch.zeros(1, 4, *canvas), **settings)
        assert torch.allclose(out * scale, torch.tensor(expected), atol=1e-2)


def sdxl_vector(**sizes):
    config = comfy.supported_models.SDXL({"disable_unet_model_creation": True})
    model = comfy.model_base.SDXL(config)
    return model, model.encode_adm(pooled_output=torch.ones(1, 8), width=256, height=384, **sizes)


@pytest.mark.parametrize(("crop", "margin"), [("position", 0), ("padded", 2), ("canvas", None)])
def test_sdxl_crop_coordinates_of_a_window(crop, margin):
    model, y = sdxl_vector()
    places = windows.windows((48, 32), NATIVE, 8)
    views = windows.WindowSet(places, (48, 32))
    conds = [[{"model_conds": {"y": comfy.conds.CONDRegular(y)}}], None]
    offset = LocalViews(crop=crop).crop_offset(NATIVE)
    assert offset == margin
    x = torch.zeros(2, 4, 48, 32)
    cut = conditioning.for_views(model, conds, views, x, slice(3, 5), offset)
    got = cut[0][0]["model_conds"]["y"].cond
    if margin is None:
        assert torch.equal(got, y)
        return
    assert got.shape == (4, y.shape[-1]) and cut[1] is None
    for row, place in enumerate(places[3:5]):
        place = {"crop_w": (place.left + margin) * 8, "crop_h": (place.top + margin) * 8}
        expected = sdxl_vector(**place)[1]
        assert torch.equal(got[2 * row], expected[0]) and torch.equal(got[2 * row + 1], expected[0])
