"""What ComfyUI's template browser calls each workflow, in its order.

`workflows/api/<name>.json` in API format is written by hand, or made by `tools.ready`;
`example_workflows/<number title>.json` is the file to drag, beside it its picture. The page shows
a file's name and nothing else, so it has to tell what comes out and what model it takes.
"""

from __future__ import annotations

from pathlib import Path

from tools.host import ROOT

API = ROOT / "workflows" / "api"
GRAPHS = ROOT / "example_workflows"

NAMES = {
    "sdxl_best": "01 Text to 4K, best (SDXL)",
    "sdxl_fast": "02 Text to 4K, fast (SDXL)",
    "sdxl_enlarge": "03 Enlarge my picture (SDXL)",
    "sdxl_demofusion": "04 DemoFusion as published (SDXL)",
    "sdxl_repldm": "05 RepLDM (SDXL)",
    "sdxl_controlnet": "06 ControlNet (SDXL)",
    "sdxl_regions": "07 Regional prompts (SDXL)",
    "sdxl_fusion": "08 Base, refiner and fusion (SDXL)",
    "sdxl_critifusion": "09 CritiFusion (SDXL)",
    "sd15_best": "11 Text to 4K, best (SD 1.5)",
    "sd15_fast": "12 Text to 4K, fast (SD 1.5)",
    "sd15_enlarge": "13 Enlarge my picture (SD 1.5)",
    "flux_best": "21 Text to 4K, best (Flux.1)",
    "flux_fast": "22 Text to 4K, fast (Flux.1)",
    "flux_enlarge": "23 Enlarge my picture (Flux.1)",
    "klein_best": "31 Text to 4K, best (Flux 2 Klein)",
    "klein_fast": "32 Text to 4K, fast (Flux 2 Klein)",
    "klein_enlarge": "33 Enlarge my picture (Flux 2 Klein)",
    "z_image_best": "41 Text to 4K, best (Z-Image-Turbo)",
    "z_image_fast": "42 Text to 4K, fast (Z-Image-Turbo)",
    "z_image_enlarge": "43 Enlarge my picture (Z-Image-Turbo)",
    "qwen_best": "51 Text to 4K, best (Qwen-Image)",
    "qwen_fast": "52 Text to 4K, fast (Qwen-Image)",
    "qwen_enlarge": "53 Enlarge my picture (Qwen-Image)",
    "demofusion_demo": "61 DemoFusion, first tour (demo model)",
    "demofusion_by_hand": "62 DemoFusion, wired by hand (demo model)",
    "repldm_demo": "63 RepLDM (demo model)",
    "repldm_by_hand": "64 RepLDM, wired by hand (demo model)",
    "repldm_image": "65 Enlarge my picture, RepLDM (demo model)",
    "repldm_controlnet": "66 RepLDM with ControlNet (SDXL)",
    "refine_large_demo": "67 Refine a picture that is large already (demo model)",
    "shallow_refine_demo": "68 Shallow refining pass (demo model)",
    "detail_prompt": "69 A prompt for details (demo model)",
    "subject_mask_demo": "70 A prompt for each place (demo model)",
    "windowed_attention_demo": "71 Windowed attention (demo model)",
    "guidance_demo": "72 Guidance of predictions (demo model)",
    "base_refiner_demo": "73 Base, refiner, fusion (demo model)",
    "sdxl_base_refiner": "74 Base, refiner, both fusers (SDXL)",
    "specfusion_demo": "75 SpecFusion (demo model)",
    "critic_demo": "76 Prompt critic (demo model)",
    "critic_verdict": "77 Prompt critic without a network (demo model)",
    "critifusion_demo": "78 CritiFusion, all four variants (demo model)",
    "critifusion_sdxl": "79 CritiFusion, all four variants (SDXL)",
    "evaluate_demo": "80 Compare two sets of pictures (demo model)",
    "stages_demo": "81 Stages, wired by hand (demo model)",
    "rectifiedhr_by_hand": "82 RectifiedHR, wired by hand (demo model)",
    "frecas_by_hand": "83 FreCaS, wired by hand (demo model)",
}


def api(name: str) -> Path:
    """The source of a workflow."""
    return API / f"{name}.json"


def graph(name: str) -> Path:
    """The file to drag."""
    if name not in NAMES:
        raise ValueError(f"{name} has no name yet for the template browser: add it to NAMES")
    return GRAPHS / f"{NAMES[name]}.json"


def picture(name: str) -> Path:
    """What the template browser shows of it."""
    return graph(name).with_suffix(".jpg")
