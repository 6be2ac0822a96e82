"""Records what PyTorch makes of the numbers of generation_inputs.py.

python tests/recording/record_generation.py   # needs PyTorch; writes generation.json
"""

import json
from pathlib import Path

import generation_inputs as given
import torch
from torch import nn
from torch.nn import functional


def tensor(array, grad=False):
    return torch.tensor(array, dtype=torch.float64, requires_grad=grad)


def vae():
    """Loss and gradients of one batch, as in PyTorch's example of a VAE, with a fixed noise."""
    x = given.vae()
    mean, log_variance = tensor(x["mean"], True), tensor(x["log_variance"], True)
    logits = tensor(x["logits"], True)
    targets = tensor(x["targets"])
    bce = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    total = (bce + kl) / len(targets)
    total.backward()
    gaussian = functional.gaussian_nll_loss(
        logits, targets, torch.full_like(logits, given.STD**2), full=True, reduction="sum"
    )
    return {
        "bce": float(bce),
        "kl": float(kl),
        "loss": float(total),
        "gaussian": float(gaussian),
        "mean_gradient": mean.grad.tolist(),
        "log_variance_gradient": log_variance.grad.tolist(),
    }


def spectral_norm(name):
    """Outputs, u and kernels of some training steps, then one in evaluation."""
    x = given.spectral(name)
    kernel = tensor(x["kernel"])
    if name == "conv":
        layer = nn.Conv2d(*reversed(kernel.shape[2:]), kernel.shape[0], stride=2, padding=1)
        weight, inputs = kernel.permute(3, 2, 0, 1), tensor(x["inputs"]).permute(0, 3, 1, 2)
    else:
        layer, weight, inputs = nn.Linear(*kernel.shape), kernel.T, tensor(x["inputs"])
    layer = layer.double()
    layer.weight.data, layer.bias.data = weight.contiguous(), tensor(x["bias"])
    layer = nn.utils.parametrizations.spectral_norm(layer)
    norm = layer.parametrizations.weight[0]
    # Its own start is random: ours is told.
    v = tensor(x["v"]).reshape(kernel.shape[:-1])
    v = v.permute(2, 0, 1).reshape(-1) if name == "conv" else v.reshape(-1)
    norm._u.data, norm._v.data = tensor(x["u"]), v
    optimizer = torch.optim.SGD(layer.parameters(), given.RATE)
    steps = []
    for _ in range(given.STEPS):
        optimizer.zero_grad()
        outputs = layer(inputs)
        (outputs**2).mean().backward()
        optimizer.step()
        steps.append({"mean_square": float((outputs**2).mean()), "u": norm._u.tolist()})
    original = layer.parametrizations.weight.original.detach()
    layer.eval()
    with torch.no_grad():
        outputs = layer(inputs)
    original = original.permute(2, 3, 1, 0) if name == "conv" else original.T
    outputs = outputs.permute(0, 2, 3, 1) if name == "conv" else outputs
    return {"steps": steps, "kernel": original.tolist(), "evaluation": outputs.tolist()}


def main():
    record = {"torch": torch.__version__, "vae": vae()}
    record |= {name: spectral_norm(name) for name in ("conv", "dense")}
    short = json.loads(json.dumps(record), parse_float=lambda text: float(f"{float(text):.9g}"))
    path = Path(__file__).with_name("generation.json")
    path.write_text(json.dumps(short, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
