"""What depends on the canvas: every kind of it is cut, or refused before the first step."""

from __future__ import annotations

import dataclasses

import comfy.conds
import comfy.controlnet
import comfy.hooks
import comfy.model_base
import comfy.supported_models
import pytest
import torch

from hires_fusion.fusion_ops import lattices, windows
from hires_fusion.sampling import conditioning, table
from hires_fusion.sampling.cuts import Cutter
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import LocalViews

from .families import FAMILIES, Family, tiny
from .families import cond as family_cond
from .families import latent as family_latent
from .halves import CANVAS, LATTICES, NATIVE
from .networks import WAN
from .stub import patcher, sample

WINDOWS = windows.WindowSet(windows.windows(CANVAS, NATIVE, NATIVE), CANVAS)
VIEWS = [WINDOWS, lattices.LatticeSet(2, (32, 32)), lattices.LatticeSet(2, (33, 30), 2)]
ALL = slice(None)


def text(x, sigma, conds):
    """x0 is what the prompt says, everywhere."""
    return conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(x).clone()


def tiled(model, **options):
    return add_views(model, local=LocalViews(stride=NATIVE, jitter=False), **options)


def random(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def assert_family_halves(family, conds, frames=1, **options):
    """`assert_halves` on a small model of the host's own class. `conds(columns)` makes what its
    CONDITIONING holds for a range of the canvas' columns, `options` likewise."""
    model = tiny(family)
    side = family.cells
    full = torch.cat([family_latent(family, side, 2 * side)] * frames, dim=2)
    halves = [slice(0, side), slice(side, 2 * side)]

    def run(model, columns):
        own = dataclasses.replace(family, options={**family.options, **conds(columns)})
        x = full[..., columns].clone()
        prompts = {"positive": family_cond(own, 2), "negative": family_cond(own, 3)}
        given = {name: value[..., columns] for name, value in options.items()}
        settings = {"steps": 1, "scheduler": "simple", "cfg": 2.0, "noise": x, **prompts}
        return sample(model, torch.zeros_like(x), **settings, **given)

    plan = LocalViews(stride=side, jitter=False)
    expected = torch.cat([run(model, half) for half in halves], dim=-1)
    near = 1e-4 * float(expected.abs().max())
    for most in (1, 0):
        got = run(add_views(model, local=plan, view_batch_size=most), slice(0, 2 * side))
        assert torch.allclose(got, expected, rtol=1e-3, atol=near)
    assert not torch.allclose(expected[..., :side], expected[..., side:], rtol=1e-3, atol=near)


# A conditioning's batch


@pytest.mark.parametrize("most", [1, 0])
@pytest.mark.parametrize("plan", [{"local": LocalViews(stride=16)}, {"dilated": LATTICES}])
@pytest.mark.parametrize(("prompts", "pictures"), [(4, 1), (4, 2), (2, 3), (3, 2), (1, 2), (2, 2)])
def test_a_picture_has_one_prompt_however_many_a_conditioning_holds(prompts, pictures, plan, most):
    values = torch.arange(1.0, 1 + prompts).view(prompts, 1, 1)
    settings = {"cfg": 1.0, "steps": 1, "positive": [[values, {}]]}
    empty = torch.zeros(pictures, 4, 32, 32)
    plain = sample(patcher(text), empty, **settings)
    viewed = sample(add_views(patcher(text), view_batch_size=most, **plan), empty, **settings)
    assert (plain - viewed).abs().max() <= 2e-3 * plain.abs().max()
    scale = patcher(text).model.latent_format.scale_factor
    corners = viewed[:, 0, ::31, ::31].flatten(1) * scale
    right = torch.tensor([1.0 + number % prompts for number in range(pictures)])
    assert torch.allclose(corners, right[:, None].expand(-1, 4), atol=2e-2)


def test_lists_and_vectors_have_the_batch_of_the_latents_too():
    listed = [random(3, 4, 8, 8), random(1, 4, 8, 8), random(2, 5)]
    held = {
        "ref_latents": comfy.conds.CONDList(listed[:2]),
        "y": comfy.conds.CONDRegular(listed[2]),
        "guidance": comfy.conds.CONDRegular(torch.tensor([3.5])),
    }
    got = Cutter(patcher(text).model, WINDOWS, 2, ALL, 0).all({"model_conds": held})
    assert torch.equal(got["ref_latents"].cond[0], listed[0][:2])
    assert torch.equal(got["ref_latents"].cond[1], listed[1])
    assert torch.equal(got["y"].cond, listed[2]) and torch.equal(
        got["guidance"].cond, held["guidance"].cond
    )
    # As the host then hands it on to four views of two pictures.
    assert torch.equal(got["y"].process_cond(4).cond, listed[2].repeat(2, 1))


# Model conds


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("lead", [(4,), (4, 2), (2, 4, 3)])
def test_cells_are_cut_as_the_latent_is(views, lead):
    whole = random(1, *lead, *views.canvas)
    cutter = Cutter(patcher(text).model, views, 2, ALL, 0)
    for key, rule in table.MODEL_CONDS.items():
        if rule in (table.CELLS, table.MASK, table.REFERENCE):
            held = {key: comfy.conds.CONDRegular(whole)}
            got = cutter.all({"model_conds": held})[key].cond
            assert torch.equal(got, views.stack(whole.expand(2, *whole.shape[1:])))


def test_cells_of_another_size_are_refused_and_references_shared():
    other, one = random(1, 4, 3, 8, 8), random(1, 1, 3, 1, 1)
    cutter = Cutter(patcher(text).model, WINDOWS, 1, ALL, 0)
    for key, rule in table.MODEL_CONDS.items():
        held = {key: comfy.conds.CONDRegular(other)}
        if rule in (table.CELLS, table.MASK):
            with pytest.raises(ValueError, match=f"'{key}'.*8 x 8 and not 32 x 16"):
                cutter.all({"model_conds": held})
            held = {key: comfy.conds.CONDRegular(one)}
            assert torch.equal(cutter.all({"model_conds": held})[key].cond, one)
        elif rule == table.REFERENCE:
            assert torch.equal(cutter.all({"model_conds": held})[key].cond, other)
        elif isinstance(rule, table.Refused):
            with pytest.raises(ValueError, match=f"'{key}'"):
                cutter.all({"model_conds": held})


def test_shapes_that_chance_to_fit_are_not_cut():
    """A text, a face and features as long as the canvas is wide are none of its pictures."""
    for key in ("c_crossattn", "face_pixel_values", "siglip_feats", "audio_embed"):
        value = random(1, 3, 2, *CANVAS)
        held = {key: comfy.conds.CONDRegular(value)}
        cutter = Cutter(patcher(text).model, WINDOWS, 1, ALL, 0)
        assert torch.equal(cutter.all({"model_conds": held})[key].cond, value)


STAGE_B = {
    "c_hidden": [32, 32, 32, 32],
    "nhead": [-1, -1, 2, 2],
    "blocks": [[1, 1, 1, 1], [1, 1, 1, 1]],
    "block_repeat": [[1, 1, 1, 1], [1, 1, 1, 1]],
    "c_cond": 24,
    "c_clip": 24,
    "c_clip_seq": 2,
}


def test_the_prior_of_stable_cascade_is_stretched_and_cut():
    family = Family("Stable_Cascade_B", STAGE_B, 1024, pooled=24, patch=2, cells=16, cell=4)
    prior = 4 * random(1, 16, 6, 12)
    canvas = torch.nn.functional.interpolate(
        prior, (16, 32), mode="bilinear", align_corners=True
    )  # as the network does

    def conds(columns):
        whole = columns == slice(0, 32)
        pooled = random(1, 1, 24)
        return {"stable_cascade_prior": prior if whole else canvas[..., columns]} | {
            "pooled_output": pooled
        }

    assert_family_halves(dataclasses.replace(family, pooled=0), conds)
    views = lattices.LatticeSet(2, (16, 32))
    held = {"model_conds": {"effnet": comfy.conds.CONDRegular(prior)}}
    got = Cutter(None, views, 1, ALL, None).all(held)["effnet"].cond
    assert torch.equal(got[3], canvas[0, :, 1::2, 1::2])


def redux_mask(rows, columns, tokens=8, width=16):
    """Attention of a Redux picture: rows and columns of text and of the canvas' tokens."""
    n = tokens + 8 * width
    mask = 4 * random(1, n, n) - 2
    index = torch.arange(8 * width).view(8, width)[rows, columns].flatten()
    kept = torch.cat([torch.arange(tokens), tokens + index])
    return mask[:, kept][:, :, kept]


@pytest.mark.parametrize("name", ["Flux", "Chroma"])
def test_a_joint_attention_mask_is_cut_by_tokens(name):
    def conds(columns):
        own = slice(columns.start // 2, columns.stop // 2)
        mask = redux_mask(ALL, own)
        return {
            "attention_mask": mask,
            "attention_mask_img_shape": (8, own.stop - own.start),
        }

    assert_family_halves(FAMILIES[name], conds)


def test_a_joint_attention_mask_is_cut_for_lattices():
    model = tiny(FAMILIES["Flux"]).model
    views = lattices.LatticeSet(2, (16, 32), 2)
    held = {"model_conds": {"attention_mask": comfy.conds.CONDRegular(redux_mask(ALL, ALL))}}
    got = Cutter(model, views, 1, ALL, None).all(held)["attention_mask"].cond
    assert torch.equal(got[0], redux_mask(slice(None, None, 2), slice(None, None, 2))[0])
    assert got.shape == (4, 8 + 32, 8 + 32)


def test_a_text_mask_is_shared():
    for name in ("Qwen-Image", "Flux"):
        mask = torch.ones(1, 8)
        held = {"model_conds": {"attention_mask": comfy.conds.CONDRegular(mask)}}
        got = Cutter(tiny(FAMILIES[name]).model, WINDOWS, 1, ALL, None).all(held)
        assert got["attention_mask"].cond is mask


def controlled(config, **options):
    return Family(config, WAN | options, 832, frames=True)


REFERENCE = random(1, 16, 1, 16, 32)
VACE = 4 * random(2, 1, 32, 1, 16, 32) - 2, random(2, 1, 64, 1, 16, 32).round()
PICTURES = {
    "two Vace videos": (
        controlled("WAN21_Vace", model_type="vace", vace_layers=1, vace_in_dim=96),
        lambda part: {
            "vace_frames": [part(video) for video in VACE[0]],
            "vace_mask": [part(mask) for mask in VACE[1]],
            "vace_strength": [1.0, 0.5],
        },
    ),
    "Wan reference": (
        controlled("WAN21_FunControl2V", model_type="i2v", in_dim=48, in_dim_ref_conv=16),
        lambda part: {"reference_latents": [part(REFERENCE)]},
    ),
    "frames put on": (
        FAMILIES["Wan 2.1"],
        lambda part: {"time_dim_concat": part(REFERENCE)},
    ),
    "Flux reference": (
        FAMILIES["Flux"],
        lambda part: {"reference_latents": [part(REFERENCE[:, :, 0])]},
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_the_canvas_are_cut(name):
    family, held = PICTURES[name]
    assert_family_halves(family, lambda columns: held(lambda whole: whole[..., columns]))


CAMERA = Family(
    *("WAN21_Camera", WAN | {"model_type": "camera", "in_dim": 32}, 832),
    frames=True,
)


def test_camera_conditions_are_cut_in_pixels():
    whole = random(1, 24, 1, 128, 256)

    def conds(columns):
        pixels = slice(8 * columns.start, 8 * columns.stop)
        return {"camera_conditions": whole[..., pixels]}

    assert_family_halves(CAMERA, conds)
    views = lattices.LatticeSet(2, (16, 32))
    held = {"model_conds": {"camera_conditions": comfy.conds.CONDRegular(whole)}}
    got = Cutter(tiny(CAMERA).model, views, 1, ALL, None).all(held)["camera_conditions"].cond
    assert torch.equal(got, views.stack_image(whole, 8))


def test_camera_conditions_of_another_size_are_refused_before_the_first_step():
    family = dataclasses.replace(CAMERA, options={"camera_conditions": random(1, 24, 1, 64, 128)})
    model = tiled(tiny(family))
    calls = []
    model.model.diffusion_model.register_forward_pre_hook(lambda *args: calls.append(1))
    told = r"camera_conditions.*128 x 64 and not 256 x 128"
    conds = {"positive": [family_cond(family, 2)[0][1]]}
    with pytest.raises(ValueError, match=told):
        conditioning.check_sizes(model.model, conds, WINDOWS, 1)
    with pytest.raises(ValueError, match=told):
        sample(
            model,
            family_latent(family, *CANVAS),
            positive=family_cond(family, 2),
            negative=family_cond(family, 3),
        )
    assert calls == []


GUIDED = dataclasses.replace(FAMILIES["LTX-Video"], cells=8)


def guide(frames, height, width, at=8):
    """What LTXVAddGuide puts in the conditioning for `frames` latent frames."""
    from comfy_extras.nodes_lt import LTXVAddGuide

    made = [[torch.zeros(1, 1, 1), {}]]
    latent = torch.zeros(1, 128, frames, height, width)
    return LTXVAddGuide.add_keyframe_index(made, at, latent, (8, 32, 32))[0][1]["keyframe_idxs"]


@pytest.mark.parametrize(("frames", "guides"), [(3, 1), (5, 1), (5, 2)])
def test_guide_frames_of_ltx_video_are_cut(frames, guides):
    def conds(columns):
        return {"keyframe_idxs": guide(guides, 8, columns.stop - columns.start)}

    mask = torch.ones(1, 1, frames, 8, 16)
    mask[:, :, -guides:] = 0.3
    assert_family_halves(GUIDED, conds, frames, denoise_mask=mask)


def test_guide_frames_are_cut_for_lattices_and_refused_for_another_size():
    views = lattices.LatticeSet(2, (16, 32))
    cutter = Cutter(tiny(GUIDED).model, views, 1, ALL, None)

    def cut(**held):
        made = {k: comfy.conds.CONDConstant(v) for k, v in held.items()}
        made |= {k: comfy.conds.CONDRegular(v) for k, v in held.items() if torch.is_tensor(v)}
        found = cutter.all({"model_conds": made})
        return [found[key].cond for key in held]

    assert torch.equal(cut(keyframe_idxs=guide(2, 16, 32))[0], guide(2, 8, 16))
    entries = [{"pre_filter_count": 3 * 512, "strength": 0.5, "latent_shape": [3, 16, 32]}]
    counts, slots = cut(
        guide_attention_entries=entries,
        generated_keyframes={"tokens_per_frame": 512, "first_latent_frame": 3, "num_keyframes": 1},
    )
    assert counts[0] | {"strength": 0.5} == counts[0]
    assert counts[0]["pre_filter_count"] == 3 * 128 and counts[0]["latent_shape"] == [3, 8, 16]
    assert slots == {"tokens_per_frame": 128, "first_latent_frame": 3, "num_keyframes": 1}
    with pytest.raises(ValueError, match="crop the guides"):
        cut(keyframe_idxs=guide(1, 16, 31))
    with pytest.raises(ValueError, match="attention mask"):
        cut(guide_attention_entries=[entries[0] | {"pixel_mask": torch.ones(1, 1, 9, 64, 64)}])
    with pytest.raises(ValueError, match="sparser grid"):
        cut(denoise_mask=-torch.ones(1, 1, 3, 16, 32))
