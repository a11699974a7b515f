"""Merging tags and refined prompt, and CritiFusion's whole critic as one node."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..critic import budget
from ..critic.report import Outcome
from .critic import counter, failures, note, prompt_input, provider_input, refresh_input, show
from .critic_roles import HIDDEN, clip_input, critique_input, preset_input
from .schema import advanced, schema


class MergePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_MergePrompt",
            display_name="Merge Prompt (Token Budget)",
            category="prompt",
            search_aliases=["critifusion", "77 tokens", "clip budget"],
            description="Makes one prompt of a refined prompt and tags: subject first, nothing "
            "twice, inside what the text encoder reads at once. Asks no model.",
            inputs=[
                prompt_input(),
                io.String.Input(
                    "refined",
                    optional=True,
                    force_input=True,
                    tooltip="Critique Image's prompt. Its first clause becomes the subject.",
                ),
                io.String.Input(
                    "tags", optional=True, force_input=True, tooltip="Expand Tags' positive tags."
                ),
                clip_input(),
                advanced(
                    io.Int.Input(
                        "max_tokens",
                        default=0,
                        min=0,
                        max=4096,
                        optional=True,
                        tooltip="Most tokens, with start and end mark. 0 for one window of the "
                        "CLIP, 77 without one.",
                    )
                ),
            ],
            outputs=[
                io.String.Output(display_name="merged", tooltip="The prompt for the sampler."),
                io.String.Output(
                    display_name="trimmed", tooltip="What was left out for the budget."
                ),
                io.String.Output(display_name="report", tooltip="Tokens used and left out."),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def execute(cls, prompt, refined=None, tags=None, clip=None, max_tokens=0) -> io.NodeOutput:
        options = counter(clip) | ({"limit": max_tokens} if max_tokens else {})
        merged = budget.merge(prompt, refined or "", tags or "", **options)
        done = Outcome(merged, warnings=merged.warnings())
        note(cls, "merge", done)
        report = f"merged prompt: {merged.summary()}\n{done.report()}".strip()
        return io.NodeOutput(merged.prompt, ", ".join(merged.trimmed), report)


class CritiCore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_CritiCore",
            display_name="CritiCore (CritiFusion)",
            category="prompt",
            search_aliases=["critifusion", "prompt enhancer", "llm", "vlm"],
            description="CritiFusion's whole critic: components, tags, a verdict on the picture, "
            "and one merged prompt. It expands into the nodes of this menu.",
            inputs=[
                prompt_input(),
                provider_input(),
                preset_input(),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture to judge; it is sent to the provider. Without one the "
                    "tags alone are merged with the prompt.",
                ),
                clip_input(),
                critique_input(),
                refresh_input(),
            ],
            outputs=[
                io.String.Output(display_name="merged", tooltip="The prompt for the second pass."),
                io.String.Output(display_name="positive", tooltip="The tags."),
                io.String.Output(display_name="negative", tooltip="What to avoid."),
                io.String.Output(display_name="refined", tooltip="The critic's prompt."),
                io.String.Output(display_name="issues", tooltip="What is wrong in the picture."),
                io.String.Output(display_name="report", tooltip="The reports of all parts."),
            ],
            hidden=HIDDEN,
            enable_expand=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return failures("decompose", "tags", "critique")

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        show(cls.hidden.unique_id, {})
        return expand(cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"])


def expand(wires: dict) -> io.NodeOutput:
    """The critic's graph. `wires` are the node's inputs as links, so that parts stay cached."""

    def taken(*names: str) -> dict:
        return {name: wires[name] for name in names if name in wires}

    graph = GraphBuilder()
    common = taken("prompt", "provider", "refresh")
    expanded = graph.node("HRF_ExpandTags", id="tags", **common, **taken("preset", "clip"))
    reports = [expanded.out(2)]
    refined, issues = wires["prompt"], ""
    if "critique" in wires:
        judged = graph.node("HRF_CritiqueImage", id="critique", **taken("prompt", "critique"))
    elif "image" in wires:
        parts = graph.node("HRF_DecomposePrompt", id="decompose", **common)
        judged = graph.node(
            "HRF_CritiqueImage",
            id="critique",
            components=parts.out(0),
            **common,
            **taken("image"),
        )
        reports.append(parts.out(2))
    else:
        judged = None
    if judged is not None:
        refined, issues = judged.out(0), judged.out(1)
        reports.append(judged.out(2))
    merged = graph.node(
        "HRF_MergePrompt",
        id="merge",
        refined=refined,
        tags=expanded.out(0),
        **taken("prompt", "clip"),
    )
    whole = merged.out(2)
    for number, report in enumerate(reports):
        joined = graph.node(
            "StringConcatenate",
            id=f"report_{number}",
            string_a=report,
            string_b=whole,
            delimiter="\n\n",
        )
        whole = joined.out(0)
    return io.NodeOutput(
        merged.out(0),
        expanded.out(0),
        expanded.out(1),
        refined,
        issues,
        whole,
        expand=graph.finalize(),
    )
