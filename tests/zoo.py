"""Every method on public networks: `python -m tests.zoo [--models WORD,…] [--methods NAME,…] [--side N] [--dtype D]`.

A table with a line per network and a column per method: "ok", "ties" (ok, with the warning that many kept weights
are tied with pruned ones), "refused" (a PaiBenchError) or "CRASH" (any other exception); messages follow the table. The
last column is the effective sparsity of the dense network, which must be 0. The exit status is 1 after a crash or
another effective sparsity. Networks come from torchvision and, where they are installed, from timm and transformers;
none is downloaded, all are drawn at random. The smallest variant of each family is taken, with small inputs. With
`--side`, Inception v3 below 299 has no auxiliary classifier, and the windows of MaxViT have a side of `side` / 32.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import pai_bench
from pai_bench.pruning.effective import effective_masks
from pai_bench.scoring.weights import prunable_weights

TORCHVISION = {
    **dict.fromkeys(["alexnet", "squeezenet1_1", "googlenet"], 64),
    **dict.fromkeys(["resnet18", "resnext50_32x4d", "vgg11", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5"], 32),
    **dict.fromkeys(["densenet121", "shufflenet_v2_x0_5", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny"], 32),
    **dict.fromkeys(["efficientnet_b0", "efficientnet_v2_s", "swin_t", "vit_b_32"], 32),
    **dict.fromkeys(["swin_v2_t", "wide_resnet50_2"], 64),
    "maxvit_t": 224,
    "inception_v3": 299,
}
"""Function of torchvision.models, and the side of its images."""

TIMM = {
    **dict.fromkeys(
        ["vit_tiny_patch16_224", "mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224", "deit_tiny_patch16_224"], 32
    ),
    **dict.fromkeys(
        ["regnety_002", "nf_resnet26", "convnext_atto", "mobilenetv3_small_050", "repvgg_a0", "edgenext_xx_small"], 32
    ),
    **dict.fromkeys(
        ["poolformer_s12", "coat_lite_tiny", "resnetv2_50x1_bit", "nf_resnet50", "ghostnet_100", "lcnet_050"], 64
    ),
    "levit_128s": 224,
}
"""Model of timm, and the side of its images."""

TRANSFORMERS = {"bert": 12, "distilbert": 12, "gpt2": 12, "vit": 32}
"""Architecture of Hugging Face's transformers, and the number of its tokens or the side of its images."""

CHEAP = {
    "dpai": {"steps": 2},
    "force": {"rounds": 1},
    "hts": {"probes": 1},
    "hutchinson": {"probes": 1},
    "hutchinson-pruning": {"probes": 1},
    "iterative-grasp": {"rounds": 1},
    "iterative-snip": {"rounds": 1},
    "ntk-sap": {"rounds": 1, "repeats": 1},
    "prospr": {"steps": 1, "lr": 0.01},
    "px": {"rounds": 1},
    "synflow": {"rounds": 1},
    "synflow-l2": {"rounds": 1},
}
"""Hyper-parameters that make each method short."""

SPARSITIES = {"phew": 0.999}
"""Sparsities other than 0.5, where the time of a method grows with the number of kept weights."""


def builders(words: Sequence[str] = (), side: int | None = None) -> dict[str, tuple[Callable[[], nn.Module], int]]:
    """The constructor of each network with one of these words in its name (all without words), and its image side.

    side: of the images of torchvision's networks; None for the sides of `TORCHVISION`.
    """

    def from_torchvision(name: str, side: int) -> Callable[[], nn.Module]:
        import torchvision.models  # takes seconds, and make quick imports this module without a call

        aside: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):
            aside["init_weights"] = False  # a slow SciPy initialiser
        if name == "inception_v3":
            aside["aux_logits"] = side >= TORCHVISION[name]
        if name.startswith("vit_"):
            aside["image_size"] = side
        if name == "maxvit_t" and side != TORCHVISION[name]:
            return lambda: _maxvit(side)
        return lambda: torchvision.models.get_model(name, weights=None, num_classes=10, **aside)

    sides = {name: side or own for name, own in TORCHVISION.items()}
    found = {f"torchvision/{name}": (from_torchvision(name, n), n) for name, n in sides.items()}
    try:
        import timm
    except ModuleNotFoundError:
        pass
    else:
        for name, side in TIMM.items():

            def from_timm(name: str = name, side: int = side) -> nn.Module:
                sized = (
                    {"img_size": side} if name.startswith(("vit", "deit", "mixer", "resmlp", "gmlp", "coat")) else {}
                )
                network: nn.Module = timm.create_model(name, pretrained=False, num_classes=10, **sized)
                return network

            found[f"timm/{name}"] = from_timm, side
    try:
        import transformers
    except ModuleNotFoundError:
        pass
    else:
        found |= {f"transformers/{name}": (_hugging_face(transformers, name), n) for name, n in TRANSFORMERS.items()}
    return {name: entry for name, entry in found.items() if not words or any(word in name for word in words)}


def _maxvit(side: int) -> nn.Module:
    """Return MaxViT-T for images of another side than 224; its builder in torchvision has no argument for windows."""
    import torchvision.models

    network: nn.Module = torchvision.models.MaxVit(
        input_size=(side, side),
        stem_channels=64,
        partition_size=side // 32,
        block_channels=[64, 128, 256, 512],
        block_layers=[2, 2, 5, 2],
        head_dim=32,
        stochastic_depth_prob=0.2,
        num_classes=10,
    )
    return network


def _hugging_face(library: Any, name: str) -> Callable[[], nn.Module]:
    """The constructor of a classifier with two blocks of width 32, from its configuration."""
    sizes = {
        "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "pad_token_id": 0},
        "vit": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    }[name]
    sizes |= {"image_size": 32, "patch_size": 8} if name == "vit" else {"vocab_size": 99}
    kind = "AutoModelForImageClassification" if name == "vit" else "AutoModelForSequenceClassification"

    def build() -> nn.Module:
        network: nn.Module = getattr(library, kind).from_config(
            library.AutoConfig.for_model(name, num_labels=10, **sizes)
        )
        return network

    return build


def inputs(model: nn.Module, side: int, generator: torch.Generator) -> torch.Tensor:
    """Two random images of this side, or for a model of tokens, two sequences of this length."""
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
    if vocabulary is None:
        return torch.randn(2, 3, side, side, generator=generator)
    return torch.randint(1, vocabulary, (2, side), generator=generator)


def effective(model: nn.Module, side: int) -> tuple[str, str]:
    """The effective sparsity of the dense network, and the message of a refusal."""
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable_weights(model).items()}
    sample = inputs(model, side, torch.Generator().manual_seed(0))
    if not sample.is_floating_point():
        return "tokens", ""
    try:
        found = effective_masks(model, masks, tuple(sample.shape[1:]))
    except pai_bench.PaiBenchError as error:
        return "refused", str(error).replace("\n", "; ")
    except Exception as error:
        return "CRASH", f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    kept = sum(int(mask.sum()) for mask in found.values())
    return f"{1 - kept / sum(mask.numel() for mask in masks.values()):.4g}", ""


def verdict(model: nn.Module, side: int, method: str, dtype: str) -> tuple[str, str]:
    """The entry of the table, and the message behind it (empty for "ok")."""
    generator = torch.Generator().manual_seed(0)
    batches = [(inputs(model, side, generator), torch.tensor([n, n + 1])) for n in range(2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            pai_bench.prune(
                model, batches, method, sparsity=SPARSITIES.get(method, 0.5), dtype=dtype, **CHEAP.get(method, {})
            )
        except pai_bench.PaiBenchError as error:
            return "refused", str(error).replace("\n", "; ")
        except Exception as error:
            return "CRASH", f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    ties = [str(warning.message) for warning in caught if warning.category is pai_bench.TiedScoresWarning]
    return ("ties", ties[0].replace("\n", "; ")) if ties else ("ok", "")


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(description="every method on public networks")
    parser.add_argument("--models", default="", help="parts of names, with commas")
    parser.add_argument("--methods", default=",".join(pai_bench.list_methods()), help="names, with commas")
    parser.add_argument("--side", type=int, help="side of the images of torchvision's networks")
    parser.add_argument("--dtype", default="float64", help="float64 or float32")
    options = parser.parse_args(arguments)
    methods, words = options.methods.split(","), [word for word in options.models.split(",") if word]
    print(f"{'':36}" + "".join(f"{method[:9]:10}" for method in methods) + f"{'effective':10}")
    crashed, messages = False, []
    for name, (build, side) in builders(words, options.side).items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build()
        began = time.monotonic()
        print(f"{name:36}", end="", flush=True)
        for method in methods:
            entry, message = verdict(model, side, method, options.dtype)
            crashed |= entry == "CRASH"
            messages += [f"{name} {method}: {message}"] * bool(message)
            print(f"{entry:10}", end="", flush=True)
        entry, message = effective(model, side)
        crashed |= entry not in ("0", "refused", "tokens")
        messages += [f"{name} effective sparsity: {message}"] * bool(message)
        print(f"{entry:10}{time.monotonic() - began:.0f} s", flush=True)
    print("\n".join(["", *messages]))
    return int(crashed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
