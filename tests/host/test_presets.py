"""Presets and strength: which nodes a composite expands into, and what CFG 1 costs."""

from __future__ import annotations

import json

import pytest
import torch

from hires_fusion.fusion_ops.presets import PRESETS
from hires_fusion.nodes.progressive import ProgressiveUpscale
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews
from hires_fusion.sampling.renoise import places

from .expansion import Vae, expand, first
from .families import FAMILIES
from .families import tiny as family
from .stub import patcher, sample


def tiny():
    return family(FAMILIES["SDXL"])


def of(nodes, kind):
    """Inputs of the nodes of a class, stage by stage."""
    return [inputs for _, (name, inputs) in sorted(nodes.items()) if name == kind]


def test_turbo_has_wider_windows_and_a_later_start():
    nodes = expand(preset="DemoFusion-Turbo", steps=10, cfg=1.0)
    assert first(nodes, "HRF_TiledDiffusion")["stride"] == 24
    assert first(nodes, "HRF_InitRateSigmas")["init_rate"] == 0.3
    assert first(nodes, "HRF_InitRateSigmas")["num_resample_timesteps"] == 10
    assert first(nodes, "CFGGuider")["cfg"] == 1.0
    published = expand()
    assert first(published, "HRF_TiledDiffusion")["stride"] == 16
    assert first(published, "HRF_InitRateSigmas")["init_rate"] == 0
    assert {kind for kind, _ in nodes.values()} == {kind for kind, _ in published.values()}


@pytest.mark.parametrize("preset", ["RepLDM", "AP-LDM", "FreeScale-style restart"])
def test_pixel_presets_sample_the_whole_picture(preset):
    nodes = expand(preset=preset, vae=Vae(), init_rates="0.7")
    kinds = {kind for kind, _ in nodes.values()}
    assert first(nodes, "HRF_UpsampleLatent")["method"] == "pixel bicubic"
    assert first(nodes, "HRF_InitRateSigmas")["init_rate"] == 0.7
    assert not kinds & {"HRF_TiledDiffusion", "HRF_DilatedSampling"}
    assert ("HRF_MatchStatistics" in kinds) == (preset == "RepLDM")
    assert ("HRF_SkipResidual" in kinds) == preset.startswith("FreeScale")
    with pytest.raises(ValueError, match=f"the preset {preset} .*connect a VAE .*DemoFusion"):
        expand(preset=preset)


@pytest.mark.parametrize("preset", ["DemoFusion", "DemoFusion-Turbo", "MultiDiffusion"])
def test_windows_move_and_fade_unless_a_stage_asks_for_the_published_ones(preset):
    names = ("jitter", "weights", "border", "crop")
    made = first(expand(preset=preset), "HRF_TiledDiffusion")
    assert [made[name] for name in names] == [True, "cosine", "clamp", "position"]
    fields = {"jitter": False, "weights": "uniform", "border": "zero", "crop": "padded"}
    made = first(
        expand(preset=preset, stages=json.dumps([{"scale": 2, **fields}])), "HRF_TiledDiffusion"
    )
    assert {name: made[name] for name in names} == fields
    for name in ("weights", "crop"):
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            expand(preset=preset, stages=json.dumps([{"scale": 2, name: "foo"}]))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("strength", [0.1, 0.35, 1.0])
def test_strength_is_the_same_noise_for_every_preset(preset, strength):
    """The stage with the most noise runs that share of the schedule, whatever its preset says."""
    nodes = expand(tiny(), preset=preset, vae=Vae(), strength=strength, steps=50)
    by_share, by_level = (of(nodes, f"HRF_{kind}Sigmas") for kind in ("InitRate", "Renoise"))
    shares = [1 - given["init_rate"] for given in by_share]
    shares += [places(tiny()).share(given["sigma"]) for given in by_level]
    assert max(shares) == pytest.approx(strength, abs=1e-3)


def test_strength_keeps_the_proportions_of_stages_and_the_pace_of_their_steps():
    (early, late), (plain, last) = (
        of(expand(preset="RepLDM", scale=4, vae=Vae(), **more), "HRF_InitRateSigmas")
        for more in ({"strength": 0.4}, {})
    )
    assert (plain["init_rate"], last["init_rate"]) == (0.9, 0.8)
    assert [early["init_rate"], late["init_rate"]] == pytest.approx([0.8, 0.6])
    frecas = {"preset": "FreCaS", "vae": Vae(), "steps": 50, "scale": 4}
    published, less = (
        of(expand(**frecas, **more), "HRF_RenoiseSigmas") for more in ({}, {"strength": 0.29})
    )
    assert [run["steps"] for run in published] == [5, 15]
    assert [run["steps"] for run in less] == [2, 7]


def test_no_strength_is_the_presets_own():
    rows = '[{"scale": 1.5, "start": 0.3, "steps": 15}, {"scale": 2, "start": 0.5, "steps": 5}]'
    own = expand(stages=rows)
    assert own == expand(stages=rows, strength=0.0) == expand(stages=rows, strength=0.7)


@pytest.mark.parametrize(("cfg", "branches"), [(1.0, 1), (2.5, 2)])
def test_cfg_1_evaluates_one_branch(cfg, branches):
    def denoiser(x, sigma, conds):
        return 0.5 * x

    model = add_views(patcher(denoiser), local=LocalViews(window=16, stride=12))
    model = add_views(model, dilated=DilatedViews())
    out = sample(model, torch.ones(1, 4, 32, 32), cfg=cfg, steps=1, scheduler="simple")
    assert torch.isfinite(out).all()
    views = sum(len(call) for call in model.model.calls)
    assert views == branches * (9 + 4)


def test_a_picture_that_is_there_serves_the_first_stage():
    picture = torch.zeros(1, 256, 192, 3)
    nodes = expand(preset="RepLDM", scale=4.0, vae=Vae(), image=picture)
    assert [lift.get("image") for lift in of(nodes, "HRF_UpsampleLatent")] == [["image", 0], None]
    assert not any("image" in i for _, i in expand(image=picture).values())  # a latent lift
    with pytest.raises(
        ValueError, match=r"stage 1: image must be what samples decodes to, .* 192 x 256"
    ):
        expand(preset="RepLDM", vae=Vae(), image=picture.transpose(1, 2))


def test_which_presets_need_no_vae_is_said_where_it_is_connected():
    tooltips = {one.id: one.tooltip for one in ProgressiveUpscale.define_schema().inputs}
    rows = {name: [preset, *preset.larger.values()] for name, preset in PRESETS.items()}
    latent = [n for n, all_ in rows.items() if not any(r.needs_vae for p in all_ for r in p.rows)]
    names = ", ".join(latent[:-1]) + " and " + latent[-1]
    assert f"All presets but {names} need it" in tooltips["vae"]
