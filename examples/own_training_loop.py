"""Masks in your own training loop: prune at initialisation, then train with any optimiser.

python examples/own_training_loop.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pai_bench

SPARSITY, EPOCHS = 0.9, 5


def main() -> float:
    """Train a pruned network on the digits; return the fraction of test images that it classifies correctly."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    train = DataLoader(TensorDataset(images[:1500], labels[:1500]), batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    masks = pai_bench.prune(model, train, method="snip", sparsity=SPARSITY, seed=0)
    pai_bench.apply_masks(model, masks)

    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for x, y in train:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()  # pruned weights have gradient zero and stay zero

    kept = sum(int(mask.sum()) for mask in masks.values())
    nonzero = sum(int(model.get_parameter(name).count_nonzero()) for name in masks)
    with torch.no_grad():
        accuracy = (model(images[1500:]).argmax(1) == labels[1500:]).float().mean().item()
    print(f"{kept} weights kept, {nonzero} of them nonzero after training; test accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
