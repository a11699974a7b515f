"""Fusers on LATENT dictionaries, in the host's latent formats, from weight files, as nodes."""

from __future__ import annotations

import comfy.latent_formats
import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from hires_fusion.fusion_ops import latent_fusion, spectrum
from hires_fusion.nodes.demo_model import LoadDemoModel
from hires_fusion.nodes.fusers import AdaptiveGlobalFusion, DynamicSpatialFusion
from hires_fusion.nodes.spec_fusion import Cadr, SpecFusion
from hires_fusion.sampling import fusers

NODES = {"agf": AdaptiveGlobalFusion, "dsf": DynamicSpatialFusion}


def latents(*shape, dtype=torch.float32, **keys):
    g = torch.Generator().manual_seed(1)
    one, two = (torch.randn(shape, generator=g).to(dtype) * 7 for _ in range(2))
    return {"samples": one, **keys}, {"samples": two}


def fuse(kind, base, refined, **changes):
    settings = {"mode": "published", "ratio": 0.5, "seed": 3, "weights": f"demo_{kind}.safetensors",
                "latent_format": "SDXL"} | changes  # fmt: skip
    return NODES[kind].execute(base, refined, **settings).result


def spec(base, refined, **changes):
    settings = {"rho": 0.85, "base_c": 0.5, "low_mix": -1.0, "radius": -1.0, "edge": "box",
                "hermitian": False, "noise": 0.0, "seed": 0, "latent_format": "SDXL"}  # fmt: skip
    return SpecFusion.execute(base, refined, **(settings | changes)).result


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A models/latent_fusion/ of its own."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {})
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    (tmp_path / fusers.FOLDER).mkdir()
    return tmp_path / fusers.FOLDER


@pytest.mark.parametrize("kind", NODES)
def test_the_map_is_made_in_scaled_space(kind):
    base, refined = latents(2, 4, 9, 6)
    fused, mask = fuse(kind, base, refined)
    scaled = [x["samples"] * 0.13025 for x in (base, refined)]
    weights = latent_fusion.published_weights(kind, 4, 3)
    share = latent_fusion.refined_share(kind, *scaled, weights)
    expected = (1 - share) * scaled[0] + share * scaled[1]
    assert torch.allclose(fused["samples"] * 0.13025, expected, atol=1e-5)
    assert mask.shape == (2, 9, 6) and torch.allclose(mask, share[:, 0], atol=1e-6)
    assert not torch.equal(mask, fuse(kind, base, refined, seed=4)[1])
    raw = latent_fusion.refined_share(kind, base["samples"], refined["samples"], weights)
    assert not torch.allclose(mask, raw[:, 0], atol=1e-2)


@pytest.mark.parametrize("kind", NODES)
@pytest.mark.parametrize(("name", "shape"), [
    ("SD15", (1, 4, 8, 5)), ("SD3", (2, 16, 7, 8)), ("Flux", (1, 16, 6, 6)),
    ("SDXL_Playground_2_5", (1, 4, 6, 6)), ("Wan21", (2, 16, 3, 6, 5)), ("Wan21", (2, 16, 6, 5)),
    ("Mochi", (1, 12, 2, 5, 5)),
])  # fmt: skip
def test_other_formats(kind, name, shape):
    base, refined = latents(*shape)
    fused, mask = fuse(kind, base, refined, latent_format=name)
    assert fused["samples"].shape == shape
    assert mask.shape == (shape[0] * (shape[2] if len(shape) == 5 else 1), *shape[-2:])
    assert bool(((mask >= 0) & (mask <= 1)).all()) and mask.std() > 0
    noisy, picture = spec(base, refined, latent_format=name, noise=0.1)
    assert noisy["samples"].shape == shape and len(picture) == shape[0]
    drawn = noisy["samples"] - spec(base, refined)[0]["samples"]
    known = getattr(comfy.latent_formats, name)()
    lone = known.latent_dimensions == 3 and len(shape) == 4
    ends = [known.process_in(x.unsqueeze(2) if lone else x) for x in (drawn, drawn * 0)]
    assert float((ends[0] - ends[1]).std()) == pytest.approx(0.1, rel=0.2)


def test_every_format_that_is_offered_exists():
    names = list(fusers.formats())
    assert names[0] == "SDXL" and len(names) == len(set(names))
    assert {"SD15", "SD3", "Flux", "Wan21"} <= {*names} and "StableAudio1" not in names
    assert all(fusers.find_format(name).latent_channels for name in names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (2, 4, 7, 13), (1, 16, 2, 5, 6)])
def test_a_latent_fused_with_itself_stays(shape, dtype):
    _, same = latents(*shape, dtype=dtype)
    known = {"latent_format": "SDXL" if shape[1] == 4 else "Wan21"}
    for kind in NODES:
        for mode in ("blend", "published"):
            fused = fuse(kind, same, same, mode=mode, ratio=0.3, **known)[0]["samples"]
            assert torch.equal(fused, same["samples"]) and fused.dtype == dtype
    for edge in spectrum.EDGES:
        fused = spec(same, same, rho=0.3, edge=edge, **known)[0]["samples"]
        assert torch.equal(fused, same["samples"])


def test_ends_are_the_inputs():
    base, refined = latents(1, 4, 7, 9)
    for kind in NODES:
        for ratio, end in ((0.0, base), (1.0, refined)):
            fused, mask = fuse(kind, base, refined, mode="blend", ratio=ratio)
            assert torch.equal(fused["samples"], end["samples"])
            assert bool((mask == ratio).all())
    assert torch.equal(spec(base, refined, rho=1.0)[0]["samples"], refined["samples"])
    assert torch.equal(spec(base, refined, radius=0.0)[0]["samples"], refined["samples"])


def test_low_frequencies_from_the_base_as_in_the_figure():
    base, refined = latents(1, 4, 16, 16)
    fused = spec(base, refined, radius=0.25, low_mix=0.0)[0]["samples"]
    got, low, high = (torch.fft.fft2(x) for x in (fused, base["samples"], refined["samples"]))
    assert torch.allclose(got[..., :4, :4], low[..., :4, :4], atol=1e-3)
    assert torch.allclose(got[..., 5:12, 5:12], high[..., 5:12, 5:12], atol=1e-3)


def test_noise_comes_from_the_seed_picture_by_picture():
    base, refined = latents(3, 4, 8, 8)
    clean = spec(base, refined)[0]["samples"]
    noisy = spec(base, refined, noise=0.001, seed=7)[0]["samples"]
    assert float((noisy - clean).std()) == pytest.approx(0.001 / 0.13025, rel=0.15)
    assert torch.equal(noisy, spec(base, refined, noise=0.001, seed=7)[0]["samples"])
    assert not torch.equal(noisy, spec(base, refined, noise=0.001, seed=8)[0]["samples"])
    first = [{"samples": x["samples"][:1]} for x in (base, refined)]
    assert torch.allclose(spec(*first, noise=0.001, seed=7)[0]["samples"], noisy[:1], atol=1e-5)


def test_other_keys_survive_and_inputs_stay():
    mask = torch.rand(1, 1, 64, 64)
    base, refined = latents(1, 4, 8, 8, noise_mask=mask, batch_index=[4])
    refined |= {"downscale_ratio_spacial": 8, "batch_index": [9]}
    copies = [x["samples"].clone() for x in (base, refined)]
    for fused in (fuse("agf", base, refined)[0], spec(base, refined, noise=0.1)[0]):
        assert fused["noise_mask"] is mask and fused["batch_index"] == [9]
        assert "downscale_ratio_spacial" not in fused
    assert all(torch.equal(x["samples"], c) for x, c in zip((base, refined), copies, strict=True))


def test_one_base_serves_many_refined_latents():
    base, refined = latents(3, 4, 8, 8)
    base["samples"] = base["samples"][:1]
    fused, mask = fuse("dsf", base, refined)
    assert fused["samples"].shape == (3, 4, 8, 8) and mask.shape == (3, 8, 8)
    alone = fuse("dsf", base, {"samples": refined["samples"][2:]})[0]["samples"]
    assert torch.allclose(fused["samples"][2:], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "fix"),
    [
        (((1, 4, 8, 8), (1, 4, 8, 16)), "Upsample Latent"),
        (((1, 4, 8, 8), (1, 16, 8, 8)), "one kind of model"),
        (((1, 4, 8, 8), (1, 4, 2, 8, 8)), "one size"),
        (((2, 4, 8, 8), (3, 4, 8, 8)), "give one base"),
    ],
)
def test_latents_that_do_not_fit_say_the_fix(shapes, fix):
    base, refined = ({"samples": torch.zeros(shape)} for shape in shapes)
    for run in (lambda: fuse("agf", base, refined, mode="blend"), lambda: spec(base, refined)):
        with pytest.raises(ValueError, match=fix):
            run()


def test_a_wrong_format_says_the_fix():
    base, refined = latents(1, 16, 8, 8)
    with pytest.raises(ValueError, match="SDXL latents have 4 channels, these 16: connect"):
        fuse("agf", base, refined)
    with pytest.raises(ValueError, match="choose its latent_format"):
        spec(base, refined, noise=0.1)
    assert spec(base, refined)[0]["samples"].shape == (1, 16, 8, 8)  # nothing to scale
    base, refined = latents(1, 64, 5, 8, 8)
    with pytest.raises(ValueError, match="another shape"):
        fuse("agf", base, refined, latent_format="HunyuanImage21Refiner")
    with pytest.raises(ValueError, match="several parts or no height"):
        fuse("agf", {"samples": torch.zeros(1, 64, 100)}, refined)


@pytest.mark.parametrize("kind", NODES)
def test_weights_from_a_file(kind, folder):
    weights = latent_fusion.published_weights(kind, 4, 3)
    save_file(weights, folder / "mine.safetensors", {"latent_format": "SDXL"})
    (folder / "notes.txt").write_text("no weights")
    assert {"mine.safetensors"} <= {
        *fusers.fuser_files()
    } and "notes.txt" not in fusers.fuser_files()
    base, refined = latents(2, 4, 8, 8)
    got = fuse(kind, base, refined, mode="weights", weights="mine.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(
        (got[0]["samples"], got[1]),
        (lambda f: (f[0]["samples"], f[1]))(fuse(kind, base, refined)), strict=True))  # fmt: skip
    with pytest.raises(
        ValueError, match="trained on latents of the format SDXL, and these are SD15"
    ):
        fuse(kind, base, refined, mode="weights", weights="mine.safetensors", latent_format="SD15")


def test_a_wrong_file_names_the_keys_it_should_hold(folder):
    save_file(latent_fusion.published_weights("dsf", 4, 0), folder / "dsf.safetensors")
    save_file(latent_fusion.published_weights("agf", 16, 0), folder / "flux.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no")
    base, refined = latents(1, 4, 8, 8)
    for name in ("dsf", "flux"):
        with pytest.raises(ValueError, match=rf"{name}\.safetensors: .*agf\.weight.*agf\.bias"):
            fuse("agf", base, refined, mode="weights", weights=f"{name}.safetensors")
    with pytest.raises(ValueError, match="can't be read"):
        fuse("agf", base, refined, mode="weights", weights="broken.safetensors")
    for name in ("none.safetensors", "../outside.safetensors"):
        with pytest.raises(ValueError, match=r"no choice: .*choose from .*flux"):
            fuse("agf", base, refined, mode="weights", weights=name)
        with pytest.raises(ValueError, match="models/latent_fusion"):
            fusers.fuser_path(name)


def test_a_file_trained_again_is_another_input(folder):
    path = folder / "mine.safetensors"
    save_file(latent_fusion.published_weights("agf", 4, 0), path)
    mark = AdaptiveGlobalFusion.fingerprint_inputs(mode="weights", weights=path.name, seed=1)
    assert AdaptiveGlobalFusion.fingerprint_inputs(mode="blend", weights=path.name) == ""
    assert AdaptiveGlobalFusion.fingerprint_inputs(mode="weights", weights=None) == ""  # linked
    path.touch()
    again = AdaptiveGlobalFusion.fingerprint_inputs(mode="weights", weights=path.name, seed=1)
    assert again >= mark


@pytest.mark.parametrize("kind", NODES)
def test_the_shipped_fusers_are_for_the_demo_model(kind):
    model = LoadDemoModel.execute().result[0]
    base, refined = latents(1, 4, 8, 8)
    fused, mask = fuse(kind, base, refined, mode="weights", model=model)
    assert fused["samples"].shape == (1, 4, 8, 8) and mask.std() > 0
    with pytest.raises(ValueError, match="connect the model that made them"):
        fuse(kind, base, refined, mode="weights")


def test_cadr_gives_what_a_sampler_takes():
    strength, guidance, steps, rho, run_steps = Cadr.execute(60.0).result
    assert (strength, guidance, steps, rho) == pytest.approx((0.192, 4.16, 22, 0.7))
    assert run_steps == 4


def test_the_demo_refiner_is_another_unet_of_the_same_model():
    base, refiner = (LoadDemoModel.execute(**v).result for v in ({}, {"variant": "refiner"}))
    one, two = (m[0].model.diffusion_model.state_dict() for m in (base, refiner))
    assert one.keys() == two.keys()
    assert not all(torch.equal(one[k], two[k]) for k in one)
    texts = [m[1].cond_stage_model.state_dict() for m in (base, refiner)]
    assert all(torch.equal(texts[0][k], texts[1][k]) for k in texts[0])


@pytest.mark.parametrize(
    "name", ["torch", "LatentFormat", "__builtins__", "annotations", "x" * 999]
)
def test_a_latent_format_is_looked_up_and_not_fetched_by_name(name):
    with pytest.raises(ValueError, match=r"no latent format is called .*: choose SDXL, "):
        fusers.find_format(name)
    base, refined = latents(1, 4, 8, 8)
    with pytest.raises(ValueError, match="latent_format is the text"):
        fuse("agf", base, refined, latent_format=name)


def test_an_unknown_mode_does_not_run_as_another():
    base, refined = latents(1, 4, 8, 8)
    with pytest.raises(ValueError, match="mode is the text 'zzz'"):
        fuse("agf", base, refined, mode="zzz")
    options = {"ratio": 0.5, "seed": 0, "weights": "", "latent_format": comfy.latent_formats.SDXL()}
    with pytest.raises(ValueError, match="no mode is called 'zzz': choose published, weights"):
        fusers.fuse("agf", base, refined, mode="zzz", **options)
