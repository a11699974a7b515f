"""The package of the Registry: what is in it, where its pages lead, what hosts would refuse."""

from __future__ import annotations

import ast
import datetime
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tools import architecture, host, package, release

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PACKED = package.packed(ROOT)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Files whose code a user may start: ComfyUI, and `python -m ROOM` in the pack's folder.
STARTS = ("__init__.py", "critic/__main__.py", "evaluation/__main__.py", "tools/__main__.py")
# Folders that ComfyUI, its page or our own code read by name.
READ = (*("demo", "critic/data", "web", "workflows", "example_workflows", "subgraphs", "locales"),)
ALWAYS = ("README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "pyproject.toml", "requirements.txt")
KINDS = {
    *(".py", ".md", ".json", ".toml", ".txt", ".js", ".css"),
    *(".jpg", ".png", ".webp", ".svg", ".safetensors"),
}
LINK = re.compile(
    r"!?\[[^]]*\]\(([^)#\s]+)[^)]*\)|<img[^>]+src=[\"']([^\"']+)|<a[^>]+href=[\"']([^\"'#]+)"
)
ELSEWHERE = re.compile(r"[a-z]+:", re.I)


def links(page: str) -> list[str]:
    """Where a page's links and pictures lead, without those to other sites."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = (a or b or c for a, b, c in LINK.findall(text))
    return [target for target in found if not ELSEWHERE.match(target)]


def reached(page: str, target: str) -> str:
    """The file that a link means, from the root."""
    return os.path.normpath(os.path.join(os.path.dirname(page), target)).replace(os.sep, "/")


def closure(starts: set[str], nexts) -> set[str]:
    """Everything that `starts` lead to."""
    done: set[str] = set()
    left = list(starts)
    while left:
        if (name := left.pop()) not in done:
            done.add(name)
            left += nexts(name)
    return done


def imported(name: str) -> Iterator[str]:
    """Files of the pack that a Python file imports anywhere."""
    folder = Path(name).parent.parts
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            dotted = [".".join(filter(None, [*base, node.module]))]
            dotted += [f"{dotted[0]}.{each.name}".strip(".") for each in node.names]
        elif isinstance(node, ast.Import):
            dotted = [each.name for each in node.names]
        elif isinstance(node, ast.Constant) and str(node.value).endswith(".py"):
            # A script beside it that is started by its name.
            beside = f"{Path(name).parent.as_posix()}/{node.value}"
            yield from (file for file in [beside] if (ROOT / file).is_file())
            continue
        else:
            continue
        for module in dotted:
            parts = module.removeprefix("hires_fusion.").split(".")
            for n in range(1, len(parts) + 1):
                stem = "/".join(parts[:n])
                found = (f"{stem}.py", f"{stem}/__init__.py")
                yield from (file for file in found if (ROOT / file).is_file())


def needed() -> set[str]:
    """What the package must hold: code that can be reached, data that is read, pages linked."""
    tracked = set(package.tracked(ROOT))
    code = closure({name for name in STARTS if name in tracked}, imported)
    rooms = {f"{folder}/" for folder in READ}
    data = {name for name in tracked if any(name.startswith(room) for room in rooms)}
    pages = {name for name in (*ALWAYS, *data) if name in tracked and name.endswith(".md")}

    def onward(page: str) -> list[str]:
        return [reached(page, t) for t in links(page)] if page.endswith(".md") else []

    return code | data | closure(pages, onward) | (set(ALWAYS) & tracked)


def test_the_package_holds_what_it_needs_and_nothing_else():
    wanted, held = needed(), set(PACKED)
    assert not wanted - held, "missing: a line of .comfyignore drops what is read or linked"
    assert not held - wanted, "not needed: name it in .comfyignore, with a slash in front"
    assert {"web/docs/HRF_TiledDiffusion.md", "demo/unet.safetensors"} <= held


def test_lines_of_the_ignore_file_are_anchored_and_match():
    lines = (ROOT / package.IGNORED).read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and line[0] != "#"]
    assert patterns and all(line.lstrip("!").startswith("/") for line in patterns)
    tracked = package.tracked(ROOT)
    for line in patterns:
        path = line.lstrip("!").strip("/").split("*")[0]
        assert any(name.startswith(path) for name in tracked), f"{line} matches nothing"


def test_the_packing_rule_is_gits(tmp_path):
    for name in ("docs/a.md", "web/docs/b.md", "lab/c.py", "kept.py", "lab/keep/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / package.IGNORED).write_text("docs\n/lab/*\n!/lab/keep/\n/.comfyignore\n")
    with pytest.raises(host.HostError, match="git checkout"):
        package.packed(tmp_path)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    (tmp_path / "untracked.py").write_text("")
    # "docs" without a slash takes web/docs as well.
    assert package.packed(tmp_path) == ["kept.py", "lab/keep/d.py"]
    copy = package.unpack(tmp_path / "copy")
    assert (copy / "web/docs/HRF_TiledDiffusion.md").is_file() and not (copy / "tests").exists()


@pytest.mark.parametrize("page", [name for name in PACKED if name.endswith(".md")])
def test_links_of_a_packed_page_lead_into_the_package(page):
    missing = [t for t in links(page) if reached(page, t) not in PACKED]
    assert not missing, "not in the package, or nowhere"
    if page.startswith("web/docs/"):
        # The page shows a text from web/docs alone: a way out of there is a 404.
        beside = [t for t in links(page) if not t.endswith((".jpg", ".png", ".webp")) or "/" in t]
        assert not beside, "dead inside ComfyUI's page: say it in words, or link to https://"


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


# What is refused without a reason -> modules that bring it, calls that are it.
RISKS = {
    "processes": (
        r"(subprocess|multiprocessing|pty|pexpect|sh)(\.|$)|concurrent\.futures\.Process.*"
        r"|asyncio\.(create_)?subprocess.*",
        r"os\.(system|popen|fork\w*|exec\w+|spawn\w+|posix_spawn\w*|startfile)"
        r"|asyncio\.create_subprocess\w*",
    ),
    "code from text": (
        r"(code|codeop|runpy|imp)(\.|$)",
        r"(builtins\.)?(exec|eval|compile|__import__)|types\.(FunctionType|CodeType)",
    ),
    "imports by name": (r"importlib(\.(import_module|machinery|util).*)?$", r"importlib\..*"),
    "pickles": (
        r"(pickle|_pickle|cPickle|marshal|shelve|dill|cloudpickle|joblib)(\.|$)",
        r".*\.read_pickle|(np|numpy)\.load|joblib\.load",
    ),
    "native code": (r"(ctypes|cffi|_ctypes)(\.|$)", r".*\.load_library|torch\.ops\.load.*"),
    "network": (
        r"(socket|socketserver|ssl|http\.\w+|urllib\.request|urllib3|requests|aiohttp|httpx"
        r"|websockets?|ftplib|smtplib|xmlrpc|huggingface_hub)(\.|$)",
        r".*\.hub\.(load|download)\w*|.*(hf_hub_download|snapshot_download|urlretrieve)",
    ),
    "packages": (r"(pip|ensurepip|venv|setuptools)(\.|$)", r"pip\..*"),
    "web routes": (
        r"aiohttp\.web(\.|$)",
        r".*\.(add_routes?|add_(get|post|put|delete|static|view)|routes\.\w+)",
    ),
}


def risks(text: str) -> set[str]:
    """Kinds of things in a Python file that a host may want a reason for."""
    tree = ast.parse(text)
    brought, called = list(modules(tree)), [name for name, _ in calls(tree)]
    found = {
        kind
        for kind, (module, call) in RISKS.items()
        if any(re.match(module, name) for name in brought)
        or any(re.fullmatch(call, name) for name in called)
    }
    for name, call in calls(tree):
        safe = {k.arg: k.value for k in call.keywords}.get("weights_only")
        if name == "torch.load" and not (isinstance(safe, ast.Constant) and safe.value is True):
            found.add("pickles")
    return found


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("from subprocess import run", "processes"),
        ("import os\nos.execvp('a', [])", "processes"),
        ("eval('1')", "code from text"),
        ("from importlib import import_module", "imports by name"),
        ("torch.load(path)", "pickles"),
        ("torch.load(path, weights_only=False)", "pickles"),
        ("import pickle as p", "pickles"),
        ("import ctypes.util", "native code"),
        ("def f():\n    import requests", "network"),
        ("hf_hub_download('a')", "network"),
        ("@PromptServer.instance.routes.get('/a')\ndef f(): pass", "web routes"),
        ("app.router.add_post('/a', f)", "web routes"),
    ],
)
def test_a_risk_is_seen(text, kind):
    assert risks(text) == {kind}


def test_what_is_no_risk_is_not_seen():
    text = "import re, importlib.resources as r, json\nre.compile('a')\nmodel.eval()\n"
    assert not risks(text + "torch.load(p, weights_only=True)\nfrom .requests import a")


def reasons() -> dict[str, set[str]]:
    """Of README's table: kind -> files that have a reason."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z ]+) \| (.*?) \| \S.{20,} \|$", text, re.M)
    found: dict[str, set[str]] = {}
    for kind, where in rows:
        found.setdefault(kind, set()).update(re.findall(r"`([^`]+\.py)`", where))
    return found


def test_what_hosts_may_refuse_has_a_reason_in_the_readme():
    found = {
        (kind, name)
        for name in PACKED
        if name.endswith(".py")
        for kind in risks((ROOT / name).read_text(encoding="utf-8"))
    }
    told = {(kind, name) for kind, names in reasons().items() for name in names}
    assert not {pair for pair in found if pair[0] == "web routes"}, "we serve nothing ourselves"
    assert not found - told, "README, 'What it does on your machine': a row with the reason"
    assert not told - found, "README gives a reason for what is no longer there"


@pytest.mark.parametrize("name", PACKED)
def test_a_file_is_what_hosts_take(name):
    path = ROOT / name
    assert not path.is_symlink() and path.is_file()
    # Git keeps no more of the mode than this bit.
    assert not path.stat().st_mode & stat.S_IXUSR, "executable"
    assert path.suffix in KINDS or name in ALWAYS, "a kind of file that hosts may refuse"
    assert re.fullmatch(r"[\w./ ()\[\],+-]+", name), "a name that some file systems refuse"
    assert path.stat().st_size < 50_000_000
    if path.suffix in {".py", ".md", ".json", ".toml", ".txt"}:
        path.read_text(encoding="utf-8")


def test_no_two_files_differ_by_case_alone():
    assert len({name.lower() for name in PACKED}) == len(PACKED)


def test_the_registry_is_told_everything():
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9-]{1,99}", project["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"] == {"file": "LICENSE"} and project["description"]
    assert any(c.startswith("Operating System ::") for c in project["classifiers"])
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert comfy["requires-comfyui"] == ">=" + ".".join(map(str, host.FLOOR))
    home = project["urls"]["Repository"]
    assert re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", home)
    assert all(url.startswith(home) for url in project["urls"].values())
    raw = home.replace("github.com", "raw.githubusercontent.com") + "/main/"
    for key in ("Icon", "Banner"):
        assert comfy[key].startswith(raw)
        assert comfy[key].removeprefix(raw) in package.tracked(ROOT)


def test_icon_and_banner_have_the_registrys_sizes():
    with Image.open(ROOT / "brand" / "icon.png") as icon:
        assert icon.width == icon.height <= 400
    with Image.open(ROOT / "brand" / "banner.png") as banner:
        assert banner.width * 9 == banner.height * 21


def test_both_lists_of_requirements_are_one():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {line.replace('"', "'") for line in lines if line and line[0] != "#"}
    assert {name.replace('"', "'") for name in PROJECT["project"]["dependencies"]} == listed


def test_the_change_log_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\S+)", text, re.M)
    assert versions[0] in ("Unreleased", PROJECT["project"]["version"])
    assert PROJECT["project"]["version"] in versions[:2]


def test_a_release_writes_version_and_date_once(tmp_path):
    project, log = tmp_path / "pyproject.toml", tmp_path / "CHANGELOG.md"
    project.write_text('[project]\nversion = "0.1.0"\n', encoding="utf-8")
    log.write_text("# Changes\n\n## Unreleased\n\n- new\n\n## 0.1.0\n\nold\n", encoding="utf-8")
    release.release("0.2.0", tmp_path, datetime.date(2026, 1, 2))
    assert tomllib.loads(project.read_text())["project"]["version"] == "0.2.0"
    assert log.read_text().startswith("# Changes\n\n## 0.2.0, 2026-01-02\n\n- new\n\n## 0.1.0")
    before = project.read_text()
    for version, why in (("0.3.0", "say what changed"), ("0.2.0", "not above"), ("1.0", "1.2.3")):
        with pytest.raises(ValueError, match=why):
            release.release(version, tmp_path)
    assert project.read_text() == before


def test_the_picture_of_the_architecture_is_fresh():
    drawn = architecture.draw(ROOT)
    assert architecture.PICTURE.read_text(encoding="utf-8") == drawn, (
        "run python -m tools.architecture"
    )
    below, hosts = architecture.graph(ROOT)
    assert "fusion_ops" in below["sampling"] and "fusion_ops" not in hosts
    assert {"nodes", "sampling"} <= hosts
