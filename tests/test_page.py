"""`jaxsr.page` as text: read back by Python's HTML parser, which knows nothing of it."""

import base64
import dataclasses
import fnmatch
import hashlib
import html.parser
import json
import pathlib
import tomllib

import numpy as np
import pytest

from jaxsr import page

ROOT = pathlib.Path(__file__).parents[1]
HOSTILE = "</script><img src=x onerror='alert(1)'>\"&amp;<!-- \u2028"


class Document(html.parser.HTMLParser):
    """Elements as (tag, attributes, text directly inside), in their order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        while self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def texts(self, tag):
        return [text for name, _, text in self.elements if name == tag]

    def data(self):
        return json.loads(self.texts("script")[0])


def picture(label, role, png=b"\x89PNG", **figures):
    return page.Picture("scene", label, role, (8, 6), png, **figures)


def a_run(name="one", **changes):
    run = page.Run(
        name,
        "experiments.dip",
        {"loss": "mse", "seed": 0, "hr": None, "nested": {"a": (1, 2), "b": 0.1 + 0.2}},
        {"psnr": 27.125},
        [
            picture("ground truth", "truth", b"\x89PNG truth"),
            picture(
                "DIP", "result", b"\x89PNG dip", psnr=27.12345, ssim=0.9, protocol="protocol p"
            ),
            picture("bicubic", "baseline", b"\x89PNG bicubic", psnr=22.0, ssim=0.75),
            picture("low resolution", "input", b"\x89PNG low"),
        ],
        [page.Curve(name, "scene", "iteration", {"PSNR (dB)": [1.5, None, 0.1 + 0.2]})],
        [page.Table("scores", ("run", "PSNR", "SSIM", "gain"), [(name, (27.12345, 0.91239, 5.1))])],
    )
    return dataclasses.replace(run, **changes)


def test_names_stay_text():
    run = a_run(
        HOSTILE,
        command=HOSTILE,
        settings={HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}},
        results={HOSTILE: HOSTILE},
        pictures=[dataclasses.replace(picture(HOSTILE, "truth"), name=HOSTILE, protocol=HOSTILE)],
        curves=[page.Curve(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: [1.0]})],
        tables=[page.Table(HOSTILE, (HOSTILE, HOSTILE), [(HOSTILE, [HOSTILE])], (HOSTILE, [1.0]))],
        note=HOSTILE,
    )
    table = page.Table("scores", ("run", "PSNR"), [("one", [1.0])], ("mean", [1.0]))
    plain = Document(page.render([a_run(note="all", tables=[table])]))
    document = Document(page.render([run, dataclasses.replace(run, name="$title ${style}")]))
    assert {tag for tag, _, _ in document.elements} <= {tag for tag, _, _ in plain.elements}
    assert [a for _, a, _ in document.elements if any(k.startswith("on") for k in a)] == []
    assert document.texts("img") == ["", ""] and len(document.texts("script")) == 2
    assert document.texts("h1") == [f"{HOSTILE}, $title ${{style}}"]
    assert HOSTILE in document.texts("th") and HOSTILE in document.texts("td")
    labels = [a["aria-label"] for _, a, _ in document.elements if a.get("class") == "wide"]
    assert labels[0] == HOSTILE
    data = document.data()
    assert data["groups"][0]["name"] == data["groups"][0]["pictures"][0]["label"] == HOSTILE
    assert data["curves"][0]["columns"] == {HOSTILE: [1.0]}
    assert "<" not in document.texts("script")[0]


def test_the_policy_admits_what_is_there_and_nothing_else():
    text = page.render([a_run(HOSTILE)])
    document = Document(text)
    (policy,) = [a["content"] for _, a, _ in document.elements if "http-equiv" in a]
    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))

    def digest(source):
        return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"

    (style,), (_, script) = document.texts("style"), document.texts("script")
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digest(style),
        "script-src": digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert all("style" not in attributes for _, attributes, _ in document.elements)
    own = text.replace("http://www.w3.org/2000/svg", "")  # a name, never asked for
    assert "http:" not in own and "https:" not in own and "url(" not in style


def test_values_are_those_given():
    run = a_run()
    document = Document(page.render([run]))
    values = {a["value"]: text for tag, a, text in document.elements if tag == "data"}
    assert values == {
        "27.12345": "27.123",
        "0.91239": "0.9124",
        "5.1": "+5.100",
        repr(0.1 + 0.2): "0.3",
        "27.125": "27.125",
    }
    rows = document.texts("th")
    assert "nested a" in rows and "1, 2" in document.texts("td") and "hr" not in rows
    data = document.data()
    assert data["curves"] == [dataclasses.asdict(run.curves[0])]
    (group,) = data["groups"]
    assert (group["width"], group["height"]) == (8, 6)
    shown = {p["label"]: (p["caption"], data["images"][p["image"]]) for p in group["pictures"]}
    uri = "data:image/png;base64,"
    assert {label: base64.b64decode(u.removeprefix(uri)) for label, (_, u) in shown.items()} == {
        each.label: each.png for each in run.pictures
    }
    assert shown["DIP"][0] == "27.123 dB, SSIM 0.9000 (protocol p)"
    assert shown["ground truth"][0] == "the reference" and shown["low resolution"][0] == ""


def test_numpys_numbers_are_numbers():
    run = a_run()
    table = page.Table("t", ("image", "PSNR"), [("a", [np.float64(1.5)])])
    text = page.render([dataclasses.replace(run, tables=[table])])
    values = [a["value"] for tag, a, _ in Document(text).elements if tag == "data"]
    assert "1.5" in values and not any("np." in value for value in values)


def test_the_same_runs_make_the_same_bytes():
    runs = [a_run("one"), a_run("two")]
    assert page.render(runs) == page.render(runs) != page.render(runs[::-1])


def test_pairs_begin_with_baseline_and_result():
    (group,) = Document(page.render([a_run()])).data()["groups"]
    labels = [p["label"] for p in group["pictures"]]
    assert labels == ["low resolution", "bicubic", "DIP", "ground truth"]
    assert (labels[group["left"]], labels[group["right"]]) == ("bicubic", "DIP")
    pictures = [picture("ground truth", "truth"), picture("low resolution", "input")]
    (group,) = Document(page.render([a_run(pictures=pictures)])).data()["groups"]
    assert (group["left"], group["right"]) == (0, 1)


def test_two_runs_begin_with_their_results():
    other = [picture("DIP", "result", b"\x89PNG other"), *a_run().pictures[2:]]
    (group,) = Document(page.render([a_run("one"), a_run("two", pictures=other)])).data()["groups"]
    labels = [p["label"] for p in group["pictures"]]
    pair = labels[group["left"]], labels[group["right"]]
    assert pair == ("DIP · one", "DIP · two")


def test_parts_of_one_kind_stand_side_by_side():
    parts = {
        "a": {"loss": "mse", "seed": 0},
        "b": {"weights": "1,1"},
        "c": {"loss": "l1", "seed": 0},
    }
    document = Document(page.render([a_run(parts=parts)]))
    captions = [a["aria-label"] for tag, a, _ in document.elements if tag == "table"]
    assert captions[2:4] == ["one: a, c", "one: b"]
    differing = [i for i, e in enumerate(document.elements) if e[1].get("class") == "differs"]
    assert [document.elements[i + 1][2] for i in differing] == ["loss"]


def test_an_image_is_embedded_once_and_labels_tell_runs_apart():
    other = [picture("DIP", "result", b"\x89PNG other"), *a_run().pictures[2:]]
    wide = dataclasses.replace(picture("bicubic", "baseline"), size=(9, 6))
    runs = [a_run("one"), a_run("two", pictures=other), a_run("three", pictures=[wide])]
    data = Document(page.render(runs)).data()
    assert [group["name"] for group in data["groups"]] == ["scene (8×6)", "scene (9×6)"]
    labels = [p["label"] for p in data["groups"][0]["pictures"]]
    assert labels == ["low resolution", "bicubic", "DIP · one", "DIP · two", "ground truth"]
    assert len(data["images"]) == len(set(data["images"])) == 6


def test_tables_of_one_kind_are_one_and_missing_is_said():
    mean = page.Table("a mean", ("image", "PSNR"), [("i", [1.0])], ("mean", [2.0]))
    words = page.Table("words", ("row", "cells", "PSNR"), [("r", ["0/3", None])])
    runs = [a_run("one", tables=[*a_run().tables, mean, words]), a_run("two", tables=[mean])]
    document = Document(page.render([*runs, a_run("three")]))
    captions = [a["aria-label"] for tag, a, _ in document.elements if tag == "table"]
    assert captions[:4] == ["scores", "a mean", "words", "a mean"]
    assert document.texts("tfoot") == ["", ""]
    assert [text for _, a, text in document.elements if a.get("class") == "missing"] == ["missing"]
    assert "0/3" in document.texts("td")


def test_settings_that_differ_are_marked():
    runs = [a_run("one"), a_run("two", settings={"loss": "l1", "seed": 0, "extra": 1})]
    document = Document(page.render(runs))
    at = [i for i, e in enumerate(document.elements) if e[1].get("class") == "differs"]
    names = [document.elements[i + 1][2] for i in at]
    assert names == ["loss", "nested a", "nested b", "extra"]
    assert "–" in document.texts("td")


def test_what_is_empty_is_hidden():
    nothing = page.Curve("c", "", "epoch", {})
    document = Document(page.render([a_run(pictures=[], curves=[nothing], tables=[])]))
    hidden = [a["id"] for tag, a, _ in document.elements if tag == "section" and "hidden" in a]
    assert hidden == ["images", "curves", "tables"]


def test_json_has_no_infinities():
    with pytest.raises(ValueError):
        page.render([a_run(curves=[page.Curve("c", "", "epoch", {"loss": [float("nan")]})])])


def test_the_package_carries_its_files():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = config["tool"]["setuptools"]["package-data"]["jaxsr"]
    files = [p.relative_to(ROOT / "jaxsr") for p in (ROOT / "jaxsr" / "page").iterdir()]
    loose = [f.as_posix() for f in files if f.suffix in (".html", ".css", ".js")]
    assert len(loose) == 4
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in loose)
