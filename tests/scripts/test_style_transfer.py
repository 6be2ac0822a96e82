"""`scripts/style_transfer.py` on small images with small networks of random weights."""

import csv
import importlib.util
import json
import re
from pathlib import Path

import children
import numpy as np
import pytest
from PIL import Image
from training_data import add_tiny

from kerascv_d2l import InputError
from kerascv_d2l.style_transfer import LossWeights

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/style_transfer.py"
LOSSES = ("content_loss", "style_loss", "tv_loss", "loss")


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        yield


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("style_transfer_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    y, x = np.mgrid[:50, :80]
    content = np.stack([128 + 100 * np.sin(y / 8), 128 + 90 * np.cos(x / 9), 3 * x], -1)
    Image.fromarray(content.clip(0, 255).astype(np.uint8)).save(folder / "content.png")
    stripes = np.where((x + y) % 6 < 3, 230, 40)[:45, :60]
    style = np.stack([stripes, stripes // 2, 0 * stripes + 30], -1).astype(np.uint8)
    Image.fromarray(style).save(folder / "style.png")
    half = np.zeros((45, 60), np.uint8)
    half[:, 30:] = 255
    Image.fromarray(half).save(folder / "mask.png")
    return folder


def flags(files, out, *more, content="content.png", styles=("style.png",)):
    tiny = ["--network", "tiny", "--weights", "none", "--image-size", "40"]
    names = [str(files / name) for name in (content, *styles)]
    # Adam: L-BFGS may take an evaluation more than it was given.
    return [*names, "--out", str(out), *tiny, "--steps", "6", "--optimizer", "adam", *more]


def rows(out):
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_full_disk_at_the_end_is_said_and_gone_on_from(script, files, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(
            InputError, match=r"painted.*cannot be written \(full\); the state after "
        ):
            script.main(flags(files, out))
    assert not (out / "result.png").exists()
    script.main(flags(files, out, "--resume"))
    assert (out / "result.png").exists() and len(rows(out)) == 6


@pytest.mark.quick
def test_writes_result_comparison_curves_and_images_so_far(script, files, tmp_path, capsys):
    out = tmp_path / "run"
    more = ("--save-every", "2", "--style-weight", "3")
    metrics = script.main(flags(files, out, *more))
    assert Image.open(out / "result.png").size == (80, 50)
    assert Image.open(out / "painted_32x40.png").size == (40, 32)  # 25 would be too few
    assert Image.open(out / "comparison.png").width > 1500
    names = sorted(path.name for path in (out / "steps").iterdir())
    assert names == ["00000.png", "00002.png", "00004.png", "00006.png"]
    history = rows(out)
    assert list(history[0]) == ["step", *LOSSES] and len(history) == 6
    assert float(history[0]["style_loss"]) == pytest.approx(3, rel=1e-3)  # 1 of its own, times 3
    assert metrics["first"]["loss"] == pytest.approx(float(history[0]["loss"]))
    assert metrics["loss"] < float(history[0]["loss"])
    record = json.loads((out / "metrics.json").read_text())
    assert record["steps"] == 6 and record["settings"]["image_shape"] == [32, 40]
    assert {name: record[name] for name in LOSSES} == {name: metrics[name] for name in LOSSES}
    printed = capsys.readouterr().out
    assert "6/6" in printed and "content_loss: " in printed
    with pytest.raises(InputError, match="already holds a run"):
        script.main(flags(files, out))
    # The last image so far is the one that was painted.
    np.testing.assert_array_equal(
        Image.open(out / "steps/00006.png"), Image.open(out / "painted_32x40.png")
    )


@pytest.mark.quick
def test_several_styles_masks_levels_and_kept_colours(script, files, tmp_path):
    more = ["--style-weights", "1", "3", "--style-mask", "none", str(files / "mask.png")]
    more += ["--levels", "2", "--preserve-color", "--init", "noise", "--style-scale", "0.5"]
    out = tmp_path / "run"
    both = ("style.png", "style.png")
    metrics = script.main(
        flags(files, out, *more, "--image-size", "64x200", "--tile", "32", styles=both)
    )
    assert np.isfinite([metrics[name] for name in LOSSES]).all()
    assert Image.open(out / "painted_64x102.png").size == (102, 64)
    result = np.asarray(Image.open(out / "result.png"), float)
    content = np.asarray(Image.open(files / "content.png"), float)
    luminance = np.array([0.299, 0.587, 0.114])
    color, wanted = (image - (image @ luminance)[..., None] for image in (result, content))
    cosine = (color * wanted).sum() / (np.linalg.norm(color) * np.linalg.norm(wanted))
    assert cosine > 0.9
    half = np.asarray(Image.open(files / "mask.png"))
    Image.fromarray(np.dstack([half * 0 + 255, half])).save(tmp_path / "clear.png")
    args = script.parse([*flags(files, out), "--style-mask", str(tmp_path / "clear.png")])
    np.testing.assert_array_equal(script.read_styles(args)[0][2], half / 255)
    with pytest.raises(InputError, match=r"content\.png: 80 x 50 pixels.*60 x 45"):
        script.main(flags(files, tmp_path / "b", "--style-mask", str(files / "content.png")))
    Image.new("L", (60, 45)).save(tmp_path / "black.png")
    with pytest.raises(InputError, match=r"black\.png: black all over"):
        mask = str(tmp_path / "black.png")
        script.main(flags(files, tmp_path / "c", "--style-mask", mask))


@pytest.mark.quick
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_book_recipe_and_no_style(script, files, tmp_path, optimizer):
    """Without style and total variation the content comes back, in its own size."""
    more = ("--style-weight", "0", "--tv-weight", "0", "--image-size", "full")
    args = flags(files, tmp_path / "a", *more, "--optimizer", optimizer, "--recipe", "book")
    metrics = script.main(args)
    assert metrics["loss"] == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(
        Image.open(tmp_path / "a/result.png"), Image.open(files / "content.png")
    )
    assert not list((tmp_path / "a").glob("painted*"))
    weights = script.loss_weights(script.parse(args))
    assert (weights.content, weights.style, weights.tv, weights.normalize) == (1, 0, 0, False)
    book = script.parse([*args[:2], "--recipe", "book"])
    assert (book.optimizer, book.pooling) == ("adam", "max")
    assert script.loss_weights(book).style == 1e4
    usual = script.parse(args[:2])
    assert (usual.optimizer, usual.pooling) == ("lbfgs", "average")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Files of every kind: name -> (height, width) of what is painted."""
    folder = tmp_path_factory.mktemp("kinds")
    pixels = np.random.RandomState(0).randint(0, 256, (20, 30, 4)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "rgba.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    Image.fromarray(pixels[..., :3]).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    Image.fromarray(pixels[..., :3]).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(pixels[:1, :1, :3]).save(folder / "dot.png")
    Image.new("RGB", (900, 2), (20, 90, 200)).save(folder / "long.png")
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "torn.png").write_bytes((folder / "rgba.png").read_bytes()[:200])
    return folder


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("rgba.png", (30, 20)),
        ("grey.png", (30, 20)),
        ("cmyk.jpg", (30, 20)),
        ("turned.jpg", (20, 30)),
        ("dot.png", (1, 1)),
        ("long.png", (900, 2)),
    ],
)
def test_images_of_every_kind_as_content_and_style(script, kinds, tmp_path, name, size):
    steps = ("--steps", "2")
    script.main(flags(kinds, tmp_path / "a", *steps, content=name, styles=(name,)))
    with Image.open(tmp_path / "a/result.png") as result:
        assert result.size == size and result.mode == "RGB"


@pytest.mark.quick
@pytest.mark.parametrize("name", ["text.jpg", "empty.png", "torn.png", "absent.png"])
def test_unreadable_images_are_named(script, kinds, tmp_path, name):
    for given in (
        {"content": name, "styles": ("rgba.png",)},
        {"content": "rgba.png", "styles": (name,)},
    ):
        with pytest.raises(InputError, match=rf"{name}: "):
            script.main(flags(kinds, tmp_path / "a", **given))
    assert not (tmp_path / "a").exists()


@pytest.mark.quick
def test_shapes_to_paint_at(script):
    shape = script.working_shape
    assert shape(450, (1365, 2048, 3)) == (300, 450)
    assert shape(450, (200, 300, 3)) == (200, 300)
    assert shape("full", (200, 300, 3)) == (200, 300)
    # HEIGHTxWIDTH is a frame to fit into: the proportions are kept.
    assert shape((90, 240), (200, 300, 3)) == (90, 135)
    assert shape((300, 450), (500, 500, 3)) == (300, 300)
    assert shape((400, 400), (100, 200, 3)) == (200, 400)
    assert shape(450, (4, 9000, 3)) == (32, 450)
    assert shape(450, (1, 1, 3)) == (32, 32)


@pytest.mark.quick
def test_wrong_flags_are_named(script, files, tmp_path, capsys):
    for more, message in (
        (("--style-weights", "1", "2"), "2 values for 1 style"),
        (("--style-mask", "none", "none"), "2 values for 1 style"),
        (("--steps", "3", "--levels", "4"), "--levels 4 needs"),
        (("--save-every", "soon"), "expected a whole number"),
        (("--image-size", "0"), "expected a whole number"),
    ):
        with pytest.raises(SystemExit):
            script.parse(flags(files, tmp_path, *more))
        assert message in capsys.readouterr().err
    args = script.parse(flags(files, tmp_path, "--save-every", "30s"))
    assert args.save_every == (30, "seconds")


@pytest.mark.quick
def test_other_pixels_in_the_same_file_are_not_gone_on_with(script, files, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("content.png", "style.png"):
        Image.open(files / name).save(folder / name)
    args = flags(folder, tmp_path / "run")
    script.main(args)
    Image.open(files / "content.png").rotate(180).save(folder / "content.png")
    with pytest.raises(InputError, match="pixels was"):
        script.main([*args, "--resume"])


@pytest.mark.quick
def test_flags_and_the_weights_that_help_names(script, capsys):
    with pytest.raises(SystemExit):
        script.parse(["--help"])
    text = capsys.readouterr().out
    assert len(re.findall(r"(?m)^  (--[\w-]+)", text)) <= 24
    text = " ".join(text.split())
    defaults = LossWeights()
    for name, what in (("content", "content loss"), ("style", "style loss"), ("tv", "smoother")):
        assert f"{what} (default: {getattr(defaults, name):g}" in text


@pytest.mark.quick
def test_missing_weights_say_what_to_do(script, files, tmp_path, monkeypatch):
    import huggingface_hub
    import keras

    def offline(*args, local_files_only=False, **kwargs):
        error = huggingface_hub.errors.LocalEntryNotFoundError
        raise error("not cached") if local_files_only else OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    names = [str(files / name) for name in ("content.png", "style.png")]
    with pytest.raises(
        InputError, match=r"(?s)model\.safetensors of timm/vgg19.*hf download.*weights none"
    ):
        script.main([*names, "--out", str(tmp_path / "a")])

    def failed(origin):
        raise Exception(f"URL fetch failure on {origin}: None -- no network")

    address = "https://storage.googleapis.com/x/vgg19_notop.h5"
    monkeypatch.setattr(keras.applications, "VGG19", lambda weights, **kwargs: failed(address))
    with pytest.raises(
        InputError,
        match=r"(?s)vgg19_notop\.h5 is not in .*curl -LO https://\S*_notop\.h5\n.*weights none",
    ):
        script.main([*names, "--out", str(tmp_path / "b"), "--network", "keras_vgg19"])
    with pytest.raises(InputError, match="no such file"):
        absent = ["--network", "mobilenet", "--weights", "absent.h5"]
        script.main([*names, "--out", str(tmp_path / "c"), *absent])


def test_killed_and_resumed_it_ends_as_an_undisturbed_run(files, tmp_path):
    """kill -9 in the second level; the second start goes on from the last checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = ("--steps", "12", "--init", "noise", "--levels", "2", "--save-every", "1")
    child = Path(__file__).with_name("style_child.py")
    arguments = [whole, killed, 9, *flags(files, whole, *more)]
    done = children.run(child, *arguments, TF_NUM_INTRAOP_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming after step 8" in done.stdout
    own = sorted(path.stem for path in (killed / "steps").iterdir())
    assert own == ["00009", "00010", "00011", "00012"]
    np.testing.assert_array_equal(
        Image.open(whole / "result.png"), Image.open(killed / "result.png")
    )
    assert rows(whole) == rows(killed)
