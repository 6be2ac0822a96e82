"""Flags, set-up, output folders and how errors end a script."""

import argparse
import os
import re
import subprocess
import sys

import pytest

from kerascv_d2l import cli
from kerascv_d2l.errors import InputError

pytestmark = pytest.mark.quick
MOST_FLAGS = 24


def make_parser():
    parser = cli.parser("Train a toy.")
    cli.add_data_arguments(parser, ["generated", "hotdog"], help_text="a folder")
    cli.add_model_arguments(parser, "tiny", own="tiny, ")
    cli.add_optimizer_arguments(parser, ["book", "adam"], "adam", help_text="book: the book's")
    cli.add_training_arguments(parser, "train_toy", epochs=4, defaults="by --data")
    return parser


def test_shared_flags_leave_room_for_a_script_to_add_its_own():
    flags = set(re.findall(r"^ +(--[a-z-]+)", make_parser().format_help(), re.M))
    assert len(flags) <= MOST_FLAGS - 2
    assert "--split-seed" in flags and "--resume" in flags


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "--epochs: expected a whole number of at least 1, got '0'"),
        (["--batch-size", "2.5"], "--batch-size: expected a whole number"),
        (["--learning-rate", "-1"], "--learning-rate: expected a number greater than 0"),
        (["--learning-rate", "nan"], "--learning-rate: expected a number greater than 0"),
        (["--seed", "x"], "--seed: expected a whole number from 0 to 2147483647, got 'x'"),
        (["--seed", "2147483648"], "--seed: expected a whole number from 0 to 2147483647, got"),
        (["--split-seed", "-1"], "--split-seed: expected a whole number from 0"),
        (["--devices", "cpu:0"], "--devices: expected auto, cpu, a number of GPUs"),
        (["--val-fraction", "1"], "--val-fraction: expected a number between 0 and 1"),
    ],
)
def test_bad_flags_are_named(argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args(argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_help_says_the_defaults():
    text = " ".join(make_parser().format_help().split())
    for words in (
        "training images (default: 4)",
        "on all devices together (default: by --data)",
        "(default: runs/train_toy, or where it is taken runs/train_toy-2, …)",
    ):
        assert words in text


def test_flags_can_be_left_out():
    parser = cli.parser("")
    cli.add_run_arguments(parser, "paint", without=("--devices",))
    assert "devices" not in parser.parse_args([])


def test_sizes_and_lists():
    assert cli.image_size("256") == (256, 256) and cli.image_size("320x480") == (320, 480)
    for bad in ("0", "3x", "1x2x3", "-4", "a"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected pixels"):
            cli.image_size(bad)
    assert cli.comma_list("cat, dog,") == ["cat", "dog"]


def test_a_folder_is_the_same_by_any_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "hotdog"):
        (tmp_path / name).mkdir()
    texts = ("photos", "./photos", str(tmp_path / "photos"), "hotdog/../photos")
    found = {make_parser().parse_args(["--data", text]).data for text in texts}
    assert found == {str((tmp_path / "photos").resolve())}
    # A name wins over a folder; ./NAME is the folder.
    assert make_parser().parse_args(["--data", "hotdog"]).data == "hotdog"
    assert make_parser().parse_args(["--data", "./hotdog"]).data.endswith("/hotdog")
    assert make_parser().parse_args(["--data", "nowhere"]).data == "nowhere"


def test_a_link_to_a_file_keeps_the_ending_that_tells_what_it_is(tmp_path, monkeypatch):
    """In Hugging Face's cache, model.safetensors is a link to a file named by its hash."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0f1e").touch()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "0f1e")
    monkeypatch.chdir(tmp_path)
    path = cli.existing_path()("blobs/../model.safetensors")
    assert path == str(tmp_path.resolve() / "model.safetensors")


def test_a_home_is_found_where_the_shell_leaves_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = cli.parser("A toy.")
    for flag in ("--out", "--data", "--other"):
        parser.add_argument(flag)
    args = parser.parse_args(["--out=~/a b", "--data", "~/c=d", "--other", "d~e=~f/~"])
    assert args.out == str(tmp_path / "a b") and args.data == str(tmp_path / "c=d")
    assert parser.parse_args(["--out=~/a=b"]).out == str(tmp_path / "a=b")
    assert args.other == "d~e=~f/~"


def test_a_script_is_named_as_this_one_was(tmp_path, monkeypatch):
    (tmp_path / "predict.py").touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py")])
    assert cli.script("predict.py") == str(tmp_path / "predict.py")
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert cli.script("predict.py") == "scripts/predict.py"


def test_recipe_fills_in_what_is_not_given():
    args = make_parser().parse_args(["--learning-rate", "0.2"])
    cli.fill_in(args, {"schedule": "cosine", "learning_rate": 0.1, "momentum": 0.9})
    assert (args.schedule, args.learning_rate, args.momentum) == ("cosine", 0.2, 0.9)


def test_errors_of_the_library_name_flags():
    make_parser().parse_args([])
    for before, after in (
        ("batch_size 5 is odd", "--batch-size 5 is odd"),
        ("data: no folder of data", "--data: no folder of data"),
        ("or without mixed_precision", "or without --mixed-precision"),  # not --no-mixed-precision
        ("use seed was 1 and is now 2; learning_rate was 3", None),
        ("labels.csv:3: epochs of data", "labels.csv:3: epochs of data"),
        ("out runs/x is taken: give another out", "--out runs/x is taken: give another out"),
        ("give val_fraction, or data_dir.", "give --val-fraction, or --data-dir."),
        *(
            (path, path)
            for path in (
                "/tmp/data_dir/0.jpg: empty",
                "my data_dir/0.jpg: empty",
                "data_dir.csv: empty",
                r"C:\data_dir: empty",
                "/tmp/data was moved",
                "data_dir-2: no folder",
            )
        ),
    ):
        wanted = after or "use --seed was 1 and is now 2; --learning-rate was 3"
        assert cli.with_flags(before) == wanted


def test_run_main(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_run", None)  # another test may have left one
    make_parser().parse_args([])

    def bad():
        raise InputError("batch_size 3: expected more")

    def interrupted():
        raise KeyboardInterrupt

    def defect():
        raise ZeroDivisionError

    cli.run_main(lambda: {"ok": 1})
    for main, code, text in (
        (bad, 2, "error: --batch-size 3: expected more"),
        (interrupted, 130, "interrupted; nothing to resume"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.run_main(main)
        assert end.value.code == code
        assert text in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        cli.run_main(defect)


@pytest.mark.parametrize(
    ("work", "code", "message"),
    [
        ("print(3)", 0, ""),  # it is only tried at the end
        ("print('3' * 10**5)", cli.EXIT_UNREAD, ""),
        ("print(3, flush=True)", cli.EXIT_UNREAD, ""),
        ("print(3); raise cli.InputError('bad')", cli.EXIT_BAD_INPUT, "error: bad"),
    ],
)
def test_output_that_nobody_reads(work, code, message):
    program = f"from kerascv_d2l import cli\ndef main(): {work}\ncli.run_main(main)"
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    run = subprocess.run(
        [sys.executable, "-c", program],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        check=False,
    )
    os.close(write)
    assert (run.returncode, run.stderr.strip()) == (code, message)


def test_the_broken_pipe_of_something_else_is_a_defect():
    def main():
        raise BrokenPipeError("of a download")

    with pytest.raises(BrokenPipeError, match="of a download"):
        cli.run_main(main)


def test_help_waits_for_no_tensorflow():
    code = "import sys, kerascv_d2l.cli; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_flags_are_not_abbreviated(capsys):
    parser = cli.parser("about")
    cli.add_data_arguments(parser, (), help_text="", without=("--data",))
    with pytest.raises(SystemExit):
        parser.parse_args(["--data", "x"])
    assert "unrecognized arguments: --data x" in capsys.readouterr().err
