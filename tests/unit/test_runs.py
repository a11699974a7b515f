"""Overrides, tables, what is done already: the command line's parts that need no server."""

from __future__ import annotations

import errno

import pytest
from PIL import Image

from tools.host import HostError
from tools.runs import cluster, record, rows, settings, sheet

from .small_host import INFO, node

PROMPT = {
    "1": node("CLIPTextEncode", "Prompt", text="a boat", clip=["9", 1]),
    "2": node("KSampler", "Draw", seed=3, cfg=4, sampler_name="euler", latent_image=["7", 0]),
    "3": node("RandomNoise", "Noise v1.5", noise_seed=3),
    "4": node("PrimitiveFloat", "Scale", value=2.0),
    "5": node("CLIPTextEncode", "Prompt", text="", clip=["9", 1]),
    "6": node("KSampler", "Wired", seed=["3", 0], cfg=1.0),
}
UNIQUE = {key: entry for key, entry in PROMPT.items() if key != "5"}


@pytest.mark.parametrize(
    ("key", "text", "places", "value"),
    [
        ("Prompt.text", 'a "red" boat, 3.5=x', ["1.text"], 'a "red" boat, 3.5=x'),
        ("1.text", "", ["1.text"], ""),
        ("text", "fog", ["1.text"], "fog"),
        ("2.cfg", "4", ["2.cfg"], 4.0),
        ("Draw.cfg", "2.5", ["2.cfg"], 2.5),  # the file holds 4, the definition says FLOAT
        ("seed", "7", ["2.seed", "3.noise_seed"], 7),
        ("Noise v1.5.noise_seed", "8", ["3.noise_seed"], 8),
        ("scale", "3", ["4.value"], 3.0),
        ("Draw.sampler_name", "ddim", ["2.sampler_name"], "ddim"),
        ("Draw.tiled", "True", ["2.tiled"], True),  # the file leaves it at its default
    ],
)
def test_a_setting_goes_where_its_name_says(key, text, places, value):
    changed = settings.applied(UNIQUE, INFO, {key: text})
    different = {
        f"{number}.{name}": entry["inputs"][name]
        for number, entry in changed.items()
        for name in entry["inputs"]
        if entry["inputs"][name] != UNIQUE[number]["inputs"].get(name)
        or type(entry["inputs"][name]) is not type(UNIQUE[number]["inputs"].get(name))
    }
    assert different == dict.fromkeys(places, value)
    for place in places:
        number, name = place.split(".")
        found = changed[number]["inputs"][name]
        assert found == value and type(found) is type(value)
    assert UNIQUE["2"]["inputs"]["seed"] == 3  # the workflow itself is as it was


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("Promt.text", "x", "nothing in the workflow is called 'Promt.text'.*Prompt.text"),
        ("Prompt.txt", "x", r"Prompt has no input 'txt'; it has: text, clip"),
        ("Prompt.text", "x", r"say which: 1.text \(Prompt\), 5.text \(Prompt\)"),
        ("2.seed", "7.5", "2.seed=7.5: it takes a whole number"),
        ("2.cfg", "nan", "it takes a number"),
        ("2.tiled", "1", "it takes true or false"),
        ("6.seed", "1", "6.seed comes by a wire from 'Noise v1.5': set it there"),
        ("1.clip", "x", "comes by a wire from '9'"),
        ("cfg", "1", "say which: 2.cfg"),
    ],
)
def test_a_setting_that_fits_nothing_says_what_would(key, text, said):
    with pytest.raises(settings.SettingError, match=said):
        settings.applied(PROMPT, INFO, {key: text})
    with pytest.raises(settings.SettingError, match="same input"):
        settings.applied(UNIQUE, INFO, {"1.text": "a", "Prompt.text": "b"})


def test_several_values_are_a_grid():
    given = [settings.split(text) for text in ("seed=1", "Prompt.text=a=b", "seed=2")]
    assert list(settings.grid(given)) == [
        {"seed": "1", "Prompt.text": "a=b"},
        {"seed": "2", "Prompt.text": "a=b"},
    ]
    assert list(settings.grid([])) == [{}]
    with pytest.raises(settings.SettingError, match="no setting"):
        settings.split("seed")


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_read_as_spreadsheets_write_it(tmp_path, separator):
    text = 'name,1.text,seed\r\nfirst,"fog, and\nrain",1\r\n,,2\r\n'.replace(",", separator)
    text = text.replace(f"fog{separator}", "fog,")
    path = write(tmp_path / "a.csv", text, "utf-8-sig")
    assert rows.columns(path) == ["1.text", "seed"]
    first, second = rows.rows(PROMPT, INFO, rows.table(path), {"Draw.cfg": "2"})
    assert first.prompt["1"]["inputs"]["text"] == "fog, and\nrain"
    assert first.name.startswith("00001_first_") and first.prompt["2"]["inputs"]["cfg"] == 2
    assert second.prompt["1"]["inputs"]["text"] == "a boat"  # an empty cell changes nothing
    assert second.prompt["2"]["inputs"]["seed"] == 2 and "seed=2" in second.name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no header"),
        (b"seed\n", "no line below"),
        (b"seed,seed\n1,2\n", "two columns named 'seed'"),
        (b"seed\n\xff\xfe\n", "no CSV file in UTF-8"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, content, said):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(rows.TableError, match=said):
        list(rows.table(path)) and rows.columns(path)
        rows.columns(path)
    with pytest.raises(rows.TableError, match="No such file"):
        rows.columns(tmp_path / "absent.csv")


def test_rows_are_told_apart_by_what_they_draw():
    lines = [{"seed": "1"}, {"seed": "x"}, {"seed": "1"}, {"seed": "2", None: ["more"]}]
    found = list(rows.rows(UNIQUE, INFO, lines, {}))
    assert [bool(row.problem) for row in found] == [False, True, False, True]
    assert "whole number" in found[1].problem and "more cells" in found[3].problem
    assert len({row.key for row in found}) == 4
    # Lines before it may come and go: a row's key stays.
    [again] = rows.rows(UNIQUE, INFO, [{"seed": "1"}], {})
    assert again.key == found[0].key
    with pytest.raises(settings.SettingError, match="'Promt'"):
        rows.check(UNIQUE, INFO, ["Promt"])


def test_names_are_names_on_any_system():
    odd = {"Prompt.text": 'a\\b/c:*?"<>|\n' + "long " * 50}
    [row] = rows.rows(UNIQUE, INFO, [odd], {})
    assert row.name.startswith("00001_text=a-b-c-long") and len(row.name) < 90
    assert not set(row.name) & set('\\/:*?"<>| \n')
    # Three bytes a letter, and no system takes more than 255 of them.
    [row] = rows.rows(UNIQUE, INFO, [{"Prompt.text": "雪山の上の赤い気球" * 20}], {})
    files = [("保存した画像" * 20, ".png", "x", b"1")] * 12
    names = [name for name, _ in record.named(row, files)]
    assert "雪山の上の赤い気球" in names[0] and "保存した画像" in names[0]
    assert len(set(names)) == 12 and max(len(f"{record.PART}{n}".encode()) for n in names) < 200


def made(name="a", files=(("Save", ".png", "x.png", b"1"),)):
    return {"files": list(files), "seconds": 1.0, "texts": {}, "previews": []}


def row(number, key=None, problem=None):
    return rows.Row(number, key or f"key{number}", f"{number:05d}", {"seed": "1"}, {}, problem)


def test_what_is_done_stays_done(tmp_path):
    first = record.Record(tmp_path)
    first.finish(row(1), made())
    several = [("Save a/b", ".png", "x", b"2"), ("Latent", ".latent", "y", b"3")]
    first.finish(row(2), made(files=several))
    with pytest.raises(record.FolderError, match="another run writes into"):
        record.Record(tmp_path)
    first.file.close()
    # The driver was killed while it wrote: a torn line, half a picture.
    with (tmp_path / record.JOURNAL).open("ab") as file:
        file.write(b'{"key": "key3", "fil')
    (tmp_path / ".part-00003.png").write_bytes(b"half")
    (tmp_path / "00001.png").unlink()  # and somebody deleted a picture
    second = record.Record(tmp_path)
    assert set(second.done) == {"key2"} and not list(tmp_path.glob(".part*"))
    assert second.done["key2"]["files"] == ["00002_Save-a-b_1.png", "00002_Latent_2.latent"]
    second.finish(row(3), made())
    second.failed["key4"] = "no such sampler"
    path = second.index([row(2), row(3), row(4), row(5), row(6, problem="more cells")])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "number,status,files,seconds,error,seed"
    assert [line.split(",")[1] for line in lines[1:]] == ["done"] * 2 + ["failed", "open", "failed"]
    second.file.close()
    assert set(record.Record(tmp_path).done) == {"key2", "key3"}


@pytest.mark.parametrize("call", ["write", "replace"])
def test_a_full_disk_leaves_no_half_row(tmp_path, monkeypatch, call):
    kept = record.Record(tmp_path)
    kept.finish(row(1), made())

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(record.os, "replace" if call == "replace" else "fsync", full)
        with pytest.raises(record.FolderError, match="is full: free some space and give the same"):
            kept.finish(row(2), made())
    assert not list(tmp_path.glob(".part*")) and not (tmp_path / "00002.png").exists()
    kept.finish(row(3), made())
    kept.file.close()
    assert set(record.Record(tmp_path).done) == {"key1", "key3"}


def test_a_contact_sheet_has_pages(tmp_path):
    pictures = []
    for number in range(50):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 40 + number), (5 * number, 80, 0)).save(path)
        pictures.append((path, f"seed={number} text={'word ' * 40}"))
    (tmp_path / "sheet_009.jpg").write_bytes(b"of a longer table")
    (tmp_path / "49.png").write_bytes(b"\x89PNG, and no more of it")
    saved = sheet.sheets(tmp_path, pictures)
    assert [path.name for path in saved] == ["sheet_001.jpg", "sheet_002.jpg"]
    assert sorted(tmp_path.glob("sheet_*")) == saved
    first, last = (Image.open(path) for path in saved)
    assert first.width > 6 * 256 and first.height > 8 * 256 and last.height < 400
    # In the middle of the second picture's place stands the second picture.
    middle = first.getpixel((12 + 268 + 128, 12 + 128))
    assert max(abs(a - b) for a, b in zip(middle, (5, 80, 0), strict=True)) < 12


def test_a_sheet_that_finds_the_disk_full_is_not_there(tmp_path, monkeypatch):
    path = tmp_path / "1.png"
    Image.new("RGB", (8, 8)).save(path)

    def full(self, target, **options):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(record.FolderError, match="is full: free some space"):
        sheet.sheets(tmp_path, [(path, "seed=1")])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:x", "ray://127.0.0.1:1"])
def test_a_ray_that_is_not_there_is_said_at_once(address):
    with pytest.raises(HostError, match=f"no Ray answers at {address}"):
        cluster.reachable(address)
