"""DLSF's fusers of a base and a refined latent (Chen and Yang, MVA 2025)."""

from __future__ import annotations

import os

from comfy_api.latest import io

from ..sampling import fusers
from .schema import advanced, schema


def pair_inputs() -> list[io.Input]:
    """The two latents."""
    return [
        io.Latent.Input("base", tooltip="The finished latent of the base model."),
        io.Latent.Input(
            "refined",
            tooltip="The same picture after the refiner, or after any image-to-image pass; of "
            "the same size.",
        ),
    ]


def format_inputs() -> list[io.Input]:
    """What the latents are made of."""
    return [
        advanced(
            io.Combo.Input(
                "latent_format",
                options=list(fusers.formats()),
                default="SDXL",
                tooltip="The kind of model that the latents come from, which a LATENT does not "
                "tell. Not used when a model is connected.",
            )
        ),
        io.Model.Input(
            "model",
            optional=True,
            tooltip="The model that the latents come from; tells their format by itself.",
        ),
    ]


def fuser_inputs(weights: str) -> list[io.Input]:
    """Where the weight map comes from."""
    return [
        io.Combo.Input(
            "mode",
            options=list(fusers.MODES),
            default="published",
            tooltip="published: untrained layers with random weights from the seed, as the "
            "authors' results were made; about half of each latent, with random variation. "
            "weights: a trained fuser from a file. blend: one ratio everywhere, the plain "
            "baseline.",
        ),
        io.Float.Input(
            "ratio",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="For the mode blend: share of the refined latent. 0 is the base itself, 1 "
            "the refined latent.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="For the mode published: draws the untrained weights.",
        ),
        io.Combo.Input(
            "weights",
            options=fusers.fuser_files(),
            default=weights,
            tooltip="For the mode weights: a file from ComfyUI's models/latent_fusion/. Those "
            "called demo_ belong to the demo model.",
        ),
    ]


def fused_outputs() -> list[io.Output]:
    """The result, and what was taken from where."""
    return [
        io.Latent.Output(tooltip="The fused latent."),
        io.Mask.Output(tooltip="Share of the refined latent, one pixel a cell."),
    ]


class _Fuser(io.ComfyNode):
    """What the two fusers share."""

    KIND = ""

    @classmethod
    def execute(
        cls, base, refined, mode, ratio, seed, weights, latent_format, model=None
    ) -> io.NodeOutput:
        known = fusers.find_format(latent_format, model)
        fused = fusers.fuse(
            cls.KIND,
            base,
            refined,
            mode=mode,
            ratio=ratio,
            seed=seed,
            weights=weights,
            latent_format=known,
        )
        return io.NodeOutput(*fused)

    @classmethod
    def fingerprint_inputs(cls, mode, weights, **others):
        # A file that was trained again under its name is another input. None: linked.
        known = mode == "weights" and weights in fusers.fuser_files()
        return os.path.getmtime(fusers.fuser_path(weights)) if known else ""


class AdaptiveGlobalFusion(_Fuser):
    KIND = "agf"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_AdaptiveGlobalFusion",
            display_name="Adaptive Global Fusion (DLSF, AGF)",
            category="fusion",
            search_aliases=["dlsf", "refiner", "blend latents", "fusion"],
            description="Fuses a base and a refined latent cell by cell. How much of each is "
            "taken depends on all channels of both at that cell.",
            inputs=[*pair_inputs(), *fuser_inputs("demo_agf.safetensors"), *format_inputs()],
            outputs=fused_outputs(),
        )


class DynamicSpatialFusion(_Fuser):
    KIND = "dsf"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_DynamicSpatialFusion",
            display_name="Dynamic Spatial Fusion (DLSF, DSF)",
            category="fusion",
            search_aliases=["dlsf", "refiner", "blend latents", "fusion", "attention"],
            description="Fuses a base and a refined latent by a map that looks at 7 x 7 cells: "
            "at the mean over channels of the refined latent and the maximum of the base.",
            inputs=[*pair_inputs(), *fuser_inputs("demo_dsf.safetensors"), *format_inputs()],
            outputs=fused_outputs(),
        )
