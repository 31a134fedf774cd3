"""The same network trained by PyTorch, on padded or packed batches; run by a Python that has torch, and needs no more.

`python tests/bench/torch_peer.py JOURNEYS.npz SECONDS`: prints JSON, {"padded": examples/s, "packed": examples/s}. The
npz (tests.bench.training writes it) holds whole journeys as tensors, in memory: PyTorch is spared reading and parsing.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn

BATCH, WARM_UP, CLIP = 512, 10, 1.0


class Network(nn.Module):
    """trainer.model.JourneyNetwork: embeddings, numerics, LSTM, the customer's fields, a dense layer, hazard logits."""

    def __init__(self, about, packed):
        super().__init__()
        self.about, self.packed = about, packed
        self.embeddings = nn.ModuleDict({name: nn.Embedding(*size) for name, size in about["embeddings"].items()})
        width = sum(about["embeddings"][n][1] for n in about["sequence_categorical"]) + len(about["sequence_numeric"])
        self.lstm = nn.LSTM(width, about["units"], batch_first=True)
        self.no_events = nn.Parameter(torch.zeros(about["units"]))
        other = sum(about["embeddings"][n][1] for n in about["customer_categorical"]) + len(about["customer_numeric"])
        self.join = nn.Linear(about["units"] + other, about["dense"])
        self.dropout = nn.Dropout(about["dropout"])
        self.hazards = nn.Linear(about["dense"], len(about["horizons"]))

    def forward(self, batch):
        """batch: {name: [batch, max_events] or [batch]}. Returns logits [batch, intervals]."""
        events = [self.embeddings[name](batch[name]) for name in self.about["sequence_categorical"]]
        events = torch.cat(events + [batch[name][..., None] for name in self.about["sequence_numeric"]], -1)
        length = batch["length"]
        at_least_one = length.clamp(min=1)
        if self.packed:
            packed = nn.utils.rnn.pack_padded_sequence(events, at_least_one, batch_first=True, enforce_sorted=False)
            last = self.lstm(packed)[1][0][0]
        else:
            last = self.lstm(events)[0][torch.arange(len(length)), at_least_one - 1]
        journey = torch.where(length[:, None] > 0, last, self.no_events)
        customer = [self.embeddings[name](batch[name]) for name in self.about["customer_categorical"]]
        customer += [batch[name][:, None] for name in self.about["customer_numeric"]]
        joined = self.dropout(torch.cat([journey, *customer], -1))
        return self.hazards(self.dropout(torch.relu(self.join(joined))))


def hazard_loss(logits, batch, about):
    """trainer.hazard: targets and negative log likelihood; their mean over the batch."""
    ends = torch.tensor(about["horizons"], dtype=torch.float32)
    starts = torch.cat([torch.zeros(1), ends[:-1]])
    days = batch["days_to_conversion"][:, None]
    counts = (batch["observed_days"][:, None] >= ends + about["gap"]) & (days >= starts)
    converts = counts & (days < ends)
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, converts.float(), reduction="none")
    return (batch["weight"] * (counts * entropy).sum(1)).mean()


def rate(data, about, packed, seconds):
    """Examples a second after the warm-up, over whole shuffled epochs as they come."""
    torch.manual_seed(0)
    model = Network(about, packed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    count, step, start = len(data["length"]), 0, 0.0
    order = torch.randperm(count)
    while True:
        at = step % (count // BATCH) * BATCH
        if at == 0:
            order = torch.randperm(count)
        rows = order[at : at + BATCH]
        batch = {name: values[rows] for name, values in data.items()}
        optimizer.zero_grad(set_to_none=True)
        hazard_loss(model(batch), batch, about).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        step += 1
        if step == WARM_UP:
            start = time.perf_counter()
        elif step > WARM_UP and (passed := time.perf_counter() - start) >= seconds:
            return (step - WARM_UP) * BATCH / passed


def main():
    """Trains both ways."""
    with np.load(sys.argv[1]) as found:
        arrays = dict(found)
    about = json.loads(str(arrays.pop("about")))
    torch.set_num_threads(about["threads"])
    data = {name: torch.from_numpy(values) for name, values in arrays.items()}
    seconds = float(sys.argv[2])
    found = {name: rate(data, about, name == "packed", seconds) for name in ("padded", "packed")}
    weights = sum(weight.numel() for weight in Network(about, packed=False).parameters())
    found["torch_weights"] = weights - 4 * about["units"]  # PyTorch's LSTM has a second bias, which says nothing more
    print(json.dumps(found | {"torch": torch.__version__, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
