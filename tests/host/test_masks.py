"""What a noise mask keeps stays, whatever of ours changes a finished latent."""

from __future__ import annotations

import ast
from pathlib import Path

import comfy.utils
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

from hires_fusion.fusion_ops.upsample import resize
from hires_fusion.nodes.fusers import AdaptiveGlobalFusion, DynamicSpatialFusion
from hires_fusion.nodes.spec_fusion import SpecFusion
from hires_fusion.sampling import lift, masks

from .masked import LEFT, H, PoolingVAE, W, each_its_own, left_kept, randn, textured
from .stub import patcher, sample

# name -> (shape of the latents, mask)
CASES = {
    "cells": ((2, 4, H, W), left_kept((1, 1, H, W))),
    "pixels": ((1, 4, H, W), left_kept((1, 1, 8 * H, 8 * W), 8)),
    "no channel axis": ((1, 4, H, W), left_kept((1, H, W))),
    "hard": ((1, 4, H, W), left_kept((1, 1, H, W)).round()),
    "constant": ((1, 4, H, W), torch.full((1, 1, H, W), 0.25)),
    "each its own": ((2, 4, H, W), each_its_own()),
    "nothing": ((1, 4, H, W), torch.zeros(1, 1, H, W)),
    "half precision": ((1, 4, H, W), left_kept((1, 1, H, W)).half()),
    "time axis": ((1, 4, 1, H, W), left_kept((1, 1, H, W))),
    "frames": ((1, 4, 3, H, W), torch.stack([torch.zeros(H, W), *each_its_own()[:, 0]])[:, None]),
    "each its own in time": ((2, 4, 1, H, W), each_its_own().unsqueeze(2)),
}


def pair(shape, mask, **keys):
    one, two = (7 * randn(*shape, seed=i) for i in (1, 2))
    return {"samples": one, "noise_mask": mask, **keys}, {"samples": two}


def unmasked(latent):
    return {k: v for k, v in latent.items() if k != "noise_mask"}


def fuse(kind):
    settings = {
        "mode": "published",
        "ratio": 0.5,
        "seed": 3,
        "weights": "demo_agf.safetensors",
        "latent_format": "SDXL",
    }
    return lambda one, two: kind.execute(one, two, **settings).result[0]


def spec(one, two):
    settings = {"rho": 0.3, "base_c": 0.5, "low_mix": -1.0, "radius": -1.0, "edge": "box",
                "hermitian": False, "noise": 0.1, "seed": 0, "latent_format": "SDXL"}  # fmt: skip
    return SpecFusion.execute(one, two, **settings).result[0]


def pixels(latent, other):
    return lift.upsample(latent, latent["samples"].shape[-2:], "pixel bicubic", PoolingVAE())


# Changes that the mask blends, each picture of its own size: (masked, other) -> LATENT
BLENDED = {
    "agf": fuse(AdaptiveGlobalFusion),
    "dsf": fuse(DynamicSpatialFusion),
    "agf, refined masked": lambda a, b: fuse(AdaptiveGlobalFusion)(b, a),
    "spec": spec,
    "spec, refined masked": lambda a, b: spec(b, a),
    "pixel lift of the same size": pixels,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("change", BLENDED)
def test_a_change_is_taken_as_far_as_the_mask_allows(change, case):
    shape, mask = CASES[case]
    if "pixel" in change and case == "frames":
        pytest.skip("pixel lifts take pictures, not video")
    one, two = pair(shape, mask)
    given = one["samples"].clone()
    got = BLENDED[change](one, two)
    free = BLENDED[change](unmasked(one), two)["samples"]
    wide = comfy.utils.reshape_mask(mask.float(), shape)
    assert got["noise_mask"] is mask and torch.equal(one["samples"], given)
    assert torch.equal(got["samples"][wide == 0], given[wide == 0])
    expected = given * (1 - wide) + free * wide
    assert torch.allclose(got["samples"], expected, atol=1e-5)
    assert case == "nothing" or not torch.allclose(got["samples"], given, atol=1e-2)


def test_a_fusers_map_says_what_was_taken():
    base, refined = pair((1, 4, H, W), left_kept((1, 1, H, W)))
    settings = {
        "mode": "blend",
        "ratio": 0.5,
        "seed": 0,
        "weights": "demo_agf.safetensors",
        "latent_format": "SDXL",
    }
    for one, two, kept in ((base, refined, 0.0), (refined, base, 1.0)):
        fused, share = AdaptiveGlobalFusion.execute(one, two, **settings).result
        assert share[0, 0, 0] == kept and share[0, 0, -1] == 0.5
        assert share[0, 0, LEFT - 1] == pytest.approx(0.5 * (kept + 0.5))
        mixed = one["samples"] + share[:, None] * (two["samples"] - one["samples"])
        assert torch.allclose(fused["samples"], mixed, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_statistics_are_those_of_the_part_that_may_change(case):
    shape, mask = CASES[case]
    native, _ = pair((1, *shape[1:-2], H // 2, W // 2), mask)
    moved = resize(native["samples"], (H, W), "nearest-exact").expand(shape).clone()
    wide = comfy.utils.reshape_mask(mask.float(), shape)
    drawn = torch.where(wide > 0, 1.3 * moved - 2.5, moved)  # as a stage that shifts its colours
    latent = {"samples": drawn, "noise_mask": mask}
    out = lift.match_statistics(latent, unmasked(native))["samples"]
    assert torch.equal(out[wide == 0], drawn[wide == 0])
    if case in ("hard", "each its own", "each its own in time"):
        # Nothing but the shift was wrong, so that the native picture comes back.
        assert torch.allclose(out, moved, atol=5e-2)  # but for n - 1
        whole = lift.match_statistics(unmasked(latent), unmasked(native))["samples"]
        assert (whole - moved)[wide == 1].abs().max() > 0.3
    free = torch.ones_like(mask)
    alone = lift.match_statistics(latent | {"noise_mask": free}, unmasked(native))["samples"]
    plain = lift.match_statistics(unmasked(latent), unmasked(native))["samples"]
    assert torch.allclose(alone, plain, atol=1e-4)


def test_statistics_of_a_part_that_the_reference_has_no_cell_of():
    mask = torch.zeros(1, 1, H, W)
    mask[..., 0, 1] = 1  # between the cells of a reference of a quarter of the size
    latent = {"samples": randn(1, 4, H, W), "noise_mask": mask}
    out = lift.match_statistics(latent, {"samples": randn(1, 4, H // 4, W // 4)})
    assert torch.equal(out["samples"], latent["samples"])


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("case", [c for c in CASES if "ti" not in c and "frames" not in c])
def test_a_diffused_latent_keeps_what_its_sampler_would_hold_with_the_noise(case, kind):
    shape, mask = CASES[case]
    latent, _ = pair(shape, mask)
    model = patcher(textured, kind=kind)
    sigma = torch.tensor(0.7)
    got = lift.diffuse(model, latent, Noise_RandomNoise(5), sigma)["samples"]
    free = lift.diffuse(model, unmasked(latent), Noise_RandomNoise(5), sigma)["samples"]
    wide = comfy.utils.reshape_mask(mask.float(), shape)
    assert torch.equal(got, torch.where(wide == 1, free, latent["samples"]))
    # The host's own sampling of it, without noise, then ends at the picture and not at its noise.
    sigmas = torch.tensor([0.7, 0.3, 0.0])
    options = {"denoise_mask": mask.float(), "noise": torch.zeros(shape), "sigmas": sigmas}
    out = sample(model, got, **options)
    assert torch.allclose(out[wide == 0], latent["samples"][wide == 0], atol=1e-5)


def test_a_mask_grows_with_its_picture():
    mask = torch.tensor([[[[0.0, 1.0, 0.5, 0.5]]]])
    assert masks.enlarged(mask, (1, 4)) is mask
    assert masks.enlarged(mask, (1, 2)) is mask  # as fine already: samplers scale it themselves
    got = masks.enlarged(mask, (2, 8))
    assert got.shape == (1, 1, 2, 8)
    assert got[0, 0, 0].tolist() == [0, 0, 1, 1, 0.625, 0.5, 0.5, 0.5]
    video = torch.rand(2, 1, 3, 4, 4)
    assert masks.enlarged(video, (8, 6)).shape == (2, 1, 3, 8, 6)
    assert masks.enlarged(video[:, 0, 0].half(), (8, 8)).shape == (2, 8, 8)
    fine = {"samples": randn(1, 4, 8, 8), "noise_mask": torch.rand(1, 1, 64, 64)}
    assert lift.upsample(fine, (16, 16), "latent bicubic")["noise_mask"] is fine["noise_mask"]


def test_every_latent_is_made_where_its_mask_is_seen():
    root = Path(masks.__file__).parents[1]
    makers = {}
    for path in (*root.glob("nodes/*.py"), *root.glob("sampling/*.py")):
        dicts = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Dict)]
        keys = [key.value for n in dicts for key in n.keys if isinstance(key, ast.Constant)]
        if "samples" in keys:
            makers[path.name] = keys.count("samples")
    # An empty latent, what is given to with_samples, and with_samples itself. Others use it.
    assert makers == {"schedule.py": 1, "lift.py": 1, "fusers.py": 1, "latents.py": 1}
