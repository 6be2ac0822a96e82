"""What this package writes into the folder of a data set is no part of the data."""

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import InputError, load
from kerascv_d2l.data.images import find_images
from kerascv_d2l.files import NewFiles, write_json
from kerascv_d2l.outputs import DRAWN
from kerascv_d2l.training.run import Run
from kerascv_d2l.training.run_folder import others_in

pytestmark = pytest.mark.quick
NUMBER = 4


def save(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(str(path).encode())).integers(0, 2, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def write_outputs(folder):
    """A run, a folder as of the scripts that look at models, an empty one, and drawings."""
    written = [NewFiles(folder / "evaluate")]  # goes away at the end, if it is still empty
    run = Run(folder / "train_x", {"epochs": 1}, task="train_x")
    save(run.path("samples.png"))
    save(run.path("samples") / "1.png")
    run.close()
    output = NewFiles(folder / "predict")
    (path,) = output.paths("a_mask", ".png")
    save(path)
    written.append(output)
    save(folder / "inspect_data" / f"a{DRAWN}")
    return written


def write_classes(root):
    for name in ("ant", "bee"):
        for k in range(NUMBER):
            save(root / name / f"{k}.png")


def write_masks(root):
    for k in range(NUMBER):
        save(root / f"{k}.jpg")
        save(root / f"{k}_mask.png", "L")


def write_yolo(root):
    (root / "labels").mkdir()
    for k in range(NUMBER):
        save(root / "images" / f"{k}.png")
        (root / "labels" / f"{k}.txt").write_text("0 0.5 0.5 0.2 0.2\n")


def write_photographs(root):
    for k in range(NUMBER):
        save(root / f"{k}.jpg")


def names(data):
    return [name for split in data.splits.values() for name in split.names]


@pytest.mark.parametrize(
    ("write", "task"),
    [
        (write_classes, "classification"),
        (write_masks, "segmentation"),
        (write_yolo, "detection"),
        (write_photographs, "unlabelled"),
    ],
)
def test_outputs_are_no_data(tmp_path, write, task):
    write(tmp_path)
    before = load(tmp_path, task)
    kept = write_outputs(tmp_path / "runs")
    save(tmp_path / f"data-{task}{DRAWN}")
    after = load(tmp_path, task)
    assert names(after) == names(before)
    assert after.class_names == before.class_names
    (note,) = set(after.notes) - set(before.notes)
    assert "(outputs of this package) are not read; what is data" in note and "runs" in note
    del kept
    assert not (tmp_path / "runs" / "evaluate").exists()


def test_images_to_predict_are_no_drawings(tmp_path):
    write_photographs(tmp_path)
    before = find_images([tmp_path])
    kept = write_outputs(tmp_path / "runs")
    assert len(before) == NUMBER and find_images([tmp_path]) == before
    # Who names a folder of outputs means it.
    assert len(find_images([tmp_path / "runs" / "predict"])) == 1
    assert len(kept) == 2


def test_other_files_of_these_names_are_data(tmp_path):
    write_classes(tmp_path)
    write_json(tmp_path / "ant" / "settings.json", {"task": "label"})
    with pytest.raises(InputError, match=r"settings\.json"):  # as any text among the images
        load(tmp_path, "classification")
    assert others_in(tmp_path / "ant")
    assert len(names(load(tmp_path, "classification", skip_bad=True))) == 2 * NUMBER


def test_a_folder_of_outputs_only_is_called_so(tmp_path):
    kept = write_outputs(tmp_path / "data" / "runs")
    with pytest.raises(InputError, match=r"data: empty folder; .*runs .*are not read"):
        load(tmp_path / "data", "detection")
    assert len(kept) == 2


def test_nothing_is_left_of_a_folder_without_outputs(tmp_path):
    write_classes(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    output = NewFiles(tmp_path / "runs" / "deep" / "evaluate")
    assert output.folder.is_dir()
    del output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_was_there_stays_data(tmp_path):
    write_classes(tmp_path)
    NewFiles(tmp_path / "ant")
    assert len(names(load(tmp_path, "classification"))) == 2 * NUMBER
