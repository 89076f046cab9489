"""One thread for every test: two threads on two busy cores wait for each other more than they work."""

import torch

torch.set_num_threads(1)
