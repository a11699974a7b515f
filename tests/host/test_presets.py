"""Presets and strength: which nodes a composite expands into, and what CFG 1 costs."""

from __future__ import annotations

import json

import pytest
import torch

from hires_fusion.nodes.progressive import expand_stages
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews

from .stub import cond, patcher, sample

WIRES = {name: [name, 0] for name in ("model", "positive", "negative", "samples")}


def expand(**changes):
    """(class, inputs) of the nodes of a composite's expansion, by their names."""
    settings = {
        "scale": 2.0,
        "preset": "DemoFusion",
        "noise_seed": 1,
        "steps": 10,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": cond(),
        "negative": cond(),
    } | changes
    model = patcher(None, native_size=256)
    samples = {"samples": torch.zeros(1, 4, 32, 24)}
    graph = expand_stages(WIRES, model=model, samples=samples, **settings).expand
    prefix = next(iter(graph)).rpartition(".")[0] + "."  # another one for each expansion
    graph = json.loads(json.dumps(graph).replace(prefix, ""))
    return {name: (n["class_type"], n["inputs"]) for name, n in graph.items()}


def first(nodes, kind):
    """Inputs of the only node of a class, None without one."""
    found = [inputs for name, inputs in nodes.values() if name == kind]
    assert len(found) <= 1
    return found[0] if found else None


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
    nodes = expand(preset=preset, vae=object(), init_rates="0.7")
    kinds = {kind for kind, _ in nodes.values()}
    assert first(nodes, "HRF_UpsampleLatent")["method"] == "pixel bicubic"
    assert first(nodes, "HRF_InitRateSigmas")["init_rate"] == 0.7
    assert not kinds & {"HRF_TiledDiffusion", "HRF_DilatedSampling"}
    assert ("HRF_MatchStatistics" in kinds) == (preset == "RepLDM")
    assert ("HRF_SkipResidual" in kinds) == preset.startswith("FreeScale")
    with pytest.raises(ValueError, match="connect a VAE"):
        expand(preset=preset)


@pytest.mark.parametrize(
    ("preset", "strength", "skipped"),
    [
        ("DemoFusion", 1.0, 0),
        ("DemoFusion", 0.6, 0.4),
        ("DemoFusion", 0.01, 0.99),
        ("DemoFusion-Turbo", 0.5, 0.65),  # half of the seven tenths that are run
    ],
)
def test_strength_is_the_share_of_its_steps_that_a_stage_runs(preset, strength, skipped):
    nodes = expand(preset=preset, strength=strength)
    assert first(nodes, "HRF_InitRateSigmas")["init_rate"] == pytest.approx(skipped)


def test_full_strength_is_the_same_graph_as_without_it():
    rows = '[{"scale": 1.5, "start": 0.3, "steps": 15}, {"scale": 2, "start": 0.5, "steps": 5}]'
    assert expand(stages=rows) == expand(stages=rows, strength=1.0)


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
