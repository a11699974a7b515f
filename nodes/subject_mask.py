"""Where the subject of a prompt is in a picture, after AccDiffusion, arXiv 2407.10738."""

from __future__ import annotations

from comfy_api.latest import io

from ..sampling.subject import find_subject, subject_tokens, to_pixels
from .schema import advanced, schema


class SubjectMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_SubjectMask",
            display_name="Subject Mask (Attention)",
            category="prompt",
            search_aliases=["attention map", "daam", "segment", "accdiffusion", "regional"],
            description="Finds where a finished picture has what some words of its prompt name: "
            "the model looks at the picture under a little noise, and its attention to the words "
            "is read. For View Prompts, so that a large picture is told of its subject only where "
            "it is. Works on photographs, too.",
            inputs=[
                io.Model.Input("model", tooltip="SD 1.5, SD 2, SDXL or the demo model."),
                io.Clip.Input("clip", tooltip="The CLIP that goes with it."),
                io.Latent.Input(
                    "samples",
                    tooltip="The finished picture: drawn by the model, or any image through VAE "
                    "Encode. Large ones are read at the model's native size.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="What the picture shows, subject and surroundings: its prompt.",
                ),
                io.String.Input(
                    "subjects",
                    default="",
                    tooltip="The words of the prompt to look for, as the prompt writes them, "
                    "separated by commas: hot-air balloon, rope.",
                ),
                io.Int.Input(
                    "evaluations",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="How often the model looks, each time under another amount of noise. "
                    "More is smoother; each costs one evaluation at native size.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    tooltip="Of the noise under which the model looks.",
                ),
                advanced(
                    io.Float.Input(
                        "threshold",
                        default=1.0,
                        min=0.1,
                        max=10.0,
                        step=0.05,
                        optional=True,
                        tooltip="How much attention, in means over the picture, makes a mask of "
                        "one half. Larger: a smaller mask.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "softness",
                        default=0.5,
                        min=0.0,
                        max=10.0,
                        step=0.05,
                        optional=True,
                        tooltip="How far attention rises, in means, from a mask of 0 to one of 1.",
                    )
                ),
            ],
            outputs=[
                io.Mask.Output(tooltip="1 where the subject is, of the picture's size."),
                io.String.Output(
                    display_name="report",
                    tooltip="How much of each picture is subject, or that it has no place of its "
                    "own, where the mask is 1 everywhere.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        samples,
        prompt,
        subjects,
        evaluations,
        seed,
        threshold=1.0,
        softness=0.5,
    ) -> io.NodeOutput:
        tokens = subject_tokens(clip, prompt, subjects)
        positive = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        found = find_subject(
            *(model, samples["samples"], positive, tokens),
            *(evaluations, seed, threshold, softness),
        )
        lines = [
            f"'{subjects}': {mask.mean():.0%} of picture {number}"
            if placed
            else f"'{subjects}': no place of its own in picture {number}, mask 1 everywhere"
            for number, (mask, placed) in enumerate(zip(*found, strict=True), 1)
        ]
        return io.NodeOutput(to_pixels(model, found.mask), "\n".join(lines))
