"""The tools that find a ComfyUI, explain failures and adapt the demo workflow."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from tools import host, run_demo, setup_env


def make_host(folder, version="0.3.75"):
    (folder / "comfy").mkdir(parents=True)
    (folder / "comfy" / "cli_args.py").touch()
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A checkout with no ComfyUI around it."""
    for name in ("COMFYUI_PATH", "COMFYUI_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(host, "OWN_HOST", tmp_path / "checkout" / ".comfyui")
    return tmp_path


def test_host_in_order_of_preference(nowhere, monkeypatch):
    with pytest.raises(host.HostError, match="make host"):
        host.find_host()
    own = make_host(host.OWN_HOST)
    assert host.find_host() == own
    around = make_host(nowhere / "ComfyUI", "0.33.1")
    monkeypatch.setattr(host, "ROOT", around / "custom_nodes" / "hires-fusion")
    assert host.find_host() == around
    given = make_host(nowhere / "given")
    monkeypatch.setenv("COMFYUI_PATH", str(given))
    assert host.find_host() == given


@pytest.mark.parametrize("version", ["0.3.74", "0.2.99"])
def test_an_old_host_is_refused(nowhere, monkeypatch, version):
    monkeypatch.setenv("COMFYUI_PATH", str(make_host(nowhere / "old", version)))
    with pytest.raises(host.HostError, match=f"{version}; update it to 0.3.75"):
        host.find_host()


def test_a_folder_that_is_no_host_is_refused(nowhere, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(nowhere))
    with pytest.raises(host.HostError, match="is no ComfyUI folder"):
        host.find_host()


def test_interpreter_of_a_host(nowhere, monkeypatch):
    theirs = make_host(nowhere / "theirs")
    assert host.own_interpreter(theirs) is None
    python = host.venv_python(theirs / ".venv")
    python.parent.mkdir(parents=True)
    python.touch()
    assert host.python_of(theirs) == python
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    assert str(host.python_of(theirs)) == sys.executable


@pytest.mark.parametrize(
    ("printed", "remedy"),
    [
        ("OSError: [Errno 28] No space left on device", "free about"),
        ("ConnectTimeoutError ... Max retries exceeded with url", "check the network"),
        ("error: command '/usr/bin/gcc' failed: No such file or directory", "install a C compiler"),
        ("ERROR: No matching distribution found for torch==2.11.0", "use Python 3.11"),
        ("something new", "something new"),
    ],
)
def test_a_failure_is_one_line_with_a_remedy(tmp_path, monkeypatch, printed, remedy):
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "LOG", tmp_path / ".cache" / "setup.log")
    code = f"import sys; print({printed!r}); sys.exit(1)"
    with pytest.raises(host.HostError, match=remedy) as caught:
        setup_env.run([sys.executable, "-c", code], "installing")
    assert "\n" not in str(caught.value)
    assert printed in setup_env.LOG.read_text()


def workflow():
    def node(kind, title, **inputs):
        return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}

    return {
        "1": node("CLIPTextEncode", "Prompt", text="a boat"),
        "2": node("RandomNoise", "Noise", noise_seed=1),
        "3": node("KSampler", "Direct", seed=["9", 0], latent_image=["6", 0]),
        "4": node("HRF_ProgressiveUpscale", "DemoFusion", scale=3.0),
        "5": node("EmptyLatentImage", "native size", width=256, height=192),
        "6": node("EmptyLatentImage", "direct size", width=768, height=576),
    }


def test_adapt_changes_what_is_drawn():
    prompt = workflow()
    run_demo.adapt(prompt, "a castle", 7, 2.5)
    assert prompt["1"]["inputs"]["text"] == "a castle"
    assert prompt["2"]["inputs"]["noise_seed"] == 7
    assert prompt["3"]["inputs"]["seed"] == ["9", 0]
    assert prompt["4"]["inputs"]["scale"] == 2.5
    assert prompt["5"]["inputs"] == {"width": 256, "height": 192}
    assert prompt["6"]["inputs"] == {"width": 640, "height": 480}


def test_adapt_says_what_a_workflow_lacks():
    with pytest.raises(ValueError, match="no place for a prompt"):
        run_demo.adapt({}, "a castle", None, None)


def test_stages_are_named_after_the_node_that_expands():
    assert run_demo.label(workflow(), "4.0.0.stage2.sample", "4") == "DemoFusion, stage 2"
    assert run_demo.label(workflow(), "4.0.0.decode", "4") == "DemoFusion"


def test_compare_shows_all_four_at_one_size(tmp_path):
    pictures = {}
    for title, side in {"native": 64, "direct": 192, "multidiffusion": 192}.items():
        pictures[title] = tmp_path / f"{title}.png"
        Image.new("RGB", (side, side), "navy").save(pictures[title])
    assert run_demo.compare(pictures) is None
    sheet = run_demo.compare(pictures | {"final": pictures["direct"]})
    assert sheet is not None and sheet.width > 4 * 192 and sheet.height > 192
