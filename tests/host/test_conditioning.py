"""Every view gets exactly its own part of the conditioning.

The oracle: windows that don't overlap, over a canvas of two native pictures side by side, must
give what the plain host gives for each half with that half's conditioning.
"""

from __future__ import annotations

import comfy.conds
import comfy.controlnet
import comfy.hooks
import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import pytest
import torch

from hires_fusion.fusion_ops import views as geometry
from hires_fusion.sampling import conditioning
from hires_fusion.sampling.conditioning import GLOBAL, LOCAL, PATH
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews

from .stub import cond, patcher, sample

NATIVE = 16
CANVAS = (NATIVE, 2 * NATIVE)
HALVES = (slice(0, NATIVE), slice(NATIVE, None))
LATTICES = DilatedViews(factor=2, cosine_scale_2=0, sigma=1e-3)  # no windows, no blur


def noise(height, width, seed=3):
    return torch.randn((1, 4, height, width), generator=torch.Generator().manual_seed(seed))


def assert_halves(model, conds, steps=2, **options):
    """`conds(columns)` makes the positive CONDITIONING of a range of the canvas' columns."""
    tiled = add_views(model, local=LocalViews(stride=NATIVE, jitter=False))
    start, empty = noise(*CANVAS), torch.zeros(1, 4, *CANVAS)
    settings = {"steps": steps, "cfg": 2.0, "negative": cond(-1.0), **options}
    negative = settings.pop("negative")
    full = sample(
        tiled,
        empty,
        noise=start,
        positive=conds(slice(None)),
        negative=negative(slice(None)) if callable(negative) else negative,
        **settings,
    )
    halves = [
        sample(
            model,
            empty[..., half],
            noise=start[..., half].clone(),
            positive=conds(half),
            negative=negative(half) if callable(negative) else negative,
            **settings,
        )
        for half in HALVES
    ]
    expected = torch.cat(halves, dim=-1)
    assert (halves[0] - halves[1]).abs().max() > 1e-3 * expected.abs().max()
    assert (full - expected).abs().max() <= 1e-4 * expected.abs().max()


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


class HintNetwork(torch.nn.Module):
    """A control network that answers with its hint, averaged to cells."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, x, hint, timesteps, context, **kwargs):
        self.shapes.append(tuple(hint.shape))
        cells = torch.nn.functional.adaptive_avg_pool2d(hint, x.shape[-2:])
        if len(cells) != len(x):
            cells = cells.repeat(len(x) // len(cells), 1, 1, 1)
        return {"output": [cells.mean(1, keepdim=True).expand(-1, 4, -1, -1).clone()]}


def follow(x, sigma, conds):
    """x0 is what the control says."""
    control = conds["control"]["output"]
    return control[0].expand_as(x).clone()


def picture(height=CANVAS[0] * 8, width=CANVAS[1] * 8):
    """Hint whose value is its place, (1, 3, H, W)."""
    rows = torch.arange(height)[:, None] * 0.01
    return (rows + torch.arange(width)[None, :] * 0.001)[None, None].repeat(1, 3, 1, 1)


def linked(image, **options):
    net = comfy.controlnet.ControlNet(HintNetwork(), load_device=torch.device("cpu"), **options)
    return net.set_cond_hint(image, strength=options.get("strength", 1.0))


def test_a_control_image_is_cut_for_windows():
    def conds(columns):
        pixels = slice(columns.start and columns.start * 8, columns.stop and columns.stop * 8)
        return cond(1.0, control=linked(picture()[..., pixels]), control_apply_to_uncond=True)

    assert_halves(patcher(follow), conds)


def test_a_control_image_of_any_size_is_scaled_to_the_canvas():
    image = linked(picture(64, 128))
    positive = cond(1.0, control=image, control_apply_to_uncond=True)
    model = add_views(patcher(follow), local=LocalViews(border="clamp"))
    settings = {"cfg": 1.0, "positive": positive, "steps": 1}
    viewed = sample(model, torch.zeros(1, 4, *CANVAS), **settings)
    plain = sample(patcher(follow), torch.zeros(1, 4, *CANVAS), **settings)
    assert (plain - viewed).abs().max() <= 1e-4 * plain.abs().max()
    assert image.cond_hint is None and image.cond_hint_original.shape[-1] == 128


@pytest.mark.parametrize("canvas", [(32, 32), (31, 40)])
def test_a_control_image_is_cut_for_lattices(canvas):
    positive = cond(1.0, control=linked(picture(canvas[0] * 8, canvas[1] * 8)))
    settings = {"cfg": 1.0, "positive": positive, "steps": 1}
    empty = torch.zeros(1, 4, *canvas)
    plain = sample(patcher(follow), empty, **settings)
    viewed = sample(add_views(patcher(follow), dilated=LATTICES), empty, **settings)
    scale = patcher(follow).model.latent_format.scale_factor
    # An inner cell's middle lies half a pixel beside the pixels' middle; edges repeat.
    inner = (plain - viewed)[..., 1:-1, 1:-1].abs().max() * scale
    assert inner <= 0.0055 + 1e-3


def test_chained_controls_and_adapters_are_cut_each():
    class Adapter(torch.nn.Module):
        unshuffle_amount, input_channels = 8, 3

        def forward(self, hint):
            cells = torch.nn.functional.avg_pool2d(hint, 8).mean(1, keepdim=True)
            return {"output": [10 * cells.expand(-1, 4, -1, -1)]}

    def conds(columns):
        pixels = slice(columns.start and columns.start * 8, columns.stop and columns.stop * 8)
        adapter = comfy.controlnet.T2IAdapter(Adapter(), 3, 8, "nearest-exact", device="cpu")
        adapter.set_cond_hint(picture()[..., pixels])
        first = linked(picture().flip(-1)[..., pixels])
        second = linked(picture().flip(-2)[..., pixels])
        second.set_previous_controlnet(adapter.set_previous_controlnet(first))
        return cond(1.0, control=second, control_apply_to_uncond=True)

    assert_halves(patcher(follow), conds)


def test_control_through_a_vae_is_encoded_once_for_the_canvas():
    encoded = []

    class Vae:
        def spacial_compression_encode(self):
            return 8

        def encode(self, pixels):
            encoded.append(tuple(pixels.shape))
            return torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)

    def conds(columns):
        pixels = slice(columns.start and columns.start * 8, columns.stop and columns.stop * 8)
        net = linked(picture()[..., pixels], compression_ratio=1, concat_mask=True)
        net.latent_format = comfy.supported_models.latent_formats.SDXL()
        mask = torch.ones(1, 1, *CANVAS)
        mask[..., 20:] = 0
        cut = mask[..., columns].repeat_interleave(8, -1).repeat_interleave(8, -2)
        net.set_cond_hint(picture()[..., pixels], vae=Vae(), extra_concat=[cut])
        return cond(1.0, control=net, control_apply_to_uncond=True)

    assert_halves(patcher(follow), conds, steps=3)
    assert sum(shape[2] == CANVAS[1] * 8 for shape in encoded) == 1


def test_a_control_without_an_image_is_refused_before_sampling():
    net = comfy.controlnet.ControlNet(HintNetwork(), load_device=torch.device("cpu"))
    model = add_views(patcher(follow), local=LocalViews())
    with pytest.raises(ValueError, match="native-size stage only"):
        sample(model, torch.zeros(1, 4, *CANVAS), positive=cond(1.0, control=net))
    assert model.model.calls == []


def test_gligen_boxes_follow_the_views():
    from comfy.gligen import GatedSelfAttentionDense, Gligen, PositionNet

    torch.manual_seed(0)
    gligen = Gligen([GatedSelfAttentionDense(4, 8, 1, 4)], PositionNet(8, 8), 8)
    for weight in gligen.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    cpu = torch.device("cpu")
    net = comfy.model_patcher.ModelPatcher(gligen, cpu, cpu)

    def attend(x, sigma, conds):
        patches = conds["transformer_options"].get("patches", {}).get("middle_patch", [])
        tokens = x.flatten(2).transpose(1, 2)
        for patch in patches:
            tokens = patch(tokens, {"transformer_index": 0})
        return tokens.transpose(1, 2).reshape(x.shape)

    embedding = torch.randn(1, 8)

    def conds(columns):
        places = [(5, 9, 3, 2), (8, 12, 4, 10)]  # height, width, y, x
        if columns == HALVES[0]:
            places = [(5, 9, 3, 2), (8, 6, 4, 10)]
        elif columns == HALVES[1]:
            places = [(8, 6, 4, 0)]
        return cond(1.0, gligen=("position", net, [(embedding, *box) for box in places]))

    assert_halves(patcher(attend), conds, cfg=1.0, steps=1)
    views = geometry.LatticeSet(2, (32, 32))
    assert conditioning_boxes([(0, 8, 4, 16, 12)], views) == [(0, 4, 2, 8, 6)]


def conditioning_boxes(boxes, views):
    from hires_fusion.sampling.control import view_boxes

    return view_boxes(boxes, views, 3)


def test_reference_latents_of_the_canvas_are_cut_and_others_shared():
    whole, other = torch.rand(1, 4, *CANVAS), torch.rand(1, 4, 8, 8)
    views = geometry.WindowSet(geometry.windows(CANVAS, NATIVE, NATIVE), CANVAS)
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
    places = geometry.windows((48, 32), NATIVE, 8)
    views = geometry.WindowSet(places, (48, 32))
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
