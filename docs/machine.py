"""How fast this machine is at this moment, so that times can be stated and limited for a slow one."""

import time

import torch

SLOW = 50   # GFLOP/s of one thread: the laptop that stated times and limits are for


def rate(seconds: float = 0.3,   # how long to measure
         size: int = 512,        # of the matrices
         ) -> float:             # GFLOP/s of one thread
    "The speed of a product of matrices, the typical one: what others do beside us counts."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matrix = torch.ones(size, size)
    durations, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(durations) < 3:
        start = time.perf_counter()
        matrix @ matrix
        durations.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return 2 * size**3 / sorted(durations)[len(durations) // 2] / 1e9


def slowness() -> float:
    "How many times as long something takes here and now as on the slow laptop: below 1 on most machines."
    return SLOW / rate()
