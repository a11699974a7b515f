"""Progressive upsample-diffuse-denoise: expands into the primitive nodes, stage by stage."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..fusion_ops.stages import PRESETS, Stage, plan_stages, stage_size
from ..sampling import conditioning
from ..sampling.latents import cell_pixels, native_cells, patch_cells
from ..sampling.lift import check_latent
from ..sampling.samplers import access
from .dilated import native_input
from .latents import MOST_LATENTS
from .schema import advanced, schema
from .tiled import view_batch_input


class ProgressiveUpscale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_ProgressiveUpscale",
            display_name="Progressive Upscale",
            category="",
            search_aliases=["demofusion", "hires fix", "upscale", "multidiffusion"],
            description="Turns a finished picture of the model's native size into a larger one "
            "that the model draws itself: enlarges it, noises it, samples it again, stage by "
            "stage. It expands into the nodes of this pack, so finished stages stay cached.",
            inputs=[
                io.Model.Input("model", tooltip="The model, with any LoRA."),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Conditioning.Input("negative", tooltip="What to avoid."),
                io.Latent.Input(
                    "samples",
                    tooltip="The finished picture of native size: a sampler's output, or an "
                    "encoded image.",
                ),
                io.Float.Input(
                    "scale",
                    default=2.0,
                    min=1.01,
                    max=16.0,
                    step=0.01,
                    tooltip="Final size against the native one. The preset chooses the sizes on "
                    "the way (DemoFusion: every whole number). Not used if stages are listed.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="DemoFusion",
                    tooltip="The published method whose stages to run.",
                ),
                io.Int.Input(
                    "noise_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of all stages' noise and window shifts.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=1000,
                    tooltip="Steps of each stage's schedule, of which it skips the init rate's "
                    "share at the start (the papers' num_resample_timesteps).",
                ),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance scale. 1 skips the negative prompt, for distilled models.",
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
                advanced(view_batch_input()),
                io.String.Input(
                    "stages",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip='Own stages as JSON, such as [{"scale": 2}, {"scale": 4, "start": 0.3, '
                    '"cfg": 4}]; what a stage leaves out is the preset\'s. Empty for the preset.',
                ),
                io.Vae.Input("vae", optional=True, tooltip="Only for stages with a pixel lift."),
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
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Share of its steps that each stage runs. 1 is as published; lower "
                    "keeps more of the picture, as for a photograph.",
                ),
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
    stages: str = "",
    init_rates: str = "",
    vae: Any = None,
    long_side: int = 0,
    native: int = 0,
    **settings: Any,
) -> io.NodeOutput:
    """The graph of all stages. `wires` are the node's inputs as links: nodes are cached by what
    they are linked to, and values would keep the finished stages from being found again."""
    first = check_latent(samples)
    if long_side:
        scale = long_side / (max(first) * cell_pixels(model.model))
    plan = plan_stages(preset, scale, stages or "", init_rates or "")
    cells = native_cells(model.model, native)
    check_plan(plan, vae, settings)

    settings |= {"native": native, "window": cells if native else 0}
    settings |= {name: wires[name] for name in ("model", "positive", "negative")}
    graph = GraphBuilder()
    finished = [wires["samples"]]
    for number, stage in enumerate(plan, 2):
        builder = StageBuilder(graph, stage, number, cells)
        size = stage_size(first, stage.scale, patch_cells(model.model))
        lifted = builder.lift(finished[-1], size, wires.get("vae"))
        sampled = builder.sample(lifted, **settings)
        finished.append(builder.match(sampled, reference=finished[0]))
    listed = graph.node(
        "HRF_StageList", **{f"latent_{i}": link for i, link in enumerate(finished, 1)}
    )
    return io.NodeOutput(finished[-1], listed.out(0), expand=graph.finalize())


def check_plan(plan: list[Stage], vae: Any, settings: dict[str, Any]) -> None:
    """Raise ValueError, with the fix, for what a stage would refuse after others have run."""
    if len(plan) >= MOST_LATENTS:
        raise ValueError(f"{len(plan)} stages: list at most {MOST_LATENTS - 1}")
    if vae is None and any(stage.lift.startswith("pixel") for stage in plan):
        raise ValueError("a stage has a pixel lift: connect a VAE, or lift it in latent space")
    for stage in plan:
        if stage.skip_residual:
            access(comfy.samplers.sampler_object(settings["sampler_name"]))
    if any(stage.tiled or stage.dilated for stage in plan):
        conds = {name: [c[1] for c in settings[name]] for name in ("positive", "negative")}
        conditioning.check(conds)


class StageBuilder:
    """Adds the nodes of one stage to an expansion; each method returns the link to its result.

    Args:
        number: counts stages, the native one being 1. It names the nodes and makes the stage's
            seed, so that a stage stays the same, and cached, whatever follows it.
        cells: native side of the model.
    """

    def __init__(self, graph: GraphBuilder, stage: Stage, number: int, cells: int):
        self.graph = graph
        self.stage = stage
        self.number = number
        self.cells = cells

    def node(self, class_type: str, **inputs: Any) -> list:
        """The first output of a new node."""
        name = f"stage_{self.number}_{class_type.removeprefix('HRF_')}"
        return self.graph.node(class_type, id=name, **inputs).out(0)

    def lift(self, latent: list, size: tuple[int, int], vae: list | None) -> list:
        """Upsample a finished latent to `size` cells."""
        options = {"vae": vae} if self.stage.lift.startswith("pixel") else {}
        return self.node(
            "HRF_UpsampleLatent",
            samples=latent,
            scale=1.0,
            method=self.stage.lift,
            height=size[0],
            width=size[1],
            **options,
        )

    def sample(
        self,
        latent: list,
        *,
        model: list,
        positive: list,
        negative: list,
        noise_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        native: int,
        window: int,
        view_batch_size: int = 0,
        strength: float = 1.0,
    ) -> list:
        """Noise a lifted latent and sample it again."""
        stage = self.stage
        if stage.tiled:
            model = self.node(
                "HRF_TiledDiffusion",
                model=model,
                window=window,
                stride=stage.stride_cells(self.cells),
                jitter=stage.jitter,
                weights="uniform",
                view_batch_size=view_batch_size,
                border=stage.border,
            )
        if stage.dilated:
            model = self.node(
                "HRF_DilatedSampling",
                model=model,
                factor=0,
                cosine_scale_2=stage.cosine_scale_2,
                cosine_scale_3=stage.cosine_scale_3,
                sigma=stage.sigma,
                interaction=stage.interaction,
                native=native,
            )
        sampler = self.node("KSamplerSelect", sampler_name=sampler_name)
        if stage.skip_residual:
            sampler = self.node(
                "HRF_SkipResidual", sampler=sampler, cosine_scale_1=stage.cosine_scale_1
            )
        sigmas = self.node(
            "HRF_InitRateSigmas",
            model=model,
            init_rate=stage.start + (1 - stage.start) * (1 - strength),
            num_resample_timesteps=stage.steps or steps,
            scheduler=scheduler,
        )
        return self.node(
            "SamplerCustomAdvanced",
            noise=self.node("RandomNoise", noise_seed=(noise_seed + self.number) % 2**64),
            guider=self.node(
                "CFGGuider",
                model=model,
                positive=positive,
                negative=negative,
                cfg=cfg if stage.cfg is None else stage.cfg,
            ),
            sampler=sampler,
            sigmas=sigmas,
            latent_image=latent,
        )

    def match(self, latent: list, reference: list) -> list:
        """Give the finished latent the native one's statistics, where the stage does that."""
        if not self.stage.match:
            return latent
        return self.node("HRF_MatchStatistics", samples=latent, reference=reference)
