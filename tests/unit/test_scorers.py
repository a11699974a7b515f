"""Learned scorers: the protocol, what is said of missing files, and real loading of tiny CLIPs."""

from __future__ import annotations

import json
import os
import sys
import types

import pytest
import torch
from torch import nn

from evaluation import scorers
from evaluation.compare import compare
from evaluation.scorers import SOURCES, MissingModel, load_scorer

WORDS = ["a", "red", "balloon", "boat", "over", "snow"]


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(5, 3, 40, 56, generator=torch.Generator().manual_seed(0))


def save_clip(folder, seed=0):
    """A CLIP of random weights, in the files of a published one."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    torch.manual_seed(seed)
    letters = [chr(code) for code in range(97, 123)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "vocab_size": len(tokens), "max_position_embeddings": 24}
    text |= {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    image = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_clip(folder / SOURCES["CLIP score"].path)
    save_clip(folder / SOURCES["PickScore"].path, 1)
    torch.manual_seed(2)
    head = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 1))
    weights = {f"layers.{key}": value for key, value in head.state_dict().items()}
    torch.save(weights, folder / SOURCES["Aesthetic"].path)
    return folder


PROMPTS = [f"{WORDS[i]} {WORDS[i + 1]}" for i in range(5)]


def test_any_callable_is_a_scorer(pictures):
    def lightness(images, prompts):
        assert prompts == [PROMPTS[len(seen)]]
        seen.append(images)
        return images.mean((1, 2, 3))

    seen = []
    asked = {"prompts": PROMPTS, "metrics": ["ImageReward", "lightness"]}
    stub = lambda images, prompts: torch.tensor([float(len(prompts[0]))])  # noqa: E731
    given = {"ImageReward": stub, "lightness": lightness}
    found = compare(pictures, pictures[:1], scorers=given, **asked)
    assert found["lightness"].value == pytest.approx(float(pictures.mean()), rel=1e-5)
    assert found["lightness"].low < found["lightness"].value < found["lightness"].high
    assert found["ImageReward"].value == sum(map(len, PROMPTS)) / 5
    assert found["ImageReward"].count == len(seen) == 5


def test_clip_score_is_that_of_torchmetrics(pictures, models):
    from torchmetrics.functional.multimodal import clip_score
    from transformers import CLIPModel, CLIPProcessor

    class Plain(CLIPModel):
        """Gives bare tensors, as transformers 4 did and torchmetrics 1.9 expects."""

        def get_image_features(self, *inputs):
            return super().get_image_features(*inputs).pooler_output

        def get_text_features(self, *inputs):
            return super().get_text_features(*inputs).pooler_output

    scorer = load_scorer("CLIP score", models)
    found = torch.cat([scorer(p[None], [t]) for p, t in zip(pictures, PROMPTS, strict=True)])
    folder = models / SOURCES["CLIP score"].path
    quantised = (pictures * 255).round().byte()
    for picture, prompt, score in zip(quantised, PROMPTS, found, strict=True):
        wanted = clip_score(
            picture,
            prompt,
            lambda: (Plain.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)),
        )
        assert float(score) == pytest.approx(float(wanted), abs=2e-3)
    assert torch.allclose(scorer(pictures, PROMPTS), found, atol=1e-4)
    assert found.std() > 0


def test_pickscore_is_the_logit_of_its_own_clip(pictures, models):
    scorer = load_scorer("PickScore", models)
    pixels = scorer.processor(
        images=list((pictures * 255).round().byte().movedim(1, -1).numpy()),
        text=PROMPTS,
        return_tensors="pt",
        padding=True,
    )
    wanted = scorer.model(**pixels).logits_per_image.diagonal()
    assert torch.allclose(scorer(pictures, PROMPTS), wanted, atol=1e-4)


def test_a_long_prompt_is_cut(pictures, models):
    scorer = load_scorer("CLIP score", models)
    long = " ".join(WORDS * 20)
    assert torch.equal(scorer(pictures[:1], [long]), scorer(pictures[:1], [long + " boat"]))


def test_aesthetic_reads_no_prompt(pictures, models):
    scorer = load_scorer("Aesthetic", models)
    embedded = scorer.clip.embed(pictures)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(5), atol=1e-5)
    weights = torch.load(models / SOURCES["Aesthetic"].path)
    wanted = embedded @ weights["layers.0.weight"].T + weights["layers.0.bias"]
    wanted = wanted @ weights["layers.2.weight"].T + weights["layers.2.bias"]
    assert torch.allclose(scorer(pictures, [""] * 5), wanted[:, 0], atol=1e-5)
    found = compare(pictures, pictures[:1], metrics=["Aesthetic"], models=models)
    assert found["Aesthetic"].value == pytest.approx(float(wanted.mean()), abs=1e-4)


def test_hpsv2_is_the_cosine_of_an_open_clip(pictures, tmp_path, monkeypatch):
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.see, self.read = nn.Linear(3, 4), nn.Linear(1, 4)

        def encode_image(self, images, normalize):
            return nn.functional.normalize(self.see(images.mean((2, 3))), dim=-1)

        def encode_text(self, tokens, normalize):
            return nn.functional.normalize(self.read(tokens), dim=-1)

    def tokens(texts):
        return torch.tensor([[len(text) / 10.0] for text in texts])

    asked = []

    def create(name, pretrained):
        asked.append((name, pretrained, os.environ["HF_HUB_OFFLINE"]))
        from torchvision.transforms.functional import to_tensor

        return Tiny(), None, to_tensor

    package = types.ModuleType("open_clip")
    package.create_model_and_transforms = create
    package.get_tokenizer = lambda name: (
        lambda texts: torch.tensor([[len(t) / 10.0] for t in texts])
    )
    monkeypatch.setitem(sys.modules, "open_clip", package)
    torch.manual_seed(0)
    trained = Tiny()
    torch.save({"state_dict": trained.state_dict()}, tmp_path / SOURCES["HPSv2"].path)
    scorer = load_scorer("HPSv2", tmp_path)
    assert asked == [("ViT-H-14", None, "1")]
    scores = scorer(pictures, PROMPTS)
    quantised = (pictures * 255).round() / 255
    wanted = trained.encode_image(quantised, True) * trained.encode_text(tokens(PROMPTS), True)
    assert torch.allclose(scores, wanted.sum(-1), atol=1e-5)


def test_imagereward_is_asked_for_its_files_only(pictures, tmp_path, monkeypatch):
    class Model:
        def score(self, text, image):
            return len(text) + image.width / 1000

    loaded = []

    def load(name, device, med_config):
        loaded.append((name, device, med_config))
        return Model()

    package = types.ModuleType("ImageReward")
    package.load = load
    monkeypatch.setitem(sys.modules, "ImageReward", package)
    folder = tmp_path / "ImageReward"
    folder.mkdir()
    with pytest.raises(MissingModel, match=r"ImageReward\.pt.*zai-org/ImageReward"):
        load_scorer("ImageReward", tmp_path)
    (folder / "ImageReward.pt").touch()
    with pytest.raises(MissingModel, match=r"med_config\.json"):
        load_scorer("ImageReward", tmp_path)
    (folder / "med_config.json").touch()
    scores = load_scorer("ImageReward", tmp_path)(pictures, PROMPTS)
    assert loaded == [(str(folder / "ImageReward.pt"), "cpu", str(folder / "med_config.json"))]
    assert scores.tolist() == pytest.approx([len(text) + 0.056 for text in PROMPTS])


@pytest.mark.parametrize("metric", SOURCES)
def test_a_missing_file_is_named_with_its_origin(metric, tmp_path, monkeypatch, pictures):
    monkeypatch.delenv(scorers.FOLDER_VARIABLE, raising=False)
    source = SOURCES[metric]
    with pytest.raises(MissingModel) as told:
        compare(pictures, pictures, metrics=[metric], prompts=PROMPTS)
    assert all(part in str(told.value) for part in (metric, source.path, source.origin, "--models"))
    monkeypatch.setenv(scorers.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(MissingModel) as told:
        compare(pictures, pictures, metrics=[metric], prompts=PROMPTS)
    assert all(part in str(told.value) for part in (metric, source.path, source.origin))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_folder_that_lacks_one_file_is_not_loaded(name, tmp_path):
    folder = save_clip(tmp_path / SOURCES["CLIP score"].path)
    gone = folder / name
    if not gone.exists():
        gone = folder / "processor_config.json"
    gone.unlink()
    with pytest.raises(MissingModel, match=f"no file {name}.* in .*nothing is downloaded"):
        load_scorer("CLIP score", tmp_path)


def test_offline_is_over_when_loading_is(monkeypatch):
    import huggingface_hub.constants as hub

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = hub.HF_HUB_OFFLINE
    with pytest.raises(RuntimeError), scorers.offline():
        assert hub.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"
        raise RuntimeError
    assert before == hub.HF_HUB_OFFLINE and "HF_HUB_OFFLINE" not in os.environ
