"""What the benchmarks measure is what the nodes do."""

from __future__ import annotations

import pytest
import torch

from hires_fusion.fusion_ops.schedule import skipped_steps
from lab.bench.methods import METHODS, progressive
from lab.bench.task import NATIVE, Task, draw_native
from lab.pack import Session

STARTS = {"DemoFusion-Turbo": 0.3}
# Of two steps at cfg 5. What starts late enough has one of them; windows are 9, lattices 4.
CALLS = {
    "Upsample Guidance": 2 * (2 + 1),  # shrunk in the first step alone
    "DemoFusion, pixel lift": 2 * 2 * (9 + 4),
    "DemoFusion lean": 2 * 2 * (9 + 4),
    "RectifiedHR": 2,
    "RectifiedHR (released)": 2,
    "FreCaS": 2,
    "ScaleDiff": 2,
    "DiffuseHigh": 2,
    "Rush": 2 * 2 * 9 + 9,  # and one at cfg 1 that finds the noise
    "HiRes Fusion fast": 1,  # without cfg
    "HiRes Fusion best": 1,  # whose cfg has ended by then
}
PROMPT, SEED, STEPS = "a red hot-air balloon at sunset", 5, 2


@pytest.fixture(scope="module")
def session():
    return Session(STEPS)


def task(session, scale=2):
    return Task(session, PROMPT, SEED, scale, draw_native(session, PROMPT, SEED))


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def workflow(preset, scale):
    """Native picture and Progressive Upscale as a user would wire them."""
    common = {
        "model": ["demo", 0],
        "positive": ["yes", 0],
        "negative": ["no", 0],
        "steps": STEPS,
        "cfg": 5.0,
        "sampler_name": "euler",
        "scheduler": "ddim_uniform",
    }
    prompt = {
        "demo": node("HRF_LoadDemoModel"),
        "yes": node("CLIPTextEncode", text=PROMPT, clip=["demo", 1]),
        "no": node("CLIPTextEncode", text="", clip=["demo", 1]),
        "empty": node("EmptyLatentImage", width=256, height=256, batch_size=1),
        "native": node("KSampler", latent_image=["empty", 0], seed=SEED, denoise=1.0, **common),
        "large": node(
            "HRF_ProgressiveUpscale",
            samples=["native", 0],
            scale=float(scale),
            preset=preset,
            noise_seed=SEED,
            view_batch_size=0,
            vae=["demo", 2],
            **common,
        ),
    }
    for name in ("native", "large"):
        saved = node("SaveLatent", samples=[name, 0], filename_prefix=name)
        prompt[f"save {name}"] = saved | {"_meta": {"title": f"save {name}"}}
    return prompt


@pytest.mark.parametrize(
    ("preset", "scale"), [("DemoFusion", 3), ("DemoFusion-Turbo", 2), ("RepLDM", 2)]
)
def test_presets_draw_what_progressive_upscale_draws(run, session, preset, scale):
    latents = run(workflow(preset, scale)).latents
    asked = task(session, scale)
    assert torch.allclose(asked.native, latents["save native"], atol=1e-4)
    mine, theirs = progressive(asked, preset), latents["save large"]
    assert mine.shape == theirs.shape == (1, 4, NATIVE * scale, NATIVE * scale)
    assert (mine - theirs).norm() <= 1e-3 * theirs.norm()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "Real-ESRGAN"])
def test_every_method_draws_a_picture_and_its_calls_are_counted(session, name):
    asked = task(session)
    before = session.calls
    picture = METHODS[name].draw(asked)
    assert picture.shape == (1, 3, 512, 512)
    assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.02
    windows, lattices, branches = 9, 4, 2
    views = {
        "bicubic": 0,
        "direct": 1,
        "MultiDiffusion": windows,
        "Deep Shrink": 1,
        "dilated only": 1 + lattices,
        "DemoFusion-Turbo": 9 + lattices,
        "without dilation": windows,
        "FreeScale-style restart": 1,
    }.get(name, 1 if "LDM" in name else windows + lattices)
    steps = STEPS - skipped_steps(STEPS, STARTS.get(name, 0.8 if "LDM" in name else 0.0))
    native = STEPS if name == "RepLDM" else 0  # it draws one of its own, with guidance
    expected = CALLS.get(name, branches * (steps * views + native))
    assert session.calls - before == expected
