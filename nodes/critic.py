"""The prompt critic's provider, and what its nodes share."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
from comfy_api.latest import io

from ..critic import ensemble, providers
from ..critic.report import Outcome
from ..critic.secrets import CriticError
from ..sampling.tokens import token_counter
from .schema import advanced, schema

CriticWire = io.Custom("HRF_CRITIC")
_SALT = secrets.token_bytes(16)
# Role -> how often it failed as a whole. Part of the fingerprint: a failure is not cached.
_failures: Counter[str] = Counter()
# Node on the page -> role -> the warnings that stand there.
_warned: dict[str, dict[str, list[str]]] = {}


def config_file() -> Path:
    """Where the providers are configured; in a folder that the host's HTTP API does not serve."""
    return Path(folder_paths.get_system_user_directory("hires_fusion")) / "critic.toml"


def provider_input(**options: Any) -> io.Input:
    """The wire from Critic Provider."""
    return CriticWire.Input("provider", tooltip="Who is asked: Critic Provider.", **options)


def prompt_input() -> io.Input:
    """The user's own prompt."""
    return io.String.Input(
        "prompt",
        multiline=True,
        default="",
        tooltip="Your own prompt. It comes out unchanged where no model answers.",
    )


def refresh_input() -> io.Input:
    """For a wanted second run."""
    return io.Int.Input(
        "refresh",
        default=0,
        min=0,
        max=0xFFFFFFFF,
        optional=True,
        tooltip="Changes nothing but the cache: another number asks the models again. With "
        "unchanged inputs the last answers stay.",
    )


def report_output() -> io.Output:
    """What every role says of its calls."""
    return io.String.Output(
        display_name="report",
        tooltip="Warnings, who answered, seconds, tokens, and the cost where prices are "
        "configured.",
    )


async def consult(node: type[io.ComfyNode], role: str, work: Any) -> Outcome:
    """Await a role's work so that Cancel ends it at once; show its warnings on the node."""
    check = comfy.model_management.throw_exception_if_processing_interrupted
    outcome = await ensemble.watched(work, check)
    note(node, role, outcome)
    return outcome


def note(node: type[io.ComfyNode], role: str, outcome: Outcome) -> None:
    """Put an outcome's warnings on the node and into the log; remember a failure."""
    _failures[role] += outcome.failed
    for warning in outcome.warnings:
        logging.warning("HiRes Fusion, %s: %s", role, warning)
    hidden = node.hidden
    shown = hidden.dynprompt.get_display_node_id(hidden.unique_id)
    # The parts of an expansion share one place on the page.
    others = _warned.get(shown, {}) if shown != hidden.unique_id else {}
    show(shown, {**others, role: outcome.warnings})


def show(shown: str, warnings: dict[str, list[str]]) -> None:
    """Write warnings, by role, on a node of the page; none takes away those of an earlier run."""
    # Here, because the host's server is more than a process without one can import.
    from server import PromptServer

    lines = [f"Warning: {warning}" for said in warnings.values() for warning in said]
    if lines or any(_warned.get(shown, {}).values()):
        PromptServer.instance.send_progress_text("\n".join(lines), shown)
    _warned[shown] = warnings


def failures(*roles: str) -> int:
    """Fingerprint of nodes with these roles: changes after a failure."""
    return sum(_failures[role] for role in roles)


def counter(clip: Any | None) -> dict[str, Any]:
    """Arguments of a budget from a wired CLIP; none without one."""
    return token_counter(clip)._asdict() if clip is not None else {}


class CriticProvider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_CriticProvider",
            display_name="Critic Provider (LLM)",
            category="prompt",
            search_aliases=["llm", "openai", "ollama", "openrouter", "together"],
            description="Names the service whose language models are asked. Addresses and keys "
            "are configured on the server (critic.toml, see the help page), never in a workflow.",
            inputs=[
                io.Combo.Input(
                    "provider",
                    options=providers.names(config_file()),
                    default="local",
                    tooltip="A service with an OpenAI-compatible API. Your prompts, and the "
                    "pictures of Critique Image, are sent to it.",
                ),
                advanced(
                    io.String.Input(
                        "llms",
                        default="",
                        optional=True,
                        tooltip="Models for components and tags, with commas between them. Empty "
                        "for those configured.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "vlms",
                        default="",
                        optional=True,
                        tooltip="Models that judge pictures, with commas between them. Empty for "
                        "those configured.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "aggregator",
                        default="",
                        optional=True,
                        tooltip="Model that joins the answers of several. Empty for the one "
                        "configured.",
                    )
                ),
            ],
            outputs=[
                CriticWire.Output(
                    display_name="provider", tooltip="For the critic's nodes. Holds names only."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, provider, llms="", vlms="", aggregator=""):
        if provider is None:  # linked: seen when it runs
            return True
        try:
            providers.resolve(choice(provider, llms, vlms, aggregator), config_file()).key()
        except CriticError as problem:
            return str(problem)
        return True

    @classmethod
    def fingerprint_inputs(cls, provider, **models):
        # Salted: it is written into pictures with the workflow, and must tell nothing.
        known = providers.load(config_file()).get(provider)
        said = repr((known, known and known.base_url, known and known.prices))
        return hashlib.blake2b(said.encode(), key=_SALT, digest_size=8).hexdigest()

    @classmethod
    def execute(cls, provider, llms="", vlms="", aggregator="") -> io.NodeOutput:
        chosen = choice(provider, llms, vlms, aggregator)
        providers.resolve(chosen, config_file()).key()
        return io.NodeOutput(chosen)


def choice(provider: str, llms: str, vlms: str, aggregator: str) -> providers.Choice:
    """The wire's value; CriticError for what is no name of a model."""
    try:
        one = providers.model_names(aggregator)
        if len(one) > 1:
            raise ValueError("aggregator takes one model")
        return providers.Choice(
            provider, providers.model_names(llms), providers.model_names(vlms), "".join(one)
        )
    except ValueError as problem:
        raise CriticError(str(problem)) from None


def resolved(wire: providers.Choice) -> providers.Provider:
    """The provider behind a wire."""
    return providers.resolve(wire, config_file())
