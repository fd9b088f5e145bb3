"""Joining the processes of a run: which backend their GPUs get, and which watchdog speaks first."""

import json
import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from alexnet_dali.model.training import distributed
from alexnet_dali.model.training.distributed import own_device

CASES = [  # the processes' cards, how many each sees, the backend
    (("GPU-a", "GPU-b"), 1, "cpu:gloo,cuda:nccl"),  # its own, as Slurm arranges it
    (("GPU-a", "GPU-b"), 2, "cpu:gloo,cuda:nccl"),
    (("GPU-a", "GPU-a"), 1, "cpu:gloo,cuda:gloo"),
    (("GPU-a", "GPU-a"), 2, "cpu:gloo,cuda:gloo"),  # both processes were told to use one card of two
]


def joined(rank, ports, folder):
    """One process of two joins for each case, with a stand-in for its GPU's UUID, and with gloo in NCCL's place."""
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    found, init = [], dist.init_process_group

    def init_by_gloo(backend, **more):
        found.append([backend])
        init("cpu:gloo,cuda:gloo", **more)

    dist.init_process_group, torch.cuda.set_device = init_by_gloo, lambda device: None
    for port, (cards, visible, _) in zip(ports, CASES, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        torch.cuda.device_count = lambda visible=visible: visible
        torch.cuda.get_device_properties = lambda device, cards=cards: SimpleNamespace(uuid=cards[rank])
        team = distributed.join(torch.device("cuda", 0), timeout=30)
        backend = dist.group.WORLD._get_backend(torch.device("cuda"))
        found[-1] += [team.sum([rank + 1.0]), backend.options._timeout.total_seconds()]
        team.leave()
    Path(folder, str(rank)).write_text(json.dumps(found))


def test_processes_with_a_card_each_have_nccl_whatever_each_sees(tmp_path):
    limit = timedelta(seconds=60)
    stores = [dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=limit) for _ in CASES]
    multiprocessing.spawn(joined, ([store.port for store in stores], str(tmp_path)), nprocs=2)
    for rank in range(2):
        for (*_, backend), found in zip(CASES, json.loads((tmp_path / str(rank)).read_text()), strict=True):
            # NCCL's watchdog, which ends the process without a word to the user, waits longer than gloo's 30 s.
            assert found == [backend, [3.0], 90.0 if "nccl" in backend else 30.0]


def test_the_only_process_of_a_machine_keeps_the_card_that_was_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    cpu = torch.device("cpu")
    assert own_device(cpu) == own_device(cpu, 1, 2) == cpu
    assert own_device(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert own_device(torch.device("cuda", 1)) == own_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert [own_device(torch.device("cuda", 0), rank, 4).index for rank in range(4)] == [0, 1, 0, 1]
