"""From the flags of the scripts of style transfer to networks and weights."""

import dataclasses

from kerascv_d2l.errors import InputError
from kerascv_d2l.style_transfer.networks import named_network

NO_WEIGHTS = "none"


def network_of(args):
    """Build the network of `--network` and `--weights`.

    Args:
        args: namespace with the flags of `add_feature_network_arguments`.

    Returns:
        `Network`.

    Raises:
        InputError: as `named_network`, with the flags and how to go on without the file.
    """
    weights = None if args.weights == NO_WEIGHTS else args.weights
    try:
        return named_network(args.network, weights, pooling=args.pooling)
    except InputError as error:
        raise InputError(
            f"--network {args.network} --weights {args.weights}: {error}\n"
            "To go on without: --weights none (random weights know nothing of "
            "objects), or another network's file, as --network mobilenet --weights FILE"
        ) from error


def weights_of(args, defaults):
    """Put the flags of the losses that were given in the place of the defaults.

    Args:
        args: namespace with the flags of `add_loss_weight_arguments`.
        defaults: `LossWeights`.

    Returns:
        `LossWeights`.
    """
    given = {name: getattr(args, f"{name}_weight") for name in ("content", "style", "tv")}
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(defaults, **given)
