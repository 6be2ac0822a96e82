"""Style transfer: the image is the only variable, the network is frozen.

The book's names come from `book`, `images` and `losses`; `StyleTransfer` adds what the book
leaves out.
"""

from kerascv_d2l.style_transfer.book import (
    SynthesizedImage,
    extract_features,
    get_contents,
    get_inits,
    get_styles,
    train,
)
from kerascv_d2l.style_transfer.fast import FastStyleTrainer
from kerascv_d2l.style_transfer.images import postprocess, preprocess
from kerascv_d2l.style_transfer.losses import (
    BOOK_WEIGHTS,
    LossWeights,
    batch_gram,
    compute_loss,
    content_loss,
    gram,
    style_loss,
    tv_loss,
)
from kerascv_d2l.style_transfer.networks import (
    Network,
    from_model,
    keras_vgg19,
    mobilenet,
    named_network,
    torchvision_vgg19,
    vgg16,
)
from kerascv_d2l.style_transfer.objective import LOSS_NAMES, Objective, Style
from kerascv_d2l.style_transfer.transfer import StyleTransfer
