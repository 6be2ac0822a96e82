"""Convert weights of torchvision (.pth) to a safetensors file that this package reads.

    python scripts/convert_weights.py maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth

knows Faster and Mask R-CNN and RetinaNet with ResNet-50 and FPN, SSD300 with VGG-16, FCN with
ResNet-50, ResNet-18 to 152 and VGG-19, whatever the number of classes, and names every tensor that
does not fit. Seconds. Needs PyTorch, which nothing else here does. The file is opened with
`weights_only=True`, so that no code in it is run.
"""

from pathlib import Path

from kerascv_d2l import InputError, cli
from kerascv_d2l.files import whole
from kerascv_d2l.models import torchvision_layouts as layouts
from kerascv_d2l.models.rcnn_weights import with_new_names


def parse(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("weights", metavar="FILE.pth", help="weights of torchvision")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="file to write (default: FILE.safetensors beside it)",
    )
    return parser.parse_args(argv)


def read(path):
    """Read the tensors of a `.pth` file: dict name -> array."""
    try:
        import torch
    except ImportError as error:
        raise InputError("PyTorch is not installed: pip install torch") from error
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, torch: many kinds
        raise InputError(f"{path}: no weights that PyTorch opens safely ({error})") from error
    if not isinstance(found, dict) or not all(map(torch.is_tensor, found.values())):
        raise InputError(f"{path}: expected a state dict, names and tensors only.")
    return {
        name: tensor.contiguous().numpy()
        for name, tensor in found.items()
        if not name.endswith("num_batches_tracked")  # which only PyTorch's training uses
    }


def main(argv=None):
    """Convert a file.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        `Path` of what was written.
    """
    args = parse(argv)
    source = Path(args.weights)
    out = Path(args.out or source.with_suffix(".safetensors"))
    if out.exists():
        raise InputError(f"out: {out} is there already; move it, or name another file.")
    tensors = with_new_names(read(source))
    network = layouts.check_state_dict(tensors, source)
    import safetensors.numpy

    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out) as path:
        safetensors.numpy.save_file(tensors, path, layouts.metadata(network, tensors))
    print(f"{out}: {network}, {len(tensors)} tensors")
    return out


if __name__ == "__main__":
    cli.run_main(main)
