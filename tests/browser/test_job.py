"""The main job from an empty canvas, by mouse and keyboard: found, wired, run, stopped, refused."""

from __future__ import annotations

import pytest

from .page import LINKS

# The pack's names for methods, as a user types them, and the node that should be offered. Hosts
# of 0.3.75 know no aliases, so the names alone have to do.
METHODS = {
    "demofusion": "Progressive Upscale",
    "repldm": "Attentive Guidance",
    "progressive": "Progressive Upscale",
    "multidiffusion": "Tiled Diffusion",
    "hires fix": "Upsample Latent",
    "dilated": "Dilated Sampling",
    "skip residual": "Skip Residual",
    "scalediff": "Windowed Attention",
    "diffusehigh": "Structure Guidance",
    "frecas": "Renoise Sigmas",
    "pixelrush": "Added Noise",
    "accdiffusion": "View Prompts",
    "critifusion": "CritiCore",
    "specfusion": "SpecFusion",
    "dlsf": "Adaptive Global Fusion",
    "demo model": "Load Demo Model",
}
# What a user places: what he types, the name that he takes, where.
PLACED = (
    ("demo model", "Load Demo Model", (110, 200)),
    ("clip text encode", "CLIP Text Encode (Prompt)", (110, 430)),
    ("empty latent image", "Empty Latent Image", (110, 720)),
    ("ksampler", "KSampler", (560, 200)),
    ("demofusion", "Progressive Upscale (DemoFusion, RepLDM …)", (900, 200)),
    ("vae decode", "VAE Decode", (1400, 200)),
    ("preview image", "Preview Image", (1400, 400)),
)
WIRES = (
    ("HRF_LoadDemoModel", "CLIP", "CLIPTextEncode", "clip"),
    ("HRF_LoadDemoModel", "MODEL", "KSampler", "model"),
    ("CLIPTextEncode", "CONDITIONING", "KSampler", "positive"),
    ("CLIPTextEncode", "CONDITIONING", "KSampler", "negative"),
    ("EmptyLatentImage", "LATENT", "KSampler", "latent_image"),
    ("HRF_LoadDemoModel", "MODEL", "HRF_ProgressiveUpscale", "model"),
    ("CLIPTextEncode", "CONDITIONING", "HRF_ProgressiveUpscale", "positive"),
    ("CLIPTextEncode", "CONDITIONING", "HRF_ProgressiveUpscale", "negative"),
    ("KSampler", "LATENT", "HRF_ProgressiveUpscale", "samples"),
    ("HRF_LoadDemoModel", "VAE", "HRF_ProgressiveUpscale", "vae"),
    ("HRF_ProgressiveUpscale", "latent", "VAEDecode", "samples"),
    ("HRF_LoadDemoModel", "VAE", "VAEDecode", "vae"),
    ("VAEDecode", "IMAGE", "PreviewImage", "images"),
)
# The newest node, to a place of its own.
MOVE = """([x, y]) => {
    const node = app.graph.nodes.reduce((a, b) => (Number(a.id) > Number(b.id) ? a : b));
    node.pos = [x, y];
    app.canvas.setDirty(true, true);
}"""
IMAGE, SAMPLER = "Preview Image", "Progressive Upscale (DemoFusion, RepLDM …)"
PREVIEWED = """(type) => {
    const { id } = app.graph.nodes.find((n) => n.type === type);
    return !!(app.nodePreviewImages?.[id]?.length);
}"""


def test_every_method_is_found_by_its_name(canvas):
    missing = {}
    for typed, name in METHODS.items():
        offered = canvas.search(typed)
        if not any(text.startswith(name) for text in offered[:8]):
            missing[typed] = offered[:8]
    assert missing == {}
    assert not any("demofusion" in text.lower() for text in canvas.search("no such node"))
    canvas.close_search()


@pytest.fixture
def job(canvas):
    """The main job, placed and wired by hand on an empty canvas; small and quick."""
    # All of it left of the panel of properties, which other tests may have left open.
    canvas.page.evaluate("() => { app.canvas.ds.scale = 0.62; app.canvas.ds.offset = [60, 60]; }")
    for typed, name, at in PLACED:
        canvas.place(typed, name)
        canvas.page.evaluate(MOVE, at)
    canvas.settle()
    for source, output, target, slot in WIRES:
        canvas.wire(source, output, target, slot)
    assert sorted(canvas.page.evaluate(LINKS)) == sorted(map(list, WIRES))
    for name, value in (("width", 256), ("height", 256), ("steps", 2), ("scale", 2)):
        canvas.set(name, value)
    canvas.set("text", "a red hot-air balloon over snowy mountains")
    return canvas


def test_the_main_job_is_placed_wired_run_stopped_and_run_again(job):
    job.shot("job")
    job.run()
    assert job.pictures(IMAGE) == [[512, 512]]
    assert job.complaints() == [] and not job.running()
    job.shot("job_done")

    # Long enough to be met in its midst.
    job.set("steps", 400, SAMPLER)
    job.run()
    job.page.wait_for_function(PREVIEWED, arg="HRF_ProgressiveUpscale")
    assert job.running() == 1
    job.shot("job_running")
    job.cancel()
    while job.running():
        job.page.wait_for_timeout(200)
    job.settle()
    assert all("has been interrupted" in text for text in job.complaints())
    job.close_dialogs()

    job.set("steps", 3, SAMPLER)
    before = job.made(IMAGE)
    job.run()
    while job.made(IMAGE) == before or job.running():
        job.page.wait_for_timeout(200)
        assert job.trouble() == {}
    assert job.pictures(IMAGE) == [[512, 512]]

    job.set("stages", "[{]", SAMPLER)
    job.run()
    job.page.wait_for_function("() => Object.keys(app.lastNodeErrors ?? {}).length > 0")
    job.settle()
    job.shot("refused")
    said = " ".join(job.complaints())
    assert "stages is no JSON" in said and "write a JSON list" in said
    job.close_dialogs()
    job.set("stages", "", SAMPLER)
    job.run()
    assert job.pictures(IMAGE) == [[512, 512]] and job.complaints() == []
