"""The roles of CritiCore: decompose, expand to tags, criticise a picture (METHODS 5.4).

Each asks an ensemble and lets the aggregator join the answers. Where the published code differs:
a single answer needs no aggregator; where the aggregator fails, the answers are joined here; where
no model answers, the user's prompt is what comes out, and the outcome says that it failed.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from . import budget, tags
from .ensemble import Question, ask_all
from .prompts import Preset, roles
from .providers import Provider
from .replies import (
    MOST_COMPONENTS,
    MOST_ISSUES,
    Critique,
    Tags,
    plain,
    read_components,
    read_critique,
    read_tags,
    says,
    unique,
)
from .report import Call, Outcome
from .secrets import CriticError

Value = TypeVar("Value")


def _schema(**lengths: tuple[int, int]) -> dict[str, Any]:
    """JSON schema of an object with lists of texts; the values are their (least, most) items."""
    lists = {
        name: {"type": "array", "items": {"type": "string"}, "minItems": least, "maxItems": most}
        for name, (least, most) in lengths.items()
    }
    return {
        "type": "object",
        "properties": lists,
        "required": list(lengths),
        "additionalProperties": False,
    }


COMPONENTS = _schema(components=(3, MOST_COMPONENTS))
TAGS = _schema(positive=(3, 26), negative=(1, 12))


def _check(prompt: str, models: tuple[str, ...], kind: str, provider: Provider) -> None:
    if not prompt.strip():
        raise CriticError("the prompt is empty: write what the picture shall show")
    if not models:
        raise CriticError(
            f"provider {provider.name!r} lists no {kind}: name one in Critic Provider, or add "
            f"{kind} to [providers.{provider.name}] in critic.toml"
        )
    provider.key()


def _ask(provider: Provider, role: str, prompt: str, reader: Any, schema: Any, **values: str):
    user = roles()[role].filled(prompt=prompt, **values)
    return [Question(role, model, user, reader, schema) for model in provider.llms]


async def _joined(
    provider: Provider, role: str, prompt: str, candidates: list[str], reader: Any, schema: Any
) -> tuple[Any, list[Call], list[str]]:
    """The aggregator's answer, or None and a warning."""
    user = roles()[role].filled(prompt=prompt, candidates="\n---\n".join(candidates))
    question = Question(role, provider.aggregator, user, reader, schema)
    answers, calls = await ask_all(provider, [question])
    if answers:
        return answers[0][1], calls, []
    return None, calls, ["the aggregator gave no answer; the answers were joined without it"]


def _missing(calls: list[Call], kept: str) -> list[str]:
    """What to say of models that did not answer."""
    failed = [call for call in calls if call.problem]
    if not failed:
        return []
    if len(failed) < len(calls):
        return [f"{len(failed)} of {len(calls)} models did not answer; the others' were used"]
    reasons = unique([f"{call.model}: {call.problem}" for call in failed], 3)
    return [f"no model answered, {kept}. {' | '.join(reasons)}"]


async def decompose(provider: Provider, prompt: str) -> Outcome[list[str]]:
    """3 to 6 components of the prompt that a picture can be checked against.

    Raises:
        CriticError: empty prompt, no models, missing key.
    """
    _check(prompt, provider.llms, "llms", provider)
    questions = _ask(provider, "decompose", prompt, read_components, COMPONENTS)
    answers, calls = await ask_all(provider, questions)
    warnings = _missing(calls, "the prompt stays one component")
    if not answers:
        return Outcome([prompt], calls, warnings, failed=True)
    found = [value for _, value in answers]
    if len(found) == 1:
        return Outcome(found[0], calls, warnings)
    listed = [json.dumps({"components": components}) for components in found]
    merged, more, warned = await _joined(
        provider, "merge_components", prompt, listed, read_components, COMPONENTS
    )
    merged = merged or tags.vote(found, MOST_COMPONENTS)
    return Outcome(merged, [*calls, *more], [*warnings, *warned])


async def expand(
    provider: Provider,
    prompt: str,
    preset: Preset,
    count: budget.Counter = budget.estimate,
    limit: int = budget.LIMIT,
) -> Outcome[Tags]:
    """Comma tags of a short prompt, the subject first, inside the token budget; and negative tags.

    Where no model answers, positive is the prompt alone and negative the preset's.

    Raises:
        CriticError: empty prompt, no models, missing key.
    """
    _check(prompt, provider.llms, "llms", provider)
    seeds = tags.join(preset.seeds(prompt)) or "none"
    questions = _ask(provider, "tags", prompt, read_tags, TAGS, seeds=seeds)
    answers, calls = await ask_all(provider, questions)
    warnings = _missing(calls, "the prompt is unchanged")
    if not answers:
        return Outcome(Tags([prompt], list(preset.negative)), calls, warnings, failed=True)
    merged = answers[0][1]
    if len(answers) > 1:
        found = [value for _, value in answers]
        listed = [json.dumps(t._asdict()) for t in found]
        merged, more, warned = await _joined(
            provider, "merge_tags", prompt, listed, read_tags, TAGS
        )
        calls, warnings = [*calls, *more], [*warnings, *warned]
        merged = merged or Tags(
            tags.vote([t.positive for t in found]), tags.vote([t.negative for t in found], 12)
        )
    # One reply may hold tags with commas inside, where the model was not held to a schema.
    positive = [tag for entry in merged.positive for tag in tags.split(entry)]
    fitted = budget.fit(tags.with_subject(prompt, [*positive, *preset.floor]), count, limit)
    warnings = [*warnings, *fitted.warnings()]
    wanted = [prompt, *positive]
    negative = [tag for tag in merged.negative if not tags.holds(wanted, tag)]
    negative = tags.unique([*preset.negative, *negative])
    return Outcome(Tags([fitted.prompt], negative), calls, warnings)


def look(text: str, picture: str) -> list[dict[str, Any]]:
    """A user message of a text and a picture (a data URI)."""
    return [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": picture}},
    ]


async def critique(
    provider: Provider, prompt: str, components: list[str], picture: str
) -> Outcome[Critique]:
    """Faults of a picture, and the prompt that would avoid them.

    Args:
        components: what the prompt asks for, from `decompose`.
        picture: PNG as a data URI.

    Raises:
        CriticError: empty prompt, no models, missing key.
    """
    _check(prompt, provider.vlms, "vlms", provider)
    listed = "\n".join(components) or prompt
    text = roles()["critique"].filled(prompt=prompt, components=listed)
    questions = [
        Question("critique", model, look(text, picture), read_critique) for model in provider.vlms
    ]
    answers, calls = await ask_all(provider, questions)
    warnings = _missing(calls, "the prompt is unchanged")
    if not answers:
        return Outcome(Critique([], prompt), calls, warnings, failed=True)
    found = [value for _, value in answers]
    if len(found) == 1:
        return Outcome(_complete(found[0], prompt, warnings), calls, warnings)
    listed_all = [
        f"[{model}]\n<issues>\n{chr(10).join(value.issues)}\n</issues>\n"
        f"<refined>{value.refined}</refined>"
        for model, value in answers
    ]
    merged, more, warned = await _joined(
        provider, "merge_critiques", prompt, listed_all, read_critique, None
    )
    warnings = [*warnings, *warned]
    merged = merged or Critique(
        unique([issue for value in found for issue in value.issues], MOST_ISSUES),
        next((value.refined for value in found if says(value.refined)), ""),
    )
    return Outcome(_complete(merged, prompt, warnings), [*calls, *more], warnings)


def _complete(value: Critique, prompt: str, warnings: list[str]) -> Critique:
    """The verdict with the user's prompt where it names none of its own."""
    if says(value.refined):
        return value
    warnings.append("the critic gave no refined prompt: the prompt is unchanged")
    return value._replace(refined=prompt)


def external(text: str, prompt: str) -> Outcome[Critique]:
    """A verdict that another node wrote: the two tags, JSON, or just the refined prompt."""
    warnings: list[str] = []
    if not text.strip():
        warnings.append("the critique is empty: the prompt is unchanged")
        return Outcome(Critique([], prompt), [], warnings, failed=True)
    found = read_critique(text)
    if found is None:
        found = read_critique(f"<refined>{plain(text).replace('<', ' ')}</refined>")
    return Outcome(_complete(found or Critique([], ""), prompt, warnings), [], warnings)
