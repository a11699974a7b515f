"""Figures of how far generated images are from reference images."""

from __future__ import annotations

import warnings
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from ..evaluation.compare import METRICS, compare
from ..evaluation.features import INCEPTION_FILE
from ..evaluation.report import plot, table
from .schema import schema

FEATURES = ("EfficientNet-Lite0", "Inception-v3")
FOLDER = "evaluation"


def models_folder() -> Path:
    """models/evaluation, or the folder that extra_model_paths.yaml gives this name."""
    if FOLDER in folder_paths.folder_names_and_paths:
        return Path(folder_paths.get_folder_paths(FOLDER)[0])
    return Path(folder_paths.models_dir) / FOLDER


def names(metrics: str) -> list[str]:
    return [name.strip() for name in metrics.replace("\n", ",").split(",") if name.strip()]


class EvaluateImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_EvaluateImages",
            display_name="Evaluate Images (FID, CLIP Score …)",
            category="evaluation",
            search_aliases=["fid", "kid", "clip score", "lpips", "metrics", "benchmark"],
            description="Measures how far a batch of generated images is from a batch of "
            "reference images, with 95 % intervals. Needs packages that are not installed with "
            "this pack; an error names them with the line for pip. Runs on the CPU.",
            inputs=[
                io.Image.Input("generated", tooltip="The images to judge."),
                io.Image.Input(
                    "reference",
                    tooltip="The images to compare them with; another number and size is allowed.",
                ),
                io.String.Input(
                    "metrics",
                    default="FID, KID, precision, recall, spectrum",
                    tooltip=f"What to compute, separated by commas, of: {', '.join(METRICS)}. "
                    "Metrics of features carry the feature network in their name: FID-Lite0.",
                ),
                io.Combo.Input(
                    "features",
                    options=list(FEATURES),
                    tooltip="Network behind FID, sFID, KID, precision, recall and IS. "
                    f"Inception-v3 gives the published ones and needs {INCEPTION_FILE} in "
                    "models/evaluation.",
                ),
                io.Int.Input(
                    "crops",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Also measure on so many random crops of each image; the field's "
                    "protocol for large images is 10. 0: none.",
                ),
                io.Int.Input(
                    "crop_size",
                    default=1024,
                    min=8,
                    max=16384,
                    tooltip="Side of a crop in pixels: the model's native size.",
                ),
                io.Int.Input(
                    "bootstrap",
                    default=200,
                    min=0,
                    max=10000,
                    tooltip="Rounds for the 95 % intervals. 0: no intervals.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="A line for each generated image, for CLIP score, PickScore, HPSv2 "
                    "and ImageReward.",
                ),
            ],
            outputs=[
                io.String.Output(tooltip="The figures as a Markdown table."),
                io.Image.Output(tooltip="Power spectra of both sets, and the figures."),
            ],
        )

    @classmethod
    def validate_inputs(cls, metrics: str | None = None) -> bool | str:
        """Refuse an unknown metric before the images are made."""
        unknown = [name for name in names(metrics or "") if name not in METRICS]
        return f"no metric {unknown[0]!r}: choose from {', '.join(METRICS)}" if unknown else True

    @classmethod
    def execute(
        cls, generated, reference, metrics, features, crops, crop_size, bootstrap, prompts
    ) -> io.NodeOutput:
        bar = comfy.utils.ProgressBar(1)

        def watch(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        made, seen = (i[..., :3].movedim(-1, 1).clamp(0, 1) for i in (generated, reference))
        models = models_folder()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the table says it
            scores = compare(
                made,
                seen,
                metrics=names(metrics),
                crops=crops,
                crop_size=crop_size if crops else 0,
                bootstrap=bootstrap,
                prompts=prompts.strip().splitlines() or None,
                progress=False,
                extractor=models / INCEPTION_FILE if features == FEATURES[1] else None,
                models=models,
                watch=watch,
            )
        picture = np.asarray(plot(scores, made, seen), np.float32) / 255
        return io.NodeOutput(table(scores), torch.from_numpy(picture)[None])
