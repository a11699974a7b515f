"""Evaluate Images on a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tools.client import PromptError

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "api" / "evaluate_demo.json"


def small():
    """The workflow with 4 pictures of 64 pixels and few steps."""
    prompt = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    prompt["4"]["inputs"] |= {"width": 64, "height": 64, "batch_size": 4}
    for node, steps in (("5", 2), ("6", 4)):
        prompt[node]["inputs"]["steps"] = steps
    prompt["11"]["inputs"] |= {"bootstrap": 20, "crops": 2, "crop_size": 32}
    return prompt


def figures(out):
    """Rows of the table: name -> (value, samples)."""
    (text,) = out.result.outputs["12"]["text"]
    rows = re.findall(r"^\| ([\w -]+?) \| (\S+) \| [^|]+ \| (\d+) \|", text, re.M)
    return {name: (float(value), int(count)) for name, value, count in rows}, text


def test_the_workflow_measures_what_it_draws(run):
    out = run(small())
    found, text = figures(out)
    assert list(found) == [
        *("FID-Lite0", "FID-crop-Lite0", "KID-Lite0", "KID-crop-Lite0"),
        *("precision-Lite0", "precision-crop-Lite0", "recall-Lite0", "recall-crop-Lite0"),
        *("spectrum", "ST-LPIPS"),
    ]
    assert found["FID-Lite0"][0] > 0 and found["spectrum"][0] > 0 and found["ST-LPIPS"][0] > 0
    assert {count for name, (_, count) in found.items() if "crop" not in name} == {4}
    assert {count for name, (_, count) in found.items() if "crop" in name} == {8}
    assert "Biased upwards by few samples: FID-Lite0 (4 samples for 1280" in text
    plot = out.images["plot"]
    assert plot.shape[0] == 1 and plot.shape[2] == 960 and plot.std() > 0.05
    assert np.array_equal(run(small()).images["plot"], plot)


def test_a_set_has_no_distance_to_itself(run):
    prompt = small()
    prompt["11"]["inputs"] |= {"reference": ["7", 0], "crops": 0}
    found, _ = figures(run(prompt))
    assert found["FID-Lite0"][0] < 1e-5 and found["spectrum"][0] == found["ST-LPIPS"][0] == 0
    assert found["precision-Lite0"][0] == found["recall-Lite0"][0] == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"crop_size": 96}, "smaller than crop_size 96"),
        ({"metrics": "CLIP score"}, "CLIP score needs prompts"),
        (
            {"metrics": "Aesthetic"},
            r"no file .*evaluation.*sac\+logos.*improved-aesthetic-predictor",
        ),
        ({"features": "Inception-v3"}, r"no file .*evaluation.*weights-inception"),
    ],
)
def test_what_is_wrong_or_missing_is_said(run, change, message):
    prompt = small()
    prompt["11"]["inputs"] |= change
    assert re.search(message, str(run(prompt, check=False).result.error))


def test_an_unknown_metric_is_refused_before_anything_is_drawn(run):
    prompt = small()
    prompt["11"]["inputs"]["metrics"] = "FID, beauty"
    with pytest.raises(PromptError, match="no metric 'beauty': choose from FID, sFID"):
        run(prompt)


def test_a_missing_package_is_said_with_the_line_for_pip(monkeypatch):
    import sys

    import torch

    from hires_fusion.nodes.evaluate import EvaluateImages

    for module in [name for name in sys.modules if name.split(".")[0] == "torch_fidelity"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    images = torch.rand(4, 32, 32, 3)
    with pytest.raises(ImportError, match=r"python -m pip install torch-fidelity==0\.4\.0$"):
        EvaluateImages.execute(images, images, "KID", "EfficientNet-Lite0", 0, 64, 0, "")


def test_starting_the_host_imports_none_of_these_packages():
    import subprocess
    import sys

    from tools.host import find_host

    root = Path(__file__).resolve().parents[2]
    code = (
        f"import sys, types; sys.path.insert(0, {str(find_host())!r}); "
        "from comfy.cli_args import args; args.cpu = True; "
        f"pack = types.ModuleType('pack'); pack.__path__ = [{str(root)!r}]; "
        "sys.modules['pack'] = pack; import pack.nodes; "
        "from pack.evaluation.packages import OFFLINE; "
        "sys.exit(1 if set(OFFLINE) & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
