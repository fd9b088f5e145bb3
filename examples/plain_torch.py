"""Train torchvision's ResNet-18 on a shard set in a plain torch loop; an interrupted run resumes where it stopped.

python examples/plain_torch.py out --epochs 90 --batch-size 256 --state resnet18.pt
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from alexnet_dali.pipeline import EvalLoader, TrainLoader
from torchvision.models import resnet18

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("shards", type=Path)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--steps", type=int, default=0, help="stop after this many steps; 0: never")
parser.add_argument("--state", type=Path, default=Path("resnet18.pt"))
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
train = TrainLoader(options.shards, options.batch_size, device=device)
scale = torch.from_numpy(train.stats.covariance.diagonal() ** -0.5).float().to(device).view(3, 1, 1)
net = resnet18(num_classes=len(train.shard_set.classes)).to(device, memory_format=torch.channels_last)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1 * options.batch_size / 256, momentum=0.9, weight_decay=1e-4)
if options.state.exists():
    state = torch.load(options.state, map_location=device, weights_only=True)
    for part, saved in zip((train, net, optimizer), state, strict=True):
        part.load_state_dict(saved)

steps = 0
while train.state_dict()["epoch"] < options.epochs and not (options.steps and steps == options.steps):
    net.train()
    for images, labels in train:  # the rest of an epoch
        loss = F.cross_entropy(net(images * scale), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        place = train.state_dict()
        print(f"loss {loss.item():.4f}  next epoch {place['epoch']}, step {place['step']}")
        if steps == options.steps:
            break
    torch.save([part.state_dict() for part in (train, net, optimizer)], options.state)

if train.shard_set.has("val"):
    net.eval()
    with torch.no_grad():
        right = sum((net(x * scale).argmax(1) == y).sum().item() for x, y in EvalLoader(options.shards, device=device))
    print(f"val top-1 error {1 - right / train.shard_set.split('val').records:.1%}")
