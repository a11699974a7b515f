"""The evaluator from pictures to figures, with the networks whose weights come in packages."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from evaluation import features, packages, perceptual
from evaluation.compare import METRICS, compare
from evaluation.images import Images
from evaluation.report import as_json, plot, table
from lab.bench import evaluate
from lab.scenes import random_scene, render

SIDE = 96
quiet = pytest.mark.filterwarnings("ignore:(Biased|-Lite0)")


def scenes(seeds):
    images = [render(random_scene(seed), SIDE, SIDE).image for seed in seeds]
    return torch.from_numpy(np.stack(images)).float().movedim(-1, 1)


@pytest.fixture(scope="module")
def pictures():
    return scenes(range(24))


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    for number, image in enumerate(pictures[:8]):
        array = (image.movedim(0, -1) * 255).round().byte().numpy()
        Image.fromarray(array).save(path / f"{number:02}.png")
    return path


class Means:
    """A feature network without weights: mean colours of a grid of cells."""

    suffix, name, side = "-means", "means", 32

    def __call__(self, images):
        cells = torch.nn.functional.adaptive_avg_pool2d(images, 4)
        return features.Features(cells.flatten(1), cells[:, :2].flatten(1), images.mean((2, 3)))


FEATURES = ("FID", "sFID", "KID", "precision", "recall")


@quiet
def test_identical_sets(pictures):
    found = compare(pictures, pictures.clone(), metrics=(*FEATURES, "spectrum"), bootstrap=0)
    assert set(found) == {*(f"{name}-Lite0" for name in FEATURES), "spectrum"}
    assert found["FID-Lite0"].value < 1e-6 and found["sFID-Lite0"].value < 1e-4
    assert found["KID-Lite0"].value < 0.002
    assert found["precision-Lite0"].value == found["recall-Lite0"].value == 1
    assert found["spectrum"].value == 0
    assert all(score.count == len(pictures) for score in found.values())


@quiet
def test_blurred_sets_get_worse_and_worse(pictures):
    rows = []
    for sigma in (0.6, 1.2, 2.4):
        blurred = gaussian_blur(pictures, 19, sigma)
        metrics = (*FEATURES, "spectrum", "LPIPS")
        rows.append(compare(blurred, pictures, metrics=metrics, bootstrap=0, progress=False))
    for name in ("FID-Lite0", "sFID-Lite0", "KID-Lite0", "spectrum", "ST-LPIPS"):
        values = [row[name].value for row in rows]
        assert values == sorted(values), (name, values)
        assert values[0] > 0 or name == "KID-Lite0"  # unbiased: may be below 0
    assert rows[-1]["precision-Lite0"].value < rows[0]["precision-Lite0"].value


@quiet
def test_halves_of_one_set_are_near(pictures):
    near = compare(pictures[::2], pictures[1::2], metrics=["KID", "FID"], progress=False)
    far = gaussian_blur(pictures[::2], 9, 1.5)
    far = compare(far, pictures[1::2], metrics=["KID"], progress=False)["KID-Lite0"]
    kid = near["KID-Lite0"]
    assert kid.low < 0 < kid.high and abs(kid.value) < far.value / 4
    assert far.low > 0
    assert near["FID-Lite0"].value > 0  # biased, unlike KID


def test_files_and_tensors_are_the_same(pictures, folder):
    asked = {"metrics": ("FID", "spectrum"), "extractor": Means(), "bootstrap": 0}
    reference = pictures[8:16]
    whole = compare((pictures[:8] * 255).round() / 255, reference, **asked)
    assert compare(folder, reference, **asked) == whole
    assert compare(str(folder), reference, **asked) == whole
    assert compare(sorted(folder.iterdir()), reference, **asked) == whole


def test_images_of_a_folder_may_differ_in_size(pictures, tmp_path):
    for number, side in enumerate((64, 96, 80, 48)):
        Image.new("RGB", (side, 2 * side), (number * 60, 90, 120)).save(tmp_path / f"{number}.jpg")
    found = compare(
        tmp_path, pictures[:4], extractor=Means(), bootstrap=0, metrics=["FID", "LPIPS"]
    )
    assert found["FID-means"].value > 0 and found["ST-LPIPS"].count == 4


def test_crops_are_further_rows(pictures):
    asked = {
        "extractor": Means(),
        "crops": 10,
        "crop_size": 40,
        "metrics": ("FID", "IS", "spectrum"),
    }
    found = compare(pictures[:12], pictures[12:], bootstrap=20, **asked)
    assert list(found) == ["FID-means", "FID-crop-means", "IS-means", "IS-crop-means", "spectrum"]
    assert found["FID-means"].count == 12 and found["FID-crop-means"].count == 120
    assert compare(pictures[:12], pictures[12:], bootstrap=20, **asked) == found
    other = compare(pictures[:12], pictures[12:], bootstrap=20, seed=1, **asked)
    assert other["FID-crop-means"] != found["FID-crop-means"]
    assert other["FID-means"].value == found["FID-means"].value


def test_crops_lie_anywhere_in_their_image():
    image = torch.stack(torch.meshgrid(torch.arange(50.0), torch.arange(70.0), indexing="ij"))
    image = torch.cat([image, image[:1]])
    drawn = next(iter(features.pieces(Images(image[None] / 100), 400, 20, 0))) * 100
    tops, lefts = drawn[:, 0, 0, 0].round(), drawn[:, 1, 0, 0].round()
    assert drawn.shape == (400, 3, 20, 20)
    assert (tops.min(), tops.max(), lefts.min(), lefts.max()) == (0, 30, 0, 50)


def test_a_reference_is_read_once(pictures):
    seen = []

    class Counting(Means):
        name = "counting"

        def __call__(self, images):
            seen.append(len(images))
            return super().__call__(images)

    for first in (0, 8):
        made = pictures[first : first + 8]
        compare(made, pictures[16:], extractor=Counting(), metrics=["FID", "KID"], bootstrap=0)
    assert sum(seen) == 8 + 8 + 8


def test_it_says_how_far_it_is(pictures):
    calls = []
    compare(
        pictures[:8],
        pictures[8:20],
        extractor=Means(),
        metrics=["FID", "spectrum"],
        crops=2,
        crop_size=32,
        bootstrap=3,
        watch=lambda done, total: calls.append((done, total)),
    )
    done = [call[0] for call in calls]
    assert {total for _, total in calls} == {20 * 3} and done == sorted(done) and done[-1] == 60


BAD = {
    "no metric 'FIT': choose from FID": {"metrics": ["FIT"]},
    "no metrics: choose": {"metrics": []},
    "precision needs at least 4 generated images and there are 3": {"generated": 3},
    "CLIP score needs prompts: one for": {"metrics": ["CLIP score"]},
    "2 prompts for 8 generated images": {"metrics": ["FID"], "prompts": ["a", "b"]},
    "8 generated images meet 6 references": {"metrics": ["LPIPS"], "reference": 6},
    "crops and crop_size go together": {"crops": 3},
    "96 x 96 pixels, smaller than crop_size 128": {"crops": 3, "crop_size": 128},
}


@pytest.mark.parametrize("message", BAD)
def test_wrong_input_is_said_before_anything_is_read(pictures, message):
    asked = dict(BAD[message])
    made, seen = (pictures[: asked.pop(name, 8)] for name in ("generated", "reference"))
    with pytest.raises(ValueError, match=message):
        compare(made, seen, watch=lambda *_: pytest.fail("read"), **asked)


def test_wrong_images_are_said(tmp_path):
    good = torch.zeros(4, 3, 8, 8)
    for bad, message in (
        (torch.zeros(4, 8, 8, 3), r"must be \(N, 3, H, W\)"),
        (good + 200, r"values must be in 0..1, these are in 200..200"),
        (good[:0], "no images"),
        (tmp_path, "no images"),
        (tmp_path / "gone", "not a folder"),
        ([tmp_path / "gone.png"], "no file"),
    ):
        with pytest.raises(ValueError, match=f"reference: .*{message}"):
            compare(good, bad)


def test_a_missing_package_is_one_line_with_the_remedy(pictures, monkeypatch):
    for module in list(sys.modules):
        if module.split(".")[0] in packages.OFFLINE:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    line = r"pip install torch-fidelity==0.4.0 efficientnet-lite-pytorch$"
    with pytest.raises(packages.MissingPackage, match=line):
        compare(pictures[:4], pictures[:4])
    with pytest.raises(packages.MissingPackage, match=r"pip install open-clip-torch$"):
        monkeypatch.setitem(sys.modules, "open_clip", None)
        packages.need("open_clip", "HPSv2")


def test_nothing_of_an_evaluation_is_imported_before_it_runs():
    import subprocess

    code = (
        "import sys, evaluation.compare, evaluation.report; "
        f"sys.exit(any(name in sys.modules for name in {list(packages.OFFLINE)}))"
    )
    root = packages.__file__.rsplit("evaluation", 1)[0]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_inception_weights_by_path_give_names_without_suffix(pictures, tmp_path, monkeypatch):
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    with pytest.raises(FileNotFoundError, match=features.INCEPTION_FILE):
        compare(pictures[:4], pictures[4:8], extractor=tmp_path / features.INCEPTION_FILE)
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(
            inception.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None
        )
        network = inception.FeatureExtractorInceptionV3("random", ["2048"])
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    with pytest.warns(UserWarning, match=r"FID \(4 samples for 2048 .* sFID \(4 samples for 2023"):
        found = compare(
            pictures[:4],
            pictures[4:8],
            extractor=tmp_path / "weights.pth",
            metrics=["FID", "sFID", "IS"],
            bootstrap=0,
        )
    assert list(found) == ["FID", "sFID", "IS"]
    kept = next(f for key, f in features._KEPT.items() if key[0] == "weights.pth")
    assert [part.shape[1] for part in kept] == [2048, 2023, 1008]
    assert all(math.isfinite(score.value) for score in found.values())


def test_lpips_takes_its_trunk_from_a_local_file(pictures, tmp_path, monkeypatch):
    from torchvision import models

    assert isinstance(perceptual.load_lpips(tmp_path), perceptual.ShiftTolerant)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("download"))
    trunk = tmp_path / "checkpoints" / perceptual.TRUNK["squeeze"]
    trunk.parent.mkdir()
    torch.manual_seed(0)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), trunk)
    before = torch.hub.get_dir()
    metric = perceptual.Lpips(trunk, "squeeze")
    assert torch.hub.get_dir() == before
    near, far = gaussian_blur(pictures[:2], 9, 0.7), pictures[2:4]
    assert metric(pictures[:2], pictures[:2]).abs().max() < 1e-6
    assert (metric(pictures[:2], near) < metric(pictures[:2], far)).all()


@quiet
def test_table_plot_and_json(pictures):
    found = compare(pictures[:8], pictures[8:16], extractor=Means(), crops=2, crop_size=48)
    text = table(found)
    assert "| FID-crop-means |" in text and "| 16 | lower |" in text
    assert "| recall-means |" in text and text.count("| higher |") == 6
    lite = compare(pictures[:8], pictures[8:16], metrics=["FID", "IS"], bootstrap=0)
    assert "Biased upwards by few samples: FID-Lite0 (8 samples for 1280 dimensions)" in table(lite)
    assert "| – | 8 |" in table(lite)
    assert json.loads(json.dumps(as_json(lite)))["FID-Lite0"]["low"] is None
    image = np.asarray(plot(found, pictures[:8], pictures[8:16]))
    assert image.shape[1] == 960 and len(np.unique(image.reshape(-1, 3), axis=0)) > 5


def test_command_line(folder, tmp_path, capsys):
    out = tmp_path / "out.json"
    common = ["--threads", "1", "--bootstrap", "10", "--json", str(out)]
    pictures = [str(folder), str(folder)]
    assert evaluate.main([*pictures, "--metrics", "spectrum,LPIPS", *common]) == 0
    assert "| ST-LPIPS | 0 | 0 to 0 | 8 | lower |" in capsys.readouterr().out
    assert json.loads(out.read_text())["spectrum"]["value"] == 0
    assert evaluate.main([*pictures, "--metrics", "HPSv2", *common]) == 1
    assert capsys.readouterr().err.startswith("error: HPSv2 needs prompts")
    assert len(METRICS) == 13
