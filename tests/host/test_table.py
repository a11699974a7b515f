"""The table of what depends on the canvas against the source of the host in use: it lacks no key
of a model's conditioning, no option, no core node that hangs something on a MODEL."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from hires_fusion.sampling import table
from hires_fusion.sampling.cuts import Cutter
from tools.host import find_host

HOST = find_host()
MODEL_BASE = HOST / "comfy" / "model_base.py"
SAMPLERS = HOST / "comfy" / "samplers.py"
CORE_NODES = [*sorted((HOST / "comfy_extras").glob("*.py")), HOST / "nodes.py"]
NETWORKS = sorted((HOST / "comfy" / "ldm").rglob("*.py"))

# Calls by which a node hangs something on a MODEL, and options of loaders, which say only where
# and in which numbers weights are kept.
HANGS = ("set_model_", "add_wrapper", "add_object_patch", "set_injections", "add_callback")
LOADING = {"dtype", "fp8_optimizations", "load_device", "offload_device"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def text_of(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def stored_keys(scope: ast.AST, name: str) -> Iterator[str]:
    """The texts k of every `name[k] = ...`, of literals and of loops over literals."""
    loops = {
        node.target.id: [text_of(part) for part in node.iter.elts]
        for node in ast.walk(scope)
        if isinstance(node, ast.For)
        and isinstance(node.target, ast.Name)
        and isinstance(node.iter, ast.Tuple)
    }
    for node in ast.walk(scope):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in (t for t in targets if isinstance(t, ast.Subscript)):
            if isinstance(target.value, ast.Name) and target.value.id == name:
                index = target.slice
                if isinstance(index, ast.Name):
                    yield from loops.get(index.id, [f"<{index.id}>"])
                else:
                    yield text_of(index) or f"<{ast.unparse(index)}>"


def model_cond_keys() -> dict[str, set[str]]:
    """Key -> the model classes whose `extra_conds` make it."""
    found: dict[str, set[str]] = {}
    for kind in (node for node in parsed(MODEL_BASE).body if isinstance(node, ast.ClassDef)):
        for method in (m for m in kind.body if isinstance(m, ast.FunctionDef)):
            if method.name == "extra_conds" or method.name.startswith("_denoise_mask"):
                for key in stored_keys(method, "out"):
                    found.setdefault(key, set()).add(kind.name)
    # HiDream-O1 takes its keys from a function of its network's.
    if "HiDreamO1" in found.pop("<k>", set()):
        path = HOST / "comfy" / "ldm" / "hidream_o1" / "conditioning.py"
        builds = [f for f in parsed(path).body if getattr(f, "name", "") == "build_extra_conds"]
        found |= {key: {"HiDreamO1"} for key in stored_keys(builds[0], "out")}
    return found


def test_every_model_cond_of_the_host_has_a_rule():
    keys = model_cond_keys()
    assert len(keys) > 40 and keys["vace_context"] == {"WAN21_Vace"}  # the reader reads
    assert keys.keys() - table.MODEL_CONDS.keys() == set()


def test_nothing_else_of_the_host_makes_model_conds():
    """Were there another place than extra_conds, the walk above would be blind to it."""
    known = {"samplers.py", "context_windows.py"}  # copy them, cut them over frames
    makers = set()
    for path in [*(HOST / "comfy").glob("*.py"), *CORE_NODES]:
        for node in ast.walk(parsed(path)):
            for target in node.targets if isinstance(node, ast.Assign) else []:
                written = ast.unparse(target) if isinstance(target, ast.Subscript) else ""
                if "model_conds[" in written or "['model_conds'][" in written:
                    makers.add(path.name)
    assert makers <= known


def test_every_rule_can_be_carried_out():
    for key, rule in table.MODEL_CONDS.items():
        assert isinstance(rule, table.Refused) or callable(getattr(Cutter, rule)), key
        if isinstance(rule, table.Refused):
            assert rule.why and not rule.why.endswith("."), key


def test_every_entry_of_a_cond_that_the_sampler_reads_is_known():
    """`get_area_and_mult` is where a cond dictionary is taken apart for a call."""
    (take,) = [f for f in parsed(SAMPLERS).body if getattr(f, "name", "") == "get_area_and_mult"]
    read = {
        text_of(node.slice)
        for node in ast.walk(take)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "conds"
    }
    read |= {
        text_of(node.args[0])
        for node in ast.walk(take)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "conds.get"
    }
    assert {"area", "mask", "control", "hooks"} <= read <= table.COND_ENTRIES.keys()


def option_names() -> set[str]:
    """Entries of transformer_options that the host reads or writes."""
    found = set()
    for path in [*(HOST / "comfy").rglob("*.py"), *CORE_NODES]:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Subscript):
                owner, key = node.value, node.slice
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("get", "pop", "setdefault")
                and node.args
            ):
                owner, key = node.func.value, node.args[0]
            else:
                continue
            written = ast.unparse(owner).replace('"', "'")
            is_options = written.endswith(("transformer_options", "['transformer_options']"))
            if is_options and text_of(key):
                found.add(text_of(key))
    return found - {"transformer_options"}


def test_every_transformer_option_of_the_host_is_known():
    names = option_names()
    assert {"patches_replace", "cond_or_uncond", "original_shape"} <= names
    assert names - table.OPTIONS.keys() == set()


def hangs(top: ast.AST) -> bool:
    """Whether a class or function hangs something on a MODEL."""
    for node in ast.walk(top):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name.startswith(HANGS):
                return True
        for target in node.targets if isinstance(node, ast.Assign) else []:
            if isinstance(target, ast.Subscript) and text_of(target.slice) not in LOADING:
                written = ast.unparse(target.value)
                if written.endswith(("model_options", "transformer_options", "_options']")):
                    return True
    return False


def patching_nodes() -> dict[str, Path]:
    found = {}
    for path in [*CORE_NODES, *NETWORKS]:
        for top in parsed(path).body:
            is_code = isinstance(top, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            # Networks note in transformer_options which block they are at.
            noted = path in NETWORKS and not any(
                getattr(n, "attr", "").startswith(HANGS) for n in ast.walk(top)
            )
            if is_code and not noted and hangs(top):
                found[f"{path.stem}.{top.name}"] = path
    return found


def test_every_core_node_that_patches_a_model_is_judged():
    nodes = patching_nodes()
    assert {"nodes_sag.SelfAttentionGuidance", "nodes_tomesd.TomePatchModel"} <= nodes.keys()
    assert nodes.keys() - table.PATCHES.keys() == set()


def test_every_class_whose_objects_core_nodes_hang_on_a_model_is_judged():
    """`set_model_x_patch(SomePatch(...))`: at run time the class is all that we see."""
    found = set()
    for path in CORE_NODES:
        tree = parsed(path)
        modules = {node.name: path.stem for node in tree.body if isinstance(node, ast.ClassDef)}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                modules |= {n.asname or n.name: node.module.split(".")[-1] for n in node.names}
        for node in ast.walk(tree):
            is_call = isinstance(node, ast.Call)
            name = getattr(node.func, "attr", "") if is_call else ""
            if not name.startswith("set_model_"):
                continue
            for part in (p for p in node.args if isinstance(p, ast.Call)):
                made = ast.unparse(part.func).split(".")
                if made[-1][0].isupper():
                    module = made[-2] if len(made) > 1 else modules[made[0]]
                    found.add(f"{module}.{made[-1]}")
    assert found - table.PATCHES.keys() == set()


def wrapper_keys() -> dict[str, Path]:
    found = {}
    for path in [*(HOST / "comfy").rglob("*.py"), *CORE_NODES, *(HOST / "comfy_api").rglob("*.py")]:
        tree = parsed(path)
        constants = {
            node.targets[0].id: text_of(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or len(node.args) < 3:
                continue
            if getattr(node.func, "attr", "") == "add_wrapper_with_key":
                key = node.args[1]
                name = constants.get(key.id) if isinstance(key, ast.Name) else text_of(key)
                found |= {name: path} if name else {}
    return found


def test_every_wrapper_key_of_the_host_is_known():
    keys = wrapper_keys()
    assert {"easycache", "lazycache", "torch.compile"} <= keys.keys()
    assert keys.keys() - table.WRAPPER_KEYS.keys() == set()
    assert set(table.WRAPPER_KEYS.values()) <= table.PATCHES.keys()


def test_every_part_of_a_model_that_core_nodes_replace_is_known():
    found = set()
    for path in CORE_NODES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_object_patch":
                found.add(text_of(node.args[0]))
    assert {"model_sampling"} <= found <= table.OBJECTS


def test_the_walks_would_notice(monkeypatch):
    """A table that lacks something fails: the walks are no tautologies."""
    monkeypatch.delitem(table.MODEL_CONDS, "camera_conditions")
    assert model_cond_keys().keys() - table.MODEL_CONDS.keys() == {"camera_conditions"}
    monkeypatch.delitem(table.PATCHES, "nodes_sag.SelfAttentionGuidance")
    assert patching_nodes().keys() - table.PATCHES.keys() == {"nodes_sag.SelfAttentionGuidance"}


def test_what_is_checked_before_the_host_processes_it_is_what_models_read():
    read = {
        text_of(node.args[0])
        for node in ast.walk(parsed(MODEL_BASE))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "kwargs.get"
    }
    newer = {
        *("lq_latent", "generated_keyframes", "guide_attention_entries", "text_input_ids"),
        "time_dim_replace",
    }
    assert table.SIZED.keys() - newer <= read
    assert set(table.SIZED.values()) <= table.MODEL_CONDS.keys()
