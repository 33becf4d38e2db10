"""CPU time and memory of another process."""


def cpu_seconds(pid: int) -> float:
    """CPU seconds of all its threads so far, in user and kernel mode."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def resident_bytes(pid: int) -> int:
    """Resident set size."""
    import psutil

    return int(psutil.Process(pid).memory_info().rss)
