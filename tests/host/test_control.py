"""Every view gets its own part of what ControlNets, adapters, GLIGEN and inpainting show."""

from __future__ import annotations

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_patcher
import comfy.supported_models
import pytest
import torch

from hires_fusion.fusion_ops import lattices
from hires_fusion.sampling.control import view_boxes
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import LocalViews

from . import families
from .halves import CANVAS, HALVES, LATTICES, assert_halves
from .networks import UNET
from .stub import cond, patcher, sample


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
    views = lattices.LatticeSet(2, (32, 32))
    assert view_boxes([(0, 8, 4, 16, 12)], views, 3) == [(0, 4, 2, 8, 6)]


FAMILY = families.FAMILIES["SD 1.5"]


def real_controlnet():
    """A ControlNet of the host's own class with small random weights, for the small SD 1.5."""
    without = ("out_channels", "transformer_depth_output")
    config = {k: v for k, v in UNET.items() if k not in without} | {"num_heads": 8}
    network = comfy.cldm.cldm.ControlNet(hint_channels=3, dtype=torch.float32, **config)
    generator = torch.Generator().manual_seed(6)
    for weight in network.parameters():
        spread = 0.1 if weight.ndim == 1 else weight[0].numel() ** -0.5
        weight.data = spread * torch.randn(weight.shape, generator=generator)
    return comfy.controlnet.ControlNet(network.eval(), load_device=torch.device("cpu"))


def text_of(seed, **options):
    [[embedding, own]] = families.cond(FAMILY, seed)
    return [[embedding, own | options]]


def test_a_real_controlnet_draws_each_half_as_if_alone():
    def conds(columns, seed):
        pixels = slice(columns.start and columns.start * 8, columns.stop and columns.stop * 8)
        return text_of(seed, control=nets[seed].copy().set_cond_hint(image[..., pixels]))

    image = torch.rand((1, 3, CANVAS[0] * 8, CANVAS[1] * 8), generator=torch.Generator())
    net = real_controlnet()
    nets = {2: net, 3: net}
    model = families.tiny(FAMILY)
    assert_halves(model, lambda c: conds(c, 2), negative=lambda c: conds(c, 3), steps=2)


def test_a_real_inpainting_model_draws_each_half_as_if_alone():
    config = FAMILY.unet | {"in_channels": 9}
    family = families.Family("SD15", config, 512, patch=1)
    model = families.tiny(family)
    pixels = torch.rand((1, 4, *CANVAS), generator=torch.Generator())
    mask = (torch.rand((1, 1, *CANVAS), generator=torch.Generator()) > 0.5).float()

    def conds(columns, seed):
        return text_of(
            seed, concat_latent_image=pixels[..., columns], concat_mask=mask[..., columns]
        )

    assert_halves(model, lambda c: conds(c, 2), negative=lambda c: conds(c, 3), steps=2)
