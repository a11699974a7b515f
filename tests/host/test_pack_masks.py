"""Attention masks of IPAdapter, masks of Advanced-ControlNet and inpainting ControlNets: known by
their form, and cut for views."""

from __future__ import annotations

import comfy.controlnet
import comfy.hooks
import comfy.latent_formats
import pytest
import torch

from hires_fusion.fusion_ops import lattices
from hires_fusion.sampling import patches
from hires_fusion.sampling.control import links, pack_masks
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import LocalViews

from .halves import CANVAS, LATTICES, NATIVE, assert_halves
from .stub import cond, patcher, sample
from .test_control import HintNetwork, follow, linked, picture
from .test_patches import mild, random, refused

# IPAdapter and its kin, known by their form


class Attn2Replace:
    """What IPAdapter hangs on attention: functions and what each of them is given."""

    def __init__(self, callback, **kwargs):
        self.callback, self.kwargs = [callback], [kwargs]

    def add(self, callback, **kwargs):
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def __call__(self, q, k, v, extra_options):
        out = v.mean(1, keepdim=True).expand_as(q).clone()
        for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
            out = out + callback(q, extra_options, **kwargs)
        return out


def to_size(source, size):
    missing = [source[-1:]] * (size - len(source))
    return torch.cat([source, *missing])[:size]


def attention(q, extra_options, weight=1.0, cond=None, mask=None, unfold_batch=False):
    """The parts of such a function that depend on the batch and the canvas."""
    conds = len(extra_options["cond_or_uncond"])
    pictures = len(q) // conds
    height, width = extra_options["original_shape"][-2:]
    rows = round((q.shape[1] * height / width) ** 0.5)
    if unfold_batch:
        cond = to_size(cond, pictures).repeat(conds, 1, 1)
    if torch.is_tensor(weight):
        weight = to_size(weight, pictures).repeat(conds, 1, 1)
    mask = torch.nn.functional.interpolate(
        mask[:, None], (rows, q.shape[1] // rows), mode="bilinear"
    )[:, 0]
    mask = to_size(mask, pictures).repeat(conds, 1, 1).flatten(1)
    return weight * mask[..., None] * cond.mean(dim=(1, 2)).view(-1, 1, 1)


def attending(x, sigma, conds):
    """A network of one attention layer, over its cells."""
    options = conds["transformer_options"]
    tokens = x.flatten(2).transpose(1, 2)
    extra = {**options, "original_shape": list(x.shape)}
    out = options["patches_replace"]["attn2"][("middle", 0, 0)](tokens, tokens, tokens, extra)
    return 0.1 * x + out.transpose(1, 2).reshape(x.shape)


def adapted(**given):
    model = patcher(attending)
    patch = Attn2Replace(attention, cond=torch.full((1, 2, 3), 0.5), **given)
    patch.add(attention, cond=torch.full((1, 2, 3), 0.25), mask=torch.ones(1, 8, 8))
    model.set_model_attn2_replace(patch, "middle", 0, 0)
    return model, patch


def x0_is_local(model, expected, batch=1, **plan):
    """One step at cfg 1 with every kind of view equals what the mask says, cell by cell."""
    scale = model.model.latent_format.scale_factor
    for most in (1, 0):
        made = add_views(model, view_batch_size=most, **plan)
        noise = torch.zeros(batch, 4, *CANVAS)
        out = sample(made, torch.zeros(batch, 4, *CANVAS), noise=noise, steps=1, cfg=1.0)
        assert torch.allclose(out[:, 0] * scale, expected, atol=1e-2)


PLANS = [{"local": LocalViews(stride=NATIVE, jitter=False)}, {"dilated": LATTICES}]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("ratio", [1, 8])
def test_attention_masks_are_cut(plan, ratio):
    cells = random(1, *CANVAS).round()
    mask = cells.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
    model, patch = adapted(mask=mask)
    x0_is_local(model, 0.5 * cells + 0.25, **plan)
    assert patch.kwargs[0]["mask"] is mask  # the user's own is as it was


def test_attention_masks_of_another_size_are_scaled_to_the_canvas():
    mask = torch.zeros(1, 4, 4)
    mask[:, :, 2:] = 1
    model, _ = adapted(mask=mask)
    made = add_views(model, **PLANS[0])
    noise = torch.zeros(1, 4, *CANVAS)
    out = sample(made, noise, noise=noise.clone(), steps=1, cfg=1.0)
    got = out[0, 0] * model.model.latent_format.scale_factor
    assert torch.allclose(got[:, :8], torch.tensor(0.25), atol=1e-2)
    assert torch.allclose(got[:, 24:], torch.tensor(0.75), atol=1e-2)


@pytest.mark.parametrize("plan", PLANS)
def test_embeddings_weights_and_masks_of_a_batch_stay_with_their_pictures(plan):
    cells = random(2, *CANVAS).round()
    model = patcher(attending)
    per_picture = torch.tensor([1.0, 3.0]).view(2, 1, 1).expand(2, 2, 3)
    weight = torch.tensor([0.5, 0.25]).view(2, 1, 1)
    given = {"cond": per_picture, "weight": weight, "mask": cells, "unfold_batch": True}
    model.set_model_attn2_replace(Attn2Replace(attention, **given), "middle", 0, 0)
    right = cells * torch.tensor([0.5, 0.75]).view(2, 1, 1)
    x0_is_local(model, right, batch=2, **plan)
    # A third picture takes the last ones, as the pack does.
    x0_is_local(model, torch.cat([right, right[1:]]), batch=3, **plan)


def test_an_attention_mask_inside_a_hook_is_refused():
    patch = Attn2Replace(attention, cond=torch.ones(1, 2, 3), mask=torch.ones(1, 8, 8))
    held = {"patches_replace": {"attn2": {("middle", 0, 0): patch}}}
    hooks = comfy.hooks.HookGroup()
    hooks.add(comfy.hooks.TransformerOptionsHook(held))
    refused(patcher(mild), "inside a hook", positive=cond(1.0, hooks=hooks))


# ControlNets


class Keyframe:
    def __init__(self, mask_hint_orig=None, latent_keyframes=None, control_weights=None):
        self.mask_hint_orig = mask_hint_orig
        self.latent_keyframes = latent_keyframes
        self.control_weights = control_weights


class Weights:
    def __init__(self, weight_mask=None):
        self.weight_mask = weight_mask


class Advanced(comfy.controlnet.ControlNet):
    """A link as Advanced-ControlNet makes them: masks at any size, scaled to pixels per call."""

    def __init__(self, mask=None, keyframes=(), weights=None):
        super().__init__(HintNetwork(), load_device=torch.device("cpu"))
        self.mask_cond_hint_original, self.mask_cond_hint = mask, None
        self.tk_mask_cond_hint_original, self.tk_mask_cond_hint = None, None
        self.weights_override, self.weight_mask_cond_hint = weights, None
        self.timestep_keyframes = type("Group", (), {"keyframes": list(keyframes)})()
        self.latent_keyframe_override = None

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        control = super().get_control(x_noisy, t, cond, batched_number, transformer_options)
        self.masks(x_noisy, batched_number, control["output"])
        return control

    def masks(self, x, batched, outputs):
        kept = [("mask_cond_hint", self.mask_cond_hint_original)]
        kept += [("tk_mask_cond_hint", k.mask_hint_orig) for k in self.timestep_keyframes.keyframes]
        if self.weights_override:
            kept += [("weight_mask_cond_hint", self.weights_override.weight_mask)]
        for name, original in (pair for pair in kept if pair[1] is not None):
            made = getattr(self, name)
            if made is None or made.shape[-2:] != x.shape[-2:]:
                size = [side * 8 for side in x.shape[-2:]]
                made = torch.nn.functional.interpolate(original[:, None], size, mode="bilinear")
                made = torch.nn.functional.avg_pool2d(made, 8)
                made = to_size(made, len(x) // batched).repeat(batched, 1, 1, 1)
                setattr(self, name, made)
            for out in outputs:
                out *= made


@pytest.mark.parametrize("kind", ["own", "keyframe", "weight"])
@pytest.mark.parametrize("ratio", [1, 8])
def test_masks_of_advanced_controlnet_are_cut(kind, ratio):
    cells = random(1, *CANVAS).round()

    def conds(columns):
        mask = cells[..., columns].repeat_interleave(8, 1).repeat_interleave(8, 2)
        mask = torch.nn.functional.avg_pool2d(mask[None], 8 // ratio)[0]
        net = {
            "own": lambda: Advanced(mask),
            "keyframe": lambda: Advanced(keyframes=[Keyframe(mask)]),
            "weight": lambda: Advanced(weights=Weights(mask)),
        }[kind]()
        pixels = slice(columns.start and columns.start * 8, columns.stop and columns.stop * 8)
        net.set_cond_hint(picture()[..., pixels] + 1)
        return cond(1.0, control=net, control_apply_to_uncond=True)

    if ratio == 8:
        assert_halves(patcher(follow), conds)
    positive = conds(slice(None))
    link = positive[0][1]["control"]
    before = [getattr(one, name) for one, name in _masks_of(link)]
    empty = torch.zeros(1, 4, *CANVAS)
    settings = {"cfg": 1.0, "steps": 1, "positive": positive}
    near = 1e-4 if ratio == 8 else 0.3  # bilinear: masks of cells have soft edges at the cuts
    plain = sample(patcher(follow), empty, **settings)
    for most in (1, 0):
        made = add_views(patcher(follow), **PLANS[0], view_batch_size=most)
        assert (plain - sample(made, empty, **settings)).abs().max() <= near * plain.abs().max()
    assert all(a is getattr(*b) for a, b in zip(before, _masks_of(link), strict=True))
    assert link.mask_cond_hint is None and link.weight_mask_cond_hint is None


def _masks_of(link):
    found = pack_masks(link)
    assert len(found) == 1
    return found


def test_links_that_count_pictures_or_hold_unknown_masks_are_refused():
    frames = [Keyframe(latent_keyframes=[0, 2])]
    strange = Advanced()
    strange.attn_mask = random(1, 64, 64)
    sparse, lite = Advanced(), Advanced()
    sparse.sparse_settings, lite.patch_attn1 = object(), object()
    overridden = Advanced()
    overridden.latent_keyframe_override = [1]
    cases = [
        (Advanced(keyframes=frames), "latent keyframes"),
        (overridden, "latent keyframes"),
        (strange, "'attn_mask'"),
        (sparse, "native-size stage only"),
        (lite, "attention patches"),
    ]
    for net, match in cases:
        net.set_cond_hint(picture())
        refused(patcher(follow), match, positive=cond(1.0, control=net))


def test_copies_for_other_devices_show_the_view_too():
    first, copied = linked(picture()), linked(picture())
    first.multigpu_clones = {torch.device("meta"): copied}
    assert links([[{"control": first}]]) == [first, copied]


class Framed(HintNetwork):
    """Answers with its 5-D hint's last channel, the mask, plus a tenth of the others."""

    def forward(self, x, hint, timesteps, context, **kwargs):
        self.shapes.append(tuple(hint.shape))
        seen = hint[:, -1:] + 0.1 * hint[:, :-1].mean(1, keepdim=True)
        seen = seen.repeat(len(x) // len(seen), 1, 1, 1, 1)
        return {"output": [seen.expand(-1, 4, -1, -1, -1).clone()]}


@pytest.mark.parametrize("most", [1, 0])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("frames", [1, 2])
def test_an_inpainting_controlnet_with_frames_has_its_mask_cut(plan, most, frames):
    """Qwen-Image's: the VAE makes (B, C, T, h, w) of the hint, the mask has (B, 1, H, W)."""

    class Vae:
        def spacial_compression_encode(self):
            return 8

        def encode(self, pixels):
            cells = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
            return cells[:, :, None].repeat(1, 1, frames, 1, 1)

    net = comfy.controlnet.ControlNet(
        Framed(), load_device=torch.device("cpu"), compression_ratio=1, concat_mask=True
    )
    net.latent_format = comfy.latent_formats.Wan21()
    net.latent_format.process_in = lambda latent: latent
    mask = random(1, 1, *CANVAS).round()
    pixels = mask.repeat_interleave(8, -1).repeat_interleave(8, -2)
    net.set_cond_hint(picture(), vae=Vae(), extra_concat=[pixels])
    empty = torch.zeros(1, 4, frames, *CANVAS)
    settings = {"cfg": 1.0, "steps": 1, "positive": cond(1.0, control=net), "noise": empty}
    plain = sample(patcher(follow), empty, **settings)
    viewed = sample(add_views(patcher(follow), view_batch_size=most, **plan), empty, **settings)
    assert (plain - viewed).abs().max() <= 2e-3 * plain.abs().max()
    right = mask + 0.1 * torch.nn.functional.avg_pool2d(picture()[:, :1], 8)
    scale = patcher(follow).model.latent_format.scale_factor
    assert torch.allclose(viewed[:, 0] * scale, right.expand(1, frames, *CANVAS), atol=1e-2)


def test_the_maker_of_views_is_unharmed():
    """`for_views` gives back the very options where nothing is to be cut."""
    options = {"transformer_options": {"patches": {"attn1_patch": [mild]}}}
    views = lattices.LatticeSet(2, (32, 32))
    assert patches.for_views(options, views, 1, slice(None)) is options
