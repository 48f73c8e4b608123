"""The page in a real browser: what a mouse, keys, a finger and a screen reader find."""

import io
import itertools
import shutil
import subprocess
import time

import numpy as np
import PIL.Image
import pytest

from jaxsr import page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None
)
HOSTILE = "<img src=x onerror=window.hacked=1>" + "a_very_long_name_" * 8
HISTORY = [10 + 0.01 * n for n in range(1, 201)]
LEVELS = {"PSNR on Y (dB)": {"bicubic": 14.5}}


def png(red, green, blue, size=(60, 40)):
    """A colour, with a white square that shows where it is."""
    image = PIL.Image.new("RGB", size, (red, green, blue))
    image.paste((255, 255, 255), (size[0] // 2, size[1] // 2, size[0] // 2 + 6, size[1] // 2 + 4))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pictures(name):
    shown = {
        ("low resolution", "input"): png(90, 90, 0, (15, 10)),
        ("bicubic", "baseline"): png(200, 0, 0),
        ("DIP", "result"): png(0, 0, 200),
        ("ground truth", "truth"): png(0, 150, 0),
    }
    return [
        page.Picture(name, label, role, (60, 40), data, 20.0 + len(label), 0.5, "protocol dip")
        for (label, role), data in shown.items()
    ]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    quantities = {"PSNR on Y (dB)": HISTORY, "loss (log)": [1 / n for n in range(1, 201)]}
    runs = [
        page.Run(
            HOSTILE,
            "experiments.dip",
            {"loss": "mse", "hr": HOSTILE},
            {"psnr": 12.0},
            [*pictures("first"), *pictures(HOSTILE)],
            [page.Curve(HOSTILE, "first", "iteration", quantities, levels=LEVELS)],
            [
                page.Table(
                    "scores", ("run", "PSNR", "SSIM"), [(HOSTILE, (23.0, 0.5)), ("b", (2.0, None))]
                )
            ],
            note=HOSTILE,
        ),
        page.Run(
            "another",
            "experiments.dip",
            {"loss": "l1"},
            {},
            curves=[
                page.Curve(
                    "another", "second", "iteration", {"PSNR on Y (dB)": HISTORY[9::10]}, every=10
                )
            ],
        ),
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.render(runs), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH")
    if subprocess.run([CHROMIUM, "--version"], capture_output=True).returncode:
        pytest.skip(f"{CHROMIUM} does not run")  # Ubuntu has one that only names another
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, html):
    """Opens the page; whatever is logged, thrown or asked of the network fails the test."""
    contexts, wrong = [], []

    def visit(html=html, **options):
        contexts.append(browser.new_context(**options))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(5000)
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on(
            "request",
            lambda r: r.url == html or r.url.startswith("data:") or wrong.append(r.url),
        )
        tab.goto(html)
        return tab

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def until(tab, condition):
    """Playwright's own would ask again from within the page, which forbids code in a text."""
    end = time.monotonic() + 5
    while not tab.evaluate(condition):
        assert time.monotonic() < end, condition
        tab.wait_for_timeout(20)


def value(tab):
    return int(
        tab.get_by_role("slider", name="Share of the left image").get_attribute("aria-valuenow")
    )


def colour(tab, across, down=0.25):
    """Of the stage at a share of its width and height."""
    until(tab, "[...document.images].every(image => image.complete)")
    x, y = at(tab, across, down)
    data = tab.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
    with PIL.Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").getpixel((0, 0))


def choice(place, name):
    return place.get_by_role("combobox", name=name, exact=True)


def at(tab, across, down=0.5):
    tab.locator("#stage").scroll_into_view_if_needed()
    box = tab.locator("#stage").bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def boxes(tab):
    return [tab.locator(f"#image-{side}").bounding_box() for side in ("left", "right")]


def percent(tab, zoom):
    """Pixels of the screen to one of the image, which has 60 across, at a zoom."""
    pixels = tab.evaluate("devicePixelRatio * document.getElementById('pane-left').clientWidth")
    return f"{round(100 * zoom * pixels / 60)} %"


def test_images_load(visit):
    tab = visit()
    for group in range(2):
        tab.select_option("#group", index=group)
        for i, width in enumerate((15, 60, 60, 60)):
            tab.select_option("#left", index=i)
            until(tab, f"document.getElementById('image-left').naturalWidth === {width}")
    assert all(box["width"] > 100 and box["height"] > 60 for box in boxes(tab))


def test_the_divider_follows_the_mouse(visit):
    tab = visit()
    assert value(tab) == 50
    assert [colour(tab, x) for x in (0.4, 0.6)] == [(200, 0, 0), (0, 0, 200)]
    tab.mouse.move(*at(tab, 0.5))
    tab.mouse.down()
    tab.mouse.move(*at(tab, 0.4))
    tab.mouse.move(*at(tab, 0.25))
    assert value(tab) == 25
    tab.mouse.up()
    tab.mouse.move(*at(tab, 0.8))
    assert value(tab) == 25
    assert [colour(tab, x) for x in (0.2, 0.4)] == [(200, 0, 0), (0, 0, 200)]
    tab.mouse.click(*at(tab, 0.9))
    assert value(tab) == 90


def test_the_divider_follows_keys(visit):
    tab = visit()
    tab.get_by_role("slider", name="Share of the left image").focus()
    for key, expected in (
        *(("ArrowLeft", 49), ("ArrowDown", 48), ("ArrowRight", 49), ("PageUp", 59)),
        *(("PageDown", 49), ("Shift+ArrowLeft", 39), ("Shift+ArrowUp", 49)),
        *(("Alt+End", 49), ("Control+ArrowRight", 49)),  # the browser's own
        *(("End", 100), ("ArrowUp", 100), ("Home", 0), ("ArrowLeft", 0)),
    ):
        tab.keyboard.press(key)
        assert value(tab) == expected, key
    assert colour(tab, 0.1) == (0, 0, 200)
    tab.keyboard.press("End")
    assert colour(tab, 0.9) == (200, 0, 0)


def test_any_pair_with_its_figures(visit):
    tab = visit()
    captions = tab.locator(".captions p")
    assert "bicubic" in captions.nth(0).inner_text()
    assert "27.000 dB, SSIM 0.5000 (protocol dip)" in captions.nth(0).inner_text()
    assert "23.000 dB" in captions.nth(1).inner_text()
    choice(tab, "Left").select_option("ground truth")
    assert tab.locator("#image-left").get_attribute("alt") == "first, ground truth"
    assert "32.000 dB" in captions.nth(0).inner_text()
    until(tab, "document.getElementById('image-left').complete")
    assert [colour(tab, x) for x in (0.3, 0.7)] == [(0, 150, 0), (0, 0, 200)]
    choice(tab, "Right").select_option("low resolution")
    until(tab, "document.getElementById('image-right').naturalWidth === 15")
    assert colour(tab, 0.7) == (90, 90, 0)
    tab.get_by_role("button", name="Zoom in").click()
    tab.select_option("#group", index=1)  # keeps the pair, and shows all of it
    assert tab.get_by_role("status").inner_text() == percent(tab, 1)
    panes = [tab.locator(f"#pane-{side}").get_attribute("title") for side in ("left", "right")]
    assert panes == ["ground truth", "low resolution"]
    names = [tab.locator(f"#image-{side}").get_attribute("alt") for side in ("left", "right")]
    assert names == [f"{HOSTILE}, ground truth", f"{HOSTILE}, low resolution"]


def test_the_line_is_where_the_images_meet(visit):
    tab = visit()
    tab.get_by_role("slider", name="Share of the left image").focus()
    for key, share in (("Home", 0), ("PageUp", 0.1), ("End", 1)):
        tab.keyboard.press(key)
        box = tab.locator("#divider").bounding_box()
        assert box["x"] + box["width"] / 2 == pytest.approx(at(tab, share)[0], abs=0.5)
        (x, y), inside = at(tab, share), 20 if share < 0.5 else -20
        if share != 0.1:  # the handle stays inside
            assert tab.evaluate(f"document.elementFromPoint({x + inside}, {y}).id") == "divider"
            data = tab.screenshot(clip={"x": x + inside, "y": y + 13, "width": 1, "height": 1})
            with PIL.Image.open(io.BytesIO(data)) as image:
                assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_difference_and_the_other_way_round(visit):
    tab = visit()
    explained = tab.locator("#help")
    assert explained.inner_text().startswith("Drag the divider")
    choice(tab, "View").select_option("difference × 8")
    assert explained.inner_text().startswith("Zoom with")
    assert colour(tab, 0.3) == colour(tab, 0.7) == (255, 0, 255)  # 200 red and 200 blue, by 8
    choice(tab, "Right").select_option("bicubic")
    assert colour(tab, 0.3) == (0, 0, 0)
    choice(tab, "View").select_option("slider")
    choice(tab, "Right").select_option("DIP")
    tab.get_by_role("button", name="Swap left and right").click()
    assert [colour(tab, x) for x in (0.3, 0.7)] == [(0, 0, 200), (200, 0, 0)]
    tab.locator("#stage").focus()
    tab.keyboard.press("s")
    assert [colour(tab, x) for x in (0.3, 0.7)] == [(200, 0, 0), (0, 0, 200)]


def test_a_pixel_of_a_large_image_on_one_of_the_screen(visit, tmp_path):
    large = page.Picture("large", "only", "result", (3000, 2000), png(1, 2, 3, (3000, 2000)))
    path = tmp_path / "large.html"
    path.write_text(page.render([page.Run("a", "b", {}, {}, [large])]), encoding="utf-8")
    tab = visit(path.as_uri(), device_scale_factor=2, reduced_motion="reduce")
    assert tab.locator("#image-left").get_attribute("class") in (None, "")  # smooth
    tab.get_by_role("button", name="Actual pixels").click()
    assert tab.get_by_role("status").inner_text() == "100 %"
    assert tab.locator("#image-left").bounding_box()["width"] == pytest.approx(1500, abs=1)
    whole = tab.get_by_role("button", name="whole image")
    whole.click()
    assert whole.is_disabled()
    tab.locator("#stage").focus()
    tab.keyboard.press("1")
    assert tab.get_by_role("status").inner_text() == "100 %" and whole.is_enabled()
    whole.click()
    for _ in range(9):
        tab.locator("#in").click(force=True)
    assert tab.evaluate("document.activeElement.id") == "in"  # at the limit, too
    assert tab.get_by_role("status").inner_text() == "1600 %"
    assert "enlarged" in tab.locator("#image-left").get_attribute("class")


def test_on_paper_all_is_dark_on_white_and_none_is_cut_off(visit, tmp_path):
    columns = tuple(f"column {n}" for n in range(9))
    table = page.Table("wide", ("row", *columns), [("a row of a long name", [12.345] * 9)])
    path = tmp_path / "wide.html"
    run = page.Run("a", "b", {"loss": "mse"}, {}, tables=[table])
    path.write_text(page.render([run]), encoding="utf-8")
    tab = visit(path.as_uri(), color_scheme="dark", viewport={"width": 728, "height": 1000})
    dark = luminance(tab.locator("section").first.evaluate("e => getComputedStyle(e).color"))
    assert dark > 0.5
    tab.emulate_media(media="print", color_scheme="dark")
    ink = luminance(tab.locator("section").first.evaluate("e => getComputedStyle(e).color"))
    ground = luminance(tab.locator("body").evaluate("e => getComputedStyle(e).backgroundColor"))
    assert ink < 0.05 and ground > 0.9
    assert tab.get_by_role("table", name="wide").bounding_box()["width"] <= 728
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened = "all => all.map(each => each.open)"
    assert all(tab.locator("details").evaluate_all(opened))
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not any(tab.locator("details").evaluate_all(opened))


@pytest.mark.parametrize("mode", ["slider", "beside"])
def test_both_images_zoom_alike(visit, mode):
    tab = visit(reduced_motion="reduce")
    choice(tab, "View").select_option(mode)
    pane = tab.locator("#pane-left").bounding_box()
    apart = tab.locator("#pane-right").bounding_box()["x"] - pane["x"]
    assert (apart > 100) == (mode == "beside")

    def shown():
        """The zoom, and the shares of the left and upper rest that are out of sight."""
        left, right = boxes(tab)
        pane = tab.locator("#pane-left").bounding_box()
        assert right["x"] - left["x"] == pytest.approx(apart, abs=0.5)
        assert [left[k] for k in ("y", "width", "height")] == pytest.approx(
            [right[k] for k in ("y", "width", "height")], abs=0.5
        )
        zoom = left["width"] / pane["width"]
        hidden = (pane["x"] - left["x"]) / pane["width"], (pane["y"] - left["y"]) / pane["height"]
        return pytest.approx((zoom, *hidden), abs=0.01)

    assert shown() == (1, 0, 0)
    tab.get_by_role("button", name="Zoom in").click()
    assert shown() == (2, 0.5, 0.5)
    tab.locator("#stage").focus()
    for key in ("+", "ArrowRight", "ArrowUp"):
        tab.keyboard.press(key)
    assert shown() == (4, 1.5 + 0.1, 1.5 - 0.1)
    pane = tab.locator("#pane-left").bounding_box()
    x, y = pane["x"] + 0.25 * pane["width"], pane["y"] + 0.5 * pane["height"]
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 0.2 * pane["width"], y + 0.1 * pane["height"])
    tab.mouse.up()
    assert shown() == (4, 1.6 + 0.2, 1.4 - 0.1)
    assert tab.get_by_role("status").inner_text() == percent(tab, 4)
    tab.get_by_role("button", name="whole image").click()
    assert shown() == (1, 0, 0) and tab.get_by_role("button", name="Zoom out").is_disabled()
    tab.mouse.move(x, y)
    tab.keyboard.down("Control")
    tab.mouse.wheel(0, -200)
    tab.keyboard.up("Control")
    until(tab, f"document.getElementById('zoom').value === '{percent(tab, np.e)}'")
    assert shown() == (np.e, 0.25 * (np.e - 1), 0.5 * (np.e - 1))  # the pointed at stays
    before = tab.evaluate("scrollY")
    tab.mouse.wheel(0, 200)
    until(tab, f"scrollY > {before}")  # the page's, without the key
    assert tab.get_by_role("status").inner_text() == percent(tab, np.e)


def test_keys_zoom_and_the_panes_have_the_images_shape(visit):
    tab = visit(reduced_motion="reduce")
    box = tab.locator("#pane-left").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(60 / 40, rel=0.02)
    divider = tab.get_by_role("slider", name="Share of the left image")
    assert divider.get_attribute("aria-valuetext") == "50 % bicubic"
    tab.locator("#stage").focus()
    for key, zoom in (("+", 2), ("=", 4), ("-", 2), ("0", 1)):
        tab.keyboard.press(key)
        assert tab.get_by_role("status").inner_text() == percent(tab, zoom), key


def test_a_line_goes_through_its_values_and_stops_where_one_is_missing(visit, tmp_path):
    broken = [*HISTORY[:100], None, *HISTORY[101:]]
    curves = [
        page.Curve("each", "a", "iteration", {"PSNR on Y (dB)": broken}),
        page.Curve("tenth", "a", "iteration", {"PSNR on Y (dB)": HISTORY[9::10]}, every=10),
    ]
    path = tmp_path / "lines.html"
    run = page.Run("a", "experiments.dip", {}, {}, curves=curves)
    path.write_text(page.render([run]), encoding="utf-8")
    tab = visit(path.as_uri())
    plot = tab.get_by_role("slider", name="at one iteration")
    plot.press("End")
    lines = [line.get_attribute("d") for line in tab.locator(".plot path").all()]
    assert [line.count("M") for line in lines] == [2, 1]
    for line, dot in zip(lines, tab.locator(".plot circle").all(), strict=True):
        end = [float(x) for x in line.rsplit("L", 1)[1].split()]
        assert end == pytest.approx([float(dot.get_attribute(x)) for x in ("cx", "cy")], abs=0.1)
    width = float(plot.get_attribute("viewBox").split()[2])
    ticks = tab.locator(".plot text[y='296']").all()
    assert len(ticks) > 2
    for tick in ticks:
        across = 64 + (width - 64 - 12) * float(tick.text_content()) / 200
        assert float(tick.get_attribute("x")) == pytest.approx(across, abs=0.1)


def test_curves_follow_the_pointer_and_keys(visit):
    tab = visit()
    plot = tab.get_by_role("slider", name="at one iteration")
    assert plot.get_attribute("aria-label") == "PSNR on Y (dB) at one iteration"
    plot.scroll_into_view_if_needed()
    items = tab.locator(".legend li")
    assert items.all_inner_texts()[0] == "iteration 200"
    box = plot.bounding_box()
    left, right = 64, 12  # margins of the axes
    tab.mouse.move(box["x"] + left + (box["width"] - left - right) * 73 / 200, box["y"] + 50)
    # One of the two curves has every tenth iteration alone: the cursor goes where both have values.
    texts = [" ".join(text.split()) for text in items.all_inner_texts()]
    assert texts == [
        "iteration 70",
        f"first: {HOSTILE} {HISTORY[69]:.3f}",
        f"second: another {HISTORY[69]:.3f}",
    ]
    clip, dot = tab.locator(".plot clipPath rect"), tab.locator(".plot circle").first
    ends = [float(clip.get_attribute(x)) for x in ("x", "width")]
    plot.press("End")
    radius = float(dot.get_attribute("r"))
    assert sum(ends) >= float(dot.get_attribute("cx")) + radius  # the last value's dot is whole
    plot.hover(position={"x": left + (box["width"] - left - right) * 70 / 200, "y": 50})
    choice(tab.locator(".plot"), "Image").select_option("first")
    level = tab.locator(".plot line.level").first
    grid = tab.locator(".plot .grid").all()
    lines = [float(x.text_content()) for x in tab.locator(".plot text[x='56']").all()]
    assert "bicubic 14.500" in " ".join(items.all_inner_texts()[-1].split())
    marks = sorted(float(line.get_attribute("y1")) for line in grid)
    step = (marks[-1] - marks[0]) / (max(lines) - min(lines))
    assert float(level.get_attribute("y1")) == pytest.approx(
        marks[0] + step * (max(lines) - 14.5), abs=0.1
    )
    plot.focus()
    for key, expected in (("ArrowRight", 80), ("PageUp", 100), ("Home", 10), ("End", 200)):
        tab.keyboard.press(key)
        text = plot.get_attribute("aria-valuetext")
        assert text == f"iteration {expected}: {HOSTILE} {HISTORY[expected - 1]:.3f}"
    choice(tab, "Quantity").select_option("loss (log)")
    assert plot.get_attribute("aria-valuetext") == f"iteration 200: {HOSTILE} 0.005"


def test_many_images_start_with_the_first_whose_start_squashes_nothing(visit, tmp_path):
    name = "PSNR on Y (dB)"
    values = [-500.0, *[20 + 0.1 * n for n in range(1, 19)], None]
    curves = [page.Curve(f"run {i}", f"image {i}", "iteration", {name: values}) for i in range(9)]
    path = tmp_path / "many.html"
    path.write_text(page.render([page.Run("a", "b", {}, {}, curves=curves)]), encoding="utf-8")
    tab = visit(path.as_uri())
    plot = tab.get_by_role("slider", name="at one iteration")
    assert choice(tab, "Image").evaluate("e => e.selectedOptions[0].text") == "image 0"
    axis = [float(x.text_content()) for x in tab.locator(".plot text[x='56']").all()]
    assert 20 <= min(axis) < max(axis) <= 22
    assert plot.get_attribute("aria-valuetext") == "iteration 20: run 0 –"
    dot = tab.locator(".plot circle")
    assert dot.count() == 1 and dot.is_hidden()
    plot.press("ArrowLeft")
    assert plot.get_attribute("aria-valuetext") == "iteration 19: run 0 21.800"
    assert dot.is_visible()
    choice(tab, "Image").select_option("all")
    assert dot.count() == 9


def test_a_curve_that_ends_between_the_values_of_another(visit, tmp_path):
    """The cursor stays where both have values; a narrow logarithmic axis has distinct labels."""
    values = [0.0105 - 1e-6 * n for n in range(1, 505)]
    curves = [
        page.Curve("each", "scene", "iteration", {"loss (log)": values}),
        page.Curve("ten", "scene", "iteration", {"loss (log)": values[9::10]}, every=10),
    ]
    path = tmp_path / "curves.html"
    path.write_text(page.render([page.Run("a", "b", {}, {}, curves=curves)]), encoding="utf-8")
    tab = visit(path.as_uri())
    plot = tab.get_by_role("slider", name="at one iteration")
    plot.focus()
    for key, expected in (("End", 500), ("ArrowLeft", 490), ("ArrowRight", 500), ("Home", 10)):
        tab.keyboard.press(key)
        shown = f"{values[expected - 1]:.4g}"
        assert (
            plot.get_attribute("aria-valuetext")
            == f"iteration {expected}: each {shown}, ten {shown}"
        )
    assert plot.get_attribute("aria-valuemax") == "500"
    labels = plot.locator("text[text-anchor=end]").all_text_contents()
    labels = [text for text in labels if text.startswith("0.")]
    assert len({*labels}) == len(labels) >= 3


def test_a_button_that_does_nothing_looks_so(visit):
    tab = visit()
    smaller, larger = (tab.get_by_role("button", name=name) for name in ("Zoom out", "Zoom in"))
    assert smaller.is_disabled() and larger.is_enabled()
    style = "e => [getComputedStyle(e).opacity, getComputedStyle(e).cursor]"
    assert smaller.evaluate(style) == ["0.5", "default"] and larger.evaluate(style) == [
        "1",
        "pointer",
    ]


def luminance(css):
    """Of WCAG 2.2, section "relative luminance"."""
    parts = css[css.index("(") + 1 : -1].replace(",", " ").split()[:3]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (float(part) / 255 for part in parts)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(visit, scheme):
    tab = visit(color_scheme=scheme)

    def style(selector, name):
        return tab.locator(selector).first.evaluate(f"e => getComputedStyle(e).{name}")

    ground = luminance(style("section", "backgroundColor"))
    assert (ground < 0.05) == (scheme == "dark")
    for selector in ("h2", "#help", ".caption", "td", "summary", ".legend li", ".missing"):
        text = luminance(style(selector, "color"))
        contrast = (max(text, ground) + 0.05) / (min(text, ground) + 0.05)
        assert contrast >= 4.5, selector


def test_a_phone(visit):
    tab = visit(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    for mode in ("slider", "beside"):
        choice(tab, "View").select_option(mode)
        widths = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths == [390, 390]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes(tab))
    choice(tab, "View").select_option("slider")
    tab.locator("#stage").scroll_into_view_if_needed()
    tab.touchscreen.tap(*at(tab, 0.2))
    assert value(tab) == 20
    small = tab.evaluate(
        "[...document.querySelectorAll('button, select')].map(e => e.getBoundingClientRect())"
        ".filter(box => box.height && Math.min(box.width, box.height) < 40).length"
    )
    assert small == 0
    # In the legend a long name is broken, its number is not, and its line's picture is beside it.
    lines = tab.evaluate(
        "[...document.querySelectorAll('.legend li')].slice(1).map(e => [e.querySelector('svg'),"
        " e.querySelector('b')].map(x => x.getBoundingClientRect().toJSON()))"
    )
    assert lines and all(svg["top"] < b["bottom"] and b["top"] < svg["bottom"] for svg, b in lines)
    assert {b["height"] < 30 for _, b in lines} == {True}


def test_two_fingers_zoom_also_after_a_third(visit):
    tab = visit(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    session = tab.context.new_cdp_session(tab)

    def touch(kind, **fingers):
        points = []
        for name, across in fingers.items():
            x, y = at(tab, across)
            points.append({"x": x, "y": y, "id": "abc".index(name)})
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", a=0.4, b=0.6)
    touch("touchMove", a=0.3, b=0.7)
    assert tab.get_by_role("status").inner_text() == percent(tab, 2)
    touch("touchStart", a=0.3, b=0.7, c=0.5)
    touch("touchEnd", c=0.5)
    touch("touchMove", a=0.2, b=0.8)
    assert tab.get_by_role("status").inner_text() == percent(tab, 3)


def test_all_that_takes_the_focus_has_a_name(visit):
    tab = visit()
    session = tab.context.new_cdp_session(tab)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    named = {}
    for node in nodes:
        properties = {p["name"]: p["value"].get("value") for p in node.get("properties", ())}
        if properties.get("focusable") and not node["ignored"]:
            role, name = node["role"]["value"], node.get("name", {}).get("value", "")
            named.setdefault(role, []).append(name)
    assert all(
        name.strip() for role, names in named.items() if role != "RootWebArea" for name in names
    )
    assert len(named["slider"]) == 2 and len(named["combobox"]) == 6
    images = [n for n in nodes if n["role"]["value"] in ("image", "img")]
    assert [n["name"]["value"] for n in images][:2] == ["first, bicubic", "first, DIP"]


def test_text_is_no_code(visit):
    tab = visit()
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("h1").inner_text() == f"{HOSTILE}, another"
    assert tab.locator("img").count() == 2


def test_without_scripts_the_tables_are_there(visit):
    tab = visit(java_script_enabled=False)
    assert "need JavaScript" in tab.locator("noscript").inner_text()
    assert tab.get_by_role("table", name="scores").is_visible()


def test_curves_of_one_image_differ_in_more_than_colour(visit, tmp_path):
    curves = [
        page.Curve(f"run {i}", "a", "iteration", {"PSNR on Y (dB)": HISTORY}) for i in range(9)
    ]
    path = tmp_path / "one.html"
    path.write_text(page.render([page.Run("one", "experiments.dip", {}, {}, curves=curves)]))
    uri = path.as_uri()
    looks = [x.get_attribute("class").split() for x in visit(uri).locator(".plot path").all()]
    assert len({*map(tuple, looks)}) == 9
    assert all(a[1] != b[1] for a, b in itertools.pairwise(looks))
