"""Small networks of torchvision and timm: every method prunes them, or states why not; tests/zoo.py has more."""

from __future__ import annotations

import pytest
import torch

from tests.zoo import builders, verdict

NETWORKS = [
    *("torchvision/googlenet", "torchvision/mobilenet_v3_small", "torchvision/mnasnet0_5"),
    *("torchvision/shufflenet_v2_x0_5", "torchvision/squeezenet1_1", "torchvision/regnet_x_400mf"),
    *("timm/convnext_atto", "timm/edgenext_xx_small", "timm/ghostnet_100", "timm/lcnet_050"),
    *("timm/mobilenetv3_small_050", "timm/vit_tiny_patch16_224"),
]
METHODS = ("magnitude", "snip", "grasp", "synflow", "prospr")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", NETWORKS)
def test_no_method_crashes_on_public_networks(name: str) -> None:
    build, side = builders([name])[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    found = {method: verdict(model, side, method, "float32") for method in METHODS}
    assert not {method: told for method, (entry, told) in found.items() if entry == "CRASH"}
    assert found["magnitude"][0] == "ok" and found["snip"][0] in ("ok", "ties")
