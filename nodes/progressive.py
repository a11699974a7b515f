"""Progressive upsample-diffuse-denoise: expands into the primitive nodes, stage by stage."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder
from torch import Tensor

from ..fusion_ops.presets import PRESETS
from ..fusion_ops.stage import Stage
from ..fusion_ops.stages import Wish, plan_run, plan_stages, settle, stage_size
from ..sampling.latents import cell_pixels, native_cells, patch_cells
from ..sampling.lift import check_latent
from ..sampling.networks import is_told_guidance
from ..sampling.preflight import Step, check_steps, check_vae, known_views, stage_views
from ..sampling.renoise import is_flow, places
from .dilated import native_input
from .expansion import StageBuilder
from .latents import image_input
from .schema import advanced, schema
from .stage import StageWire
from .tiled import view_batch_input


class ProgressiveUpscale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_ProgressiveUpscale",
            display_name="Progressive Upscale (DemoFusion, RepLDM …)",
            category="",
            search_aliases=[
                "demofusion",
                "repldm",
                "ap-ldm",
                "hires fix",
                "upscale",
                "multidiffusion",
                "freescale",
                "4k",
            ],
            description="Turns a finished picture of the model's native size into a larger one "
            "that the model draws itself: enlarges it, noises it, samples it again, stage by "
            "stage. It expands into the nodes of this pack, so finished stages stay cached while "
            "noise_seed and the seed of the native picture are fixed.",
            inputs=[
                io.Model.Input("model", tooltip="The model, with any LoRA."),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Conditioning.Input("negative", tooltip="What to avoid."),
                io.Latent.Input(
                    "samples",
                    tooltip="The finished picture of native size: a sampler's output, or an "
                    "encoded image.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Of the model. All presets but DemoFusion, DemoFusion-Turbo and "
                    "MultiDiffusion need it: they enlarge the picture as pixels.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="HiRes Fusion best",
                    tooltip="The published method whose stages to run, or one of our own.",
                ),
                io.Float.Input(
                    "scale",
                    default=2.0,
                    min=1.0,
                    max=16.0,
                    step=0.01,
                    tooltip="Final size against that of samples. The preset chooses the sizes on "
                    "the way (DemoFusion: every whole number). 1 refines a picture that is large "
                    "already. Not used if stages are listed.",
                ),
                io.Int.Input(
                    "noise_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of all stages' noise and window shifts. New nodes draw another "
                    "one after every run: set control after generate to fixed, here and where "
                    "the native picture is sampled, and finished stages stay cached.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Steps of each stage's schedule, of which it runs the last part (the "
                    "papers' num_resample_timesteps). 0 for the preset's own: 50 for most, 30 for "
                    "flow models, 8 at a cfg of 1.",
                ),
                io.Float.Input(
                    "cfg",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance scale. 1 skips the negative prompt, for distilled models "
                    "(Turbo, Lightning). 0 for the preset's own.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=list(comfy.samplers.SAMPLER_NAMES),
                    default="euler",
                    tooltip="euler or ddim are as published.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=list(comfy.samplers.SCHEDULER_NAMES),
                    default="ddim_uniform",
                    tooltip="Noise schedule; ddim_uniform is as published.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="How much is drawn anew, the same for every preset: the share of the "
                    "schedule that is run. 0.1 sharpens, 0.3 redraws detail, 0.6 changes shapes, "
                    "1 begins at pure noise. 0 for the preset's own.",
                ),
                image_input(),
                io.UpscaleModel.Input(
                    "upscale_model",
                    optional=True,
                    tooltip="From Load Upscale Model, such as an ESRGAN: enlarges in place of "
                    "interpolation where a stage goes through pixels.",
                ),
                StageWire.Input(
                    "stage",
                    optional=True,
                    tooltip="From Stage: own stages as nodes, instead of the preset's.",
                ),
                advanced(
                    io.Int.Input(
                        "long_side",
                        default=0,
                        min=0,
                        max=65536,
                        step=8,
                        optional=True,
                        tooltip="Longer side of the final picture in pixels, instead of scale. "
                        "0 for scale.",
                    )
                ),
                native_input(),
                advanced(view_batch_input(optional=True)),
                advanced(
                    io.String.Input(
                        "init_rates",
                        default="",
                        optional=True,
                        tooltip="Share of the schedule that each stage skips, such as 0.9, 0.8 "
                        "for two stages; their sizes are then evenly apart. Empty for the "
                        "preset's.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "stages",
                        default="",
                        multiline=True,
                        optional=True,
                        tooltip='Own stages as JSON, such as [{"scale": 2}, {"scale": 4, "start": '
                        '0.3, "cfg": 4}]; what a stage leaves out is the preset\'s. Empty for the '
                        "preset.",
                    )
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The finished picture."),
                io.Latent.Output(
                    display_name="stages",
                    is_output_list=True,
                    tooltip="All finished stages as a list, the native one first.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            is_input_list=True,
            enable_expand=True,
        )

    @classmethod
    def validate_inputs(cls, preset=None, stages="", init_rates="", scale=2.0, **others):
        """Refuse what is written wrong, and a missing VAE, before the native picture is sampled.

        None stands for what is linked: it is seen when the node runs.
        """
        if None in (preset, stages, init_rates):
            return True
        known = scale is not None and not others.get("long_side", 0)
        try:
            plan = plan_stages(preset, scale if known else 2.0, stages, init_rates)
            if "vae" not in others and "stage" not in others:
                check_vae(preset, plan, bool(stages.strip()))
        except ValueError as problem:
            return str(problem)
        return True

    @classmethod
    def execute(cls, **lists) -> io.NodeOutput:
        inputs = {name: only_one(name, values) for name, values in lists.items()}
        wires = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]
        return expand_stages(wires, **inputs)


def only_one(name: str, values: list) -> Any:
    """The value of an input. A list of several would be expanded once for each of them, and each
    expansion is linked to all of them."""
    if len(values) != 1:
        raise ValueError(
            f"{name} is a list of {len(values)}: Progressive Upscale takes one at a time "
            "(a batch is one latent); connect the node to one item of the list"
        )
    return values[0]


def expand_stages(
    wires: dict[str, Any],
    *,
    model: Any,
    samples: dict,
    scale: float,
    preset: str,
    steps: int = 0,
    cfg: float = 0.0,
    stages: str = "",
    stage: tuple[Stage, ...] = (),
    init_rates: str = "",
    vae: Any = None,
    upscale_model: Any = None,
    image: Tensor | None = None,
    long_side: int = 0,
    native: int = 0,
    strength: float = 0.0,
    **settings: Any,
) -> io.NodeOutput:
    """The graph of all stages. `wires` are the node's inputs as links: nodes are cached by what
    they are linked to, and values would keep the finished stages from being found again."""
    first = check_latent(samples)
    base = model.model
    if long_side:
        scale = long_side / (max(first) * cell_pixels(base))
    cells = native_cells(base, native)
    known = known_views(model)
    wishes = known.wishes(cells)
    flow = is_flow(model)
    wish = Wish(steps, cfg, flow, is_told_guidance(base))
    if stage and stages.strip():
        raise ValueError("both stage and stages are given: empty stages, or disconnect stage")
    plan = plan_run(preset, scale, stage or stages, init_rates, wishes, wish)
    if upscale_model is not None:
        plan = plan.enlarged_by_model()
    if vae is None:
        check_vae(preset, plan.stages, bool(stage or stages.strip()))
    run = []
    for settled in settle(plan, places(model), flow, strength):
        size = stage_size(first, settled.scale, patch_cells(base))
        before = run[-1].size if run else first
        run.append(Step(settled, size, before, stage_views(settled, known, cells, native)))
    check_steps(
        model,
        run,
        samples["samples"],
        conds={name: settings[name] for name in ("positive", "negative")},
        sampler_name=settings["sampler_name"],
        scheduler=settings["scheduler"],
        vae=vae,
        upscale_model=upscale_model,
        image=image,
    )
    settings |= {name: wires[name] for name in ("model", "positive", "negative")}
    settings["view_batch_size"] = settings.get("view_batch_size") or known.view_batch_size
    graph = GraphBuilder()
    finished = [wires["samples"]]
    for number, step in enumerate(run, 2):
        builder = StageBuilder(graph, step, number, native)
        picture = wires["image"] if image is not None and number == 2 else None
        lifted = builder.lift(finished[-1], wires.get("vae"), wires.get("upscale_model"), picture)
        sampled = builder.sample(lifted, **settings)
        finished.append(builder.match(sampled, reference=finished[0]))
    listed = graph.node(
        "HRF_StageList", **{f"latent_{i}": link for i, link in enumerate(finished, 1)}
    )
    return io.NodeOutput(finished[-1], listed.out(0), expand=graph.finalize())
