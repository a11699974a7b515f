"""Our nodes on a real server with the demo model."""

from __future__ import annotations

import io

import pytest
import safetensors.torch
import torch
from PIL import Image

from tools.client import PromptError, fetch, submit
from tools.server import start_server

NATIVE, STEPS = 64, 2  # small pictures: what is tested here is the graph


def node(kind, /, title="", **inputs):
    return {"class_type": kind, "inputs": inputs, **({"_meta": {"title": title}} if title else {})}


def base(width=NATIVE, height=NATIVE, batch=1):
    return {
        "demo": node("HRF_LoadDemoModel"),
        "yes": node("CLIPTextEncode", text="a red hot-air balloon at sunset", clip=["demo", 1]),
        "no": node("CLIPTextEncode", text="", clip=["demo", 1]),
        "empty": node("EmptyLatentImage", width=width, height=height, batch_size=batch),
        "native": node(
            "KSampler",
            model=["demo", 0],
            positive=["yes", 0],
            negative=["no", 0],
            latent_image=["empty", 0],
            seed=5,
            steps=STEPS,
            cfg=4.0,
            sampler_name="euler",
            scheduler="ddim_uniform",
            denoise=1.0,
        ),
    }


def composite(**changes):
    settings = {
        "scale": 2.0,
        "preset": "DemoFusion",
        "noise_seed": 11,
        "steps": STEPS,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "ddim_uniform",
        "view_batch_size": 0,
    }
    return node(
        "HRF_ProgressiveUpscale",
        model=["demo", 0],
        positive=["yes", 0],
        negative=["no", 0],
        **({"samples": ["native", 0]} | settings | changes),
    )


def save(prompt, name, link):
    prompt[name] = node("SaveLatent", name, samples=link, filename_prefix=name)


def by_hand(prompt, number, before, cells):
    """One DemoFusion stage wired as a user would wire it; the link to its result."""
    n = f"s{number}_"
    prompt |= {
        n + "up": node(
            "HRF_UpsampleLatent",
            samples=before,
            scale=1.0,
            method="latent bicubic",
            height=cells[0],
            width=cells[1],
        ),
        n + "tiled": node(
            "HRF_TiledDiffusion",
            model=["demo", 0],
            window=0,
            stride=0,
            jitter=True,
            weights="cosine",
            view_batch_size=0,
        ),
        n + "dilated": node(
            "HRF_DilatedSampling",
            model=[n + "tiled", 0],
            factor=0,
            cosine_scale_2=1.0,
            cosine_scale_3=1.0,
            sigma=0.8,
        ),
        n + "select": node("KSamplerSelect", sampler_name="euler"),
        n + "skip": node("HRF_SkipResidual", sampler=[n + "select", 0], cosine_scale_1=3.0),
        n + "noise": node("RandomNoise", noise_seed=11 + number),
        n + "guider": node(
            "CFGGuider",
            model=[n + "dilated", 0],
            positive=["yes", 0],
            negative=["no", 0],
            cfg=4.0,
        ),
        n + "sigmas": node(
            "BasicScheduler",
            model=["demo", 0],
            scheduler="ddim_uniform",
            steps=STEPS,
            denoise=1.0,
        ),
        n + "sample": node(
            "SamplerCustomAdvanced",
            noise=[n + "noise", 0],
            guider=[n + "guider", 0],
            sampler=[n + "skip", 0],
            sigmas=[n + "sigmas", 0],
            latent_image=[n + "up", 0],
        ),
        n + "match": node(
            "HRF_MatchStatistics", samples=[n + "sample", 0], reference=["native", 0]
        ),
    }
    return [n + "match", 0]


def test_composite_equals_the_same_graph_by_hand(run):
    # 320 pixels are 40 cells: larger than the demo model's window of 32, and no multiple of it.
    prompt = base(160, 128)
    prompt["composite"] = composite(scale=3.0)
    save(prompt, "composed", ["composite", 0])
    second = by_hand(prompt, 2, ["native", 0], (32, 40))
    save(prompt, "handmade", by_hand(prompt, 3, second, (48, 60)))
    out = run(prompt).latents
    assert out["composed"].shape == (1, 4, 48, 60)
    assert torch.equal(out["composed"], out["handmade"])


def test_finished_stages_stay_cached(run):
    prompt = base()
    prompt["composite"] = composite(noise_seed=12)
    save(prompt, "two", ["composite", 0])
    first = run(prompt)
    prompt["composite"]["inputs"]["scale"] = 3.0
    again = run(prompt)
    ran = {name for name, seconds in again.result.timings.items() if seconds is not None}
    assert any("stage_2_SamplerCustomAdvanced" in name for name in first.result.timings)
    assert any("stage_3_SamplerCustomAdvanced" in name for name in ran)
    assert not any("stage_2_SamplerCustomAdvanced" in name for name in ran)


def test_stages_come_out_as_a_list_of_growing_pictures(server):
    prompt = base(72, 64)
    prompt["composite"] = composite(stages='[{"scale": 1.5}, {"scale": 2.5, "start": 0.5}]')
    prompt["decode"] = node("VAEDecode", samples=["composite", 1], vae=["demo", 2])
    prompt["save"] = node("SaveImage", "stages", images=["decode", 0], filename_prefix="stages")
    files = submit(server, prompt).raise_for_error().files("save")
    sizes = [Image.open(io.BytesIO(fetch(server, file))).size for file in files]
    assert sizes == [(72, 64), (112, 96), (176, 160)]  # 9 x 8 cells, times 1.5 and 2.5


def test_a_batch_and_a_pixel_lift(run):
    prompt = base(64, 48, batch=2)
    prompt["composite"] = composite(
        stages='[{"scale": 2, "lift": "pixel bicubic", "start": 0.5}]', vae=["demo", 2]
    )
    save(prompt, "pair", ["composite", 0])
    assert run(prompt).latents["pair"].shape == (2, 4, 12, 16)


def test_a_target_in_pixels(run):
    prompt = base(64, 48)
    prompt["composite"] = composite(long_side=136)
    save(prompt, "target", ["composite", 0])
    assert run(prompt).latents["target"].shape == (1, 4, 13, 17)  # 6 cells * 17/8, rounded


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"stages": "2 3"}, "stages is no JSON"),
        ({"stages": '[{"scale": 2, "lift": "pixel bicubic"}]'}, "connect a VAE"),
        ({"stages": '[{"scale": 2}, {"scale": 3, "stride": 99}]'}, "stride must be"),
        ({"preset": "RepLDM"}, "the preset RepLDM enlarges the picture as pixels: connect a VAE"),
        ({"preset": "Demofusion"}, "did you mean 'DemoFusion'?"),
        ({"sampler_name": "eulr"}, "did you mean 'euler'?"),
    ],
)
def test_what_is_written_wrong_is_refused_before_the_native_picture_is_sampled(run, changes, fix):
    prompt = base()
    prompt["composite"] = composite(**changes)
    save(prompt, "none", ["composite", 0])
    with pytest.raises(PromptError) as caught:
        run(prompt)
    assert str(caught.value).count(fix) == 1


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"sampler_name": "uni_pc"}, "choose euler"),
        ({"long_side": 32}, "no smaller than the native"),
        ({"native": 8}, "native is 8 pixels"),
    ],
)
def test_bad_input_says_the_fix_before_a_stage_samples(run, changes, fix):
    prompt = base()
    prompt["composite"] = composite(**changes)
    save(prompt, "none", ["composite", 0])
    result = run(prompt, check=False).result
    assert fix in str(result.error)
    assert not any("SamplerCustomAdvanced" in name for name in result.timings)


def test_a_list_of_latents_is_refused_with_the_fix(run):
    prompt = base()
    prompt["pair"] = node("HRF_LatentList", latent_1=["native", 0], latent_2=["empty", 0])
    prompt["composite"] = composite(samples=["pair", 0])
    save(prompt, "none", ["composite", 0])
    assert "one at a time" in str(run(prompt, check=False).result.error)


def test_diffusing_by_hand_equals_the_sampler_with_noise(run):
    prompt = base()
    prompt |= {
        "select": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node(
            "BasicScheduler", model=["demo", 0], scheduler="ddim_uniform", steps=4, denoise=0.5
        ),
        "noise": node("RandomNoise", noise_seed=3),
        "silence": node("DisableNoise"),
        "guider": node("BasicGuider", model=["demo", 0], conditioning=["yes", 0]),
        "diffused": node(
            "HRF_DiffuseLatent",
            model=["demo", 0],
            samples=["native", 0],
            noise=["noise", 0],
            sigmas=["sigmas", 0],
        ),
    }
    for name, noise, start in (("one", "noise", "native"), ("two", "silence", "diffused")):
        prompt["sample_" + name] = node(
            "SamplerCustomAdvanced",
            noise=[noise, 0],
            guider=["guider", 0],
            sampler=["select", 0],
            sigmas=["sigmas", 0],
            latent_image=[start, 0],
        )
        save(prompt, name, ["sample_" + name, 0])
    out = run(prompt).latents
    assert torch.allclose(out["one"], out["two"], atol=1e-4)


def test_the_host_can_patch_and_preview_the_demo_model():
    import comfy.lora
    import comfy.sd

    from hires_fusion.demo.loader import load_demo_model

    model, clip, vae = load_demo_model()
    weights = model.model.state_dict() | clip.cond_stage_model.state_dict()
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
    lora = {}
    for part in ("attn2_to_k", "mlp_fc1"):
        name = next(n for n in names if part in n and n.startswith("lora_") and names[n] in weights)
        rows, columns = weights[names[name]].shape
        lora[f"{name}.lora_up.weight"] = torch.ones(rows, 2)
        lora[f"{name}.lora_down.weight"] = torch.ones(2, columns)
    patched = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)
    assert len(patched[0].patches) == 1 and len(patched[1].patcher.patches) == 1
    assert len(model.model.latent_format.latent_rgb_factors) == 4
    assert vae.spacial_compression_decode() == 8


def test_the_demo_model_tells_its_native_size():
    from hires_fusion.demo.loader import load_demo_model
    from hires_fusion.sampling.latents import native_cells

    assert native_cells(load_demo_model()[0].model) == 32


def test_a_restart_changes_nothing(server):
    prompt = base()
    prompt["composite"] = composite(noise_seed=13)
    save(prompt, "kept", ["composite", 0])

    def draw(host):
        (file,) = submit(host, prompt).raise_for_error().outputs["kept"]["latents"]
        return safetensors.torch.load(fetch(host, file))["latent_tensor"]

    with start_server() as fresh:
        assert torch.equal(draw(server), draw(fresh))


def test_progress_counts_views_and_never_goes_back(server):
    prompt = base(256, 256)
    prompt["composite"] = composite(noise_seed=14)
    save(prompt, "counted", ["composite", 0])
    seen = []
    submit(server, prompt, seen.append).raise_for_error()
    ours = [p for p in seen if p.node.endswith("stage_2_SamplerCustomAdvanced")]
    shares = [p.value / p.maximum for p in ours]
    assert STEPS * (9 + 4) in {p.maximum for p in ours}
    assert shares == sorted(shares) and shares[-1] == 1


def test_what_is_only_part_of_another_node_is_kept_out_of_the_search(server):
    """The page leaves out nodes for developers, and on hosts without such ones deprecated nodes."""
    nodes = server.get_json("/object_info")
    ours = {name: info for name, info in nodes.items() if name.startswith("HRF_")}
    hidden = [n for n, info in ours.items() if info.get("dev_only") or info.get("deprecated")]
    assert hidden == ["HRF_StageList"]
    assert ours["HRF_StageList"]["display_name"] == "Stage List (internal)"
