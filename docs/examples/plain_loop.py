# SPDX-License-Identifier: Apache-2.0
"""PIC with recent negatives in a plain PyTorch loop: torch, numpy and pic_plugin's core.

    python docs/examples/plain_loop.py
"""
import torch
from torch import nn

from pic_plugin.bank import SampledClassWeights
from pic_plugin.losses import cosine_softmax

NUM_IMAGES, NUM_NEGATIVES, BATCH_SIZE, FEAT_DIM = 500, 128, 32, 16


def augment(images):
    """A stand-in for crops and colours: another shift and some noise in each visit."""
    return images.roll(int(torch.randint(-2, 3, ())), dims=-1) + 0.1 * torch.randn_like(images)


def train(num_steps=300):
    """Train on images of noise; the network and the mean loss of the last 50 steps."""
    torch.manual_seed(0)
    images = torch.randn(NUM_IMAGES, 3, 8, 8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, FEAT_DIM))
    # K rows, whatever the number of images; the optimizer trains them with the network.
    weight = nn.Parameter(torch.empty(NUM_NEGATIVES, FEAT_DIM))
    optimizer = torch.optim.SGD([*network.parameters(), weight], lr=0.3, momentum=0.9,
                                weight_decay=1e-4)
    class_weights = SampledClassWeights(weight, optimizer, NUM_IMAGES, NUM_NEGATIVES)
    class_weights.start()
    losses = []
    for step in range(num_steps):
        # A window of 128 images that moves on by 16 every 4 steps: each image returns 8 times.
        ids = (16 * (step // 4) + torch.randperm(128)[:BATCH_SIZE]) % NUM_IMAGES
        optimizer.zero_grad()
        features = network(augment(images[ids]))
        targets = class_weights.sample(ids)  # before the loss: brings the rows in
        loss = cosine_softmax(features, class_weights.active, targets)[0].mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return network, class_weights, sum(losses[-50:]) / 50


if __name__ == '__main__':
    _, class_weights, loss = train()
    rows = class_weights.rows(range(NUM_IMAGES))
    print(f'loss {loss:.2f}, by chance {torch.tensor(NUM_NEGATIVES).log():.2f}; class weights of '
          f'all images: {tuple(rows.shape)}')
