"""What a stage of Progressive Upscale expands into: this pack's primitive nodes and the host's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from comfy_execution.graph_utils import GraphBuilder

from ..fusion_ops.upsample import MODEL_LIFT
from ..sampling.preflight import Step

OTHER_NOISE = 1000  # from the seed of a stage's noise to that of the noise on its result


class StageBuilder:
    """Adds the nodes of one stage to an expansion; each method returns the link to its result.

    Args:
        number: counts stages, the native one being 1. It names the nodes and makes the stage's
            seed, so that a stage stays the same, and cached, whatever follows it.
        native: native size in pixels, 0 for the model family's.
    """

    def __init__(self, graph: GraphBuilder, step: Step, number: int, native: int = 0):
        self.graph = graph
        self.step = step
        self.stage = step.stage
        self.number = number
        self.native = native

    def node(self, class_type: str, again: str = "", **inputs: Any) -> list:
        """The first output of a new node; `again` tells it from one of its class."""
        name = f"stage_{self.number}_{class_type.removeprefix('HRF_')}{again}"
        return self.graph.node(class_type, id=name, **inputs).out(0)

    def lift(
        self,
        latent: list,
        vae: list | None,
        upscale_model: list | None = None,
        image: list | None = None,
    ) -> list:
        """Upsample a finished latent, of which `image` is the picture, to the stage's size."""
        stage = self.stage
        if stage.lift == "none":
            return latent
        options = {}
        if stage.needs_vae:
            options = {
                name: getattr(stage, name) for name in ("unsharp", "unsharp_sigma", "lfm")
            } | {"vae": vae}
            if image:
                options["image"] = image
        if stage.lift == MODEL_LIFT:
            options["upscale_model"] = upscale_model
        return self.node(
            "HRF_UpsampleLatent",
            samples=latent,
            scale=1.0,
            method=stage.lift,
            height=self.step.size[0],
            width=self.step.size[1],
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
        sampler_name: str,
        scheduler: str,
        view_batch_size: int = 0,
    ) -> list:
        """Noise a lifted latent and sample it again."""
        stage = self.stage
        seed = noise_seed + self.number
        viewed = self.viewed(model, view_batch_size)
        sampler = self.node("KSamplerSelect", sampler_name=sampler_name)
        if stage.skip_residual:
            sampler = self.node(
                "HRF_SkipResidual", sampler=sampler, cosine_scale_1=stage.cosine_scale_1
            )
        sampled = self.node(
            "SamplerCustomAdvanced",
            noise=self.noise(seed, viewed, positive),
            guider=self.node(
                "CFGGuider",
                model=self.guided(viewed, latent),
                positive=positive,
                negative=negative,
                cfg=stage.cfg,
            ),
            sampler=sampler,
            sigmas=self.sigmas(model, scheduler),
            latent_image=latent,
        )
        if not stage.added_noise:
            return sampled
        other = self.node("RandomNoise", "Added", noise_seed=(seed + OTHER_NOISE) % 2**64)
        return self.node(
            "HRF_AddedNoise", model=model, samples=sampled, noise=other, std=stage.added_noise
        )

    def viewed(self, model: list, view_batch_size: int) -> list:
        """The MODEL with what acts inside the network, and with the views of the canvas."""
        stage, views = self.stage, self.step.views
        if stage.windowed_attention:
            model = self.node(
                "HRF_WindowedAttention",
                model=model,
                query_block=stage.query_block,
                window=stage.attention_window,
                jitter=stage.jitter,
                start_percent=0.0,
                end_percent=1.0,
                native=self.native,
            )
        if stage.tiled:
            local = asdict(views.local)
            model = self.node(
                "HRF_TiledDiffusion", model=model, view_batch_size=view_batch_size, **local
            )
        if stage.dilated:
            model = self.node("HRF_DilatedSampling", model=model, **asdict(views.dilated))
        if stage.upsample:
            model = self.node(
                "HRF_UpsampleGuidance",
                model=model,
                weight=stage.upsample,
                start_percent=0.0,
                end_percent=stage.upsample_end,
                factor=views.upsample.factor,
                native=views.upsample.native,
            )
        return model

    def guided(self, model: list, reference: list) -> list:
        """The MODEL with what acts on its prediction; `reference` is the lifted latent."""
        stage = self.stage
        if stage.structure:
            model = self.node(
                "HRF_StructureGuidance",
                model=model,
                reference=reference,
                weight=stage.structure,
                schedule=stage.structure_schedule,
                low_pass=stage.structure_low_pass,
                cutoff=stage.structure_cutoff,
                start_percent=0.0,
                end_percent=stage.structure_end,
            )
        if stage.split_cfg:
            model = self.node(
                "HRF_FrequencyGuidance",
                model=model,
                cfg_low=-1.0 if stage.cfg_low is None else stage.cfg_low,
                cfg_high=-1.0 if stage.cfg_high is None else stage.cfg_high,
                low_pass=stage.cfg_low_pass,
                cutoff=self.step.cfg_cutoff,
                start_percent=0.0,
                end_percent=1.0,
            )
        if stage.cfg != 1 and (stage.cfg_start, stage.cfg_end) != (0, 1):
            model = self.node(
                "HRF_GuidanceInterval",
                model=model,
                start_percent=stage.cfg_start,
                end_percent=stage.cfg_end,
            )
        return model

    def noise(self, seed: int, model: list, positive: list) -> list:
        """What the picture is noised with: drawn, or found in it by the positive prompt alone."""
        drawn = self.node("RandomNoise", noise_seed=seed % 2**64)
        if self.stage.fresh_noise == 1:
            return drawn
        finder = self.node("BasicGuider", model=model, conditioning=positive)
        return self.node(
            "HRF_InversionNoise", guider=finder, noise=drawn, share=self.stage.fresh_noise
        )

    def sigmas(self, model: list, scheduler: str) -> list:
        """The noise levels of the run."""
        stage = self.stage
        if stage.sigma is None:
            return self.node(
                "HRF_InitRateSigmas",
                model=model,
                init_rate=stage.start,
                num_resample_timesteps=stage.steps,
                scheduler=scheduler,
                end_rate=stage.end,
            )
        return self.node(
            "HRF_RenoiseSigmas",
            model=model,
            sigma=stage.sigma,
            steps=stage.steps,
            scheduler=scheduler,
            scale=1.0,
            gamma=0.0,
            end_sigma=stage.end_sigma,
        )

    def match(self, latent: list, reference: list) -> list:
        """Give the finished latent the native one's statistics, where the stage does that."""
        if not self.stage.match:
            return latent
        return self.node("HRF_MatchStatistics", samples=latent, reference=reference)
