"""What graphs and users know of the nodes: the committed snapshot, old graphs, languages."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from hires_fusion.nodes import NODES
from tools import surface

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "run python -m tools.surface"
OLD = sorted((Path(__file__).parent / "old_graphs").glob("*.json"))
NOW = sorted((ROOT / "workflows").glob("**/api/*.json"))


@pytest.fixture(scope="module")
def info():
    """Our nodes, as /object_info has them."""
    return {
        node.GET_SCHEMA().node_id: json.loads(json.dumps(node.GET_NODE_INFO_V1())) for node in NODES
    }


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_snapshot_is_what_the_nodes_are(info):
    known = surface.contract(info)
    saved = load(surface.SNAPSHOT)
    changed = [n for n in {*known, *saved} if known.get(n) != saved.get(n)]
    assert not changed, f"if it is meant, {COMMAND}"
    assert surface.SNAPSHOT.read_text(encoding="utf-8") == surface.snapshot_text(known)


@pytest.mark.parametrize("path", [*OLD, *NOW], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_graphs_keep_loading(path, info):
    assert surface.refusals(load(path), surface.contract(info)) == []


def test_there_are_old_graphs():
    kinds = {entry["class_type"] for path in OLD for entry in load(path).values()}
    assert len(OLD) >= 2 and {"HRF_ProgressiveUpscale", "HRF_TiledDiffusion"} <= kinds


@pytest.mark.parametrize("path", NOW, ids=lambda path: path.stem)
def test_who_asks_models_shows_the_report(path, info):
    """Warnings on a node vanish from newer pages when the job ends; the report stays."""
    prompt = load(path)
    previews = [e for e in prompt.values() if e["class_type"] == "PreviewAny"]
    shown = [tuple(entry["inputs"]["source"]) for entry in previews]
    for number, entry in prompt.items():
        outputs = info.get(entry["class_type"], {}).get("output_name", [])
        if "report" in outputs and {"provider", "critique"} & entry["inputs"].keys():
            assert (number, outputs.index("report")) in shown, entry["class_type"]


def test_what_would_not_load_is_told(info):
    known = surface.contract(info)
    prompt = {
        "1": {"class_type": "HRF_VAELimits", "inputs": {"vae": ["2", 2], "tile_size": 1}},
        "2": {"class_type": "HRF_LoadDemoModel", "inputs": {"variant": "other", "gone": 3}},
        "3": {"class_type": "HRF_Unheard", "inputs": {}},
        "4": {"class_type": "HRF_LatentList", "inputs": {"latent_1": ["2", 2]}},
    }
    told = "\n".join(surface.refusals(prompt, known))
    for word in ("gone", "'other'", "tile_size does not", "multi_encoder is required", "no such"):
        assert word in told
    assert "4 HRF_LatentList: latent_1 is linked" in told and "vae is linked" not in told


def test_a_changed_input_is_seen(info):
    changed = copy.deepcopy(info)
    changed["HRF_TiledDiffusion"]["input"]["required"]["window"][1]["default"] = 5
    del changed["HRF_SkipResidual"]["output"][0], changed["HRF_SkipResidual"]["output_name"][0]
    del changed["HRF_SkipResidual"]["output_is_list"][0]
    before, after = surface.contract(info), surface.contract(changed)
    differ = {name for name in before if before[name] != after[name]}
    assert differ == {"HRF_TiledDiffusion", "HRF_SkipResidual"}


@pytest.mark.parametrize("language", ["en", *surface.LANGUAGES])
def test_a_language_is_complete_and_of_today(language, info):
    table = None if language == "en" else surface.read_table(language)
    if table is not None:
        assert surface.gaps(info, table) == ([], []), f"mend tools/words, then {COMMAND}"
    for name, wanted in surface.locale(info, table).items():
        assert load(surface.LOCALES / language / name) == wanted, f"{COMMAND}"


@pytest.mark.parametrize("language", surface.LANGUAGES)
def test_a_translation_keeps_what_is_no_word(language):
    """Numbers with a fraction, and names of methods and inputs, are the same in every language.

    A text with signs of messages is told in other words."""
    told = surface.read_table(language).items()
    for text, said in (one for one in told if not surface.SPECIAL.search(one[0])):
        for number in re.findall(r"\d+\.\d+", text):
            assert number.rstrip("0") in said, (text, said)
        for name in re.findall(r"\b(?:[A-Z]\w*[A-Z]\w*|\w+_\w+)\b", text):
            if text != name:
                assert name in said, (name, said)


@pytest.mark.parametrize("language", surface.LANGUAGES)
def test_long_texts_have_no_signs_of_messages(language):
    """Hosts differ in how they read these in tooltips, so translations do without."""
    for text, said in surface.read_table(language).items():
        assert len(text) < 40 or not surface.SPECIAL.search(said), said


def test_a_changed_text_has_no_translation_any_more(info):
    changed = copy.deepcopy(info)
    changed["HRF_SkipResidual"]["description"] += " Anew."
    table = surface.read_table("zh")
    missing, stale = surface.gaps(changed, table)
    assert [text[-5:] for text in missing] == ["Anew."] and len(stale) == 1
    made = surface.locale(changed, table)["nodeDefs.json"]["HRF_SkipResidual"]
    assert "description" not in made and "display_name" in made


def test_signs_of_messages_are_escaped():
    assert surface.escaped("a @ {b}|50%") == "a {'@'} {'{'}b{'}'}{'|'}50{'%'}"
    defs = {"X": {"display_name": "50%", "description": "50 % of it"}}
    assert surface.localized(defs, None) == {"X": {"display_name": "50{'%'}"}}
