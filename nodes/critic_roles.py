"""Three of CritiFusion's roles as nodes: components, tags, critique."""

from __future__ import annotations

from comfy_api.latest import io

from ..critic import prompts, roles, tags
from ..critic.ensemble import in_thread
from ..critic.pictures import data_uri
from ..critic.secrets import CriticError
from .critic import (
    consult,
    counter,
    failures,
    prompt_input,
    provider_input,
    refresh_input,
    report_output,
    resolved,
)
from .schema import schema

HIDDEN = [io.Hidden.unique_id, io.Hidden.dynprompt]


class DecomposePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_DecomposePrompt",
            display_name="Decompose Prompt",
            category="prompt",
            search_aliases=["critifusion", "llm"],
            description="Lets language models break a prompt up into 3 to 6 parts that a picture "
            "can be checked against.",
            inputs=[prompt_input(), provider_input(), refresh_input()],
            outputs=[
                io.String.Output(display_name="components", tooltip="The parts, one a line."),
                io.String.Output(
                    display_name="list", is_output_list=True, tooltip="The parts as a list."
                ),
                report_output(),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return failures("decompose")

    @classmethod
    async def execute(cls, prompt, provider, refresh=0) -> io.NodeOutput:
        done = await consult(cls, "decompose", roles.decompose(resolved(provider), prompt))
        return io.NodeOutput("\n".join(done.value), done.value, done.report())


def preset_input() -> io.Input:
    """The seed words."""
    about = "; ".join(f"{p.name}: {p.about}" for p in prompts.presets().values())
    return io.Combo.Input(
        "preset",
        options=list(prompts.presets()),
        default="hq_preference",
        tooltip=f"Words that the models build on. {about}.",
    )


def clip_input() -> io.Input:
    """Whose tokens are counted."""
    return io.Clip.Input(
        "clip",
        optional=True,
        tooltip="Its tokenizer counts the budget, and sets it: 77 for SDXL and SD 1.5. Without "
        "it 1.3 tokens a word are assumed.",
    )


class ExpandTags(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_ExpandTags",
            display_name="Expand Tags (Prompt Enhancer)",
            category="prompt",
            search_aliases=["critifusion", "prompt enhancer", "llm"],
            description="Lets language models expand a short prompt to comma tags, subject first, "
            "and merges what they write.",
            inputs=[
                prompt_input(),
                provider_input(),
                preset_input(),
                clip_input(),
                refresh_input(),
            ],
            outputs=[
                io.String.Output(
                    display_name="positive", tooltip="The tags, inside the token budget."
                ),
                io.String.Output(display_name="negative", tooltip="What to avoid."),
                report_output(),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return failures("tags")

    @classmethod
    async def execute(cls, prompt, provider, preset, clip=None, refresh=0) -> io.NodeOutput:
        words = prompts.preset(preset)
        work = roles.expand(resolved(provider), prompt, words, **counter(clip))
        done = await consult(cls, "tags", work)
        positive, negative = (tags.join(found) for found in done.value)
        return io.NodeOutput(positive, negative, done.report())


def critique_input() -> io.Input:
    """A verdict from elsewhere."""
    return io.String.Input(
        "critique",
        optional=True,
        force_input=True,
        tooltip="A verdict that another node wrote, instead of a provider's: with "
        "<issues>…</issues> and <refined>…</refined>, or just the refined prompt.",
    )


class CritiqueImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_CritiqueImage",
            display_name="Critique Image (VLM)",
            category="prompt",
            search_aliases=["critifusion", "vlm", "vision"],
            description="Lets vision-language models compare a picture with its prompt, list what "
            "is wrong, and write a better prompt. Or takes such a verdict from another node.",
            inputs=[
                prompt_input(),
                provider_input(optional=True),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture to judge; the first of a batch. It is scaled down "
                    "(768 pixels unless configured) and sent to the provider.",
                ),
                io.String.Input(
                    "components",
                    optional=True,
                    force_input=True,
                    tooltip="What to check: Decompose Prompt's parts, one a line.",
                ),
                critique_input(),
                refresh_input(),
            ],
            outputs=[
                io.String.Output(display_name="refined", tooltip="The better prompt."),
                io.String.Output(display_name="issues", tooltip="What is wrong, one a line."),
                report_output(),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return failures("critique")

    @classmethod
    async def execute(
        cls, prompt, provider=None, image=None, components="", critique=None, refresh=0
    ) -> io.NodeOutput:
        if critique is not None:
            # In a thread: what other nodes write may be long.
            done = await consult(cls, "critique", in_thread(roles.external, critique, prompt))
        elif provider is None or image is None:
            raise CriticError("connect provider and image, or a critique from another node")
        else:
            asked = resolved(provider)
            parts = [line for line in (components or "").splitlines() if line.strip()]
            picture = data_uri(image[0].float().cpu().numpy(), asked.image_side)
            done = await consult(cls, "critique", roles.critique(asked, prompt, parts, picture))
        return io.NodeOutput(done.value.refined, "\n".join(done.value.issues), done.report())
