"""Puts the caches of a gateway process together. Nothing is loaded or opened before a release needs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cohort.base.clock import Clock
from cohort.base.ids import Entropy
from cohort.gateway.cache.caches import Caches
from cohort.gateway.cache.disk import Disk
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.cache.meaning import Meaning
from cohort.gateway.cache.memory import Memory
from cohort.gateway.cache.outside import Outside
from cohort.gateway.cache.packing import Packing
from cohort.gateway.cache.shared import Shared, redis_address
from cohort.gateway.deadlines import Deadlines
from cohort.gateway.keys import Keys
from cohort.gateway.log import Log
from cohort.gateway.metrics import Metrics
from cohort.gateway.settings import Settings, read_secret
from cohort.gateway.table import Table
from cohort.gateway.upstreams import Upstreams

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.semantic import Semantic, Taught

SWITCH = "COHORT_CACHE"
LABELS_FACTOR = 2
"""Entries that are remembered by their labels, as many times as there may be entries: those that left for being wrong are among them."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def assemble(
    settings: Settings,
    erased: Erased,
    table: Table,
    upstreams: Upstreams,
    keys: Keys,
    deadlines: Deadlines,
    metrics: Metrics,
    entropy: Entropy,
    environment: Mapping[str, str],
    clock: Clock,
    log: Log,
) -> Caches:
    """The caches of one process.

    Raises:
        CohortError CONFIG_INVALID: the address of Redis, or the file with its password.
    """
    limits = settings.limits
    off = environment.get(SWITCH) == "0"

    def killed(flag: str) -> bool:
        return off or table.snapshot is None or flag in table.snapshot.killed

    def chance() -> float:
        return int.from_bytes(entropy(4), "big") / (1 << 32)

    def semantic() -> Semantic:
        from cohort.gateway.cache.semantic.embedder import Embedder
        from cohort.gateway.cache.semantic.semantic import Semantic
        from cohort.gateway.cache.semantic.store import Store

        waits = (limits.cache_embeddings_wait_s, limits.cache_embeddings_rest_s)
        embedder = Embedder(upstreams, keys, deadlines, clock, *waits, settings.gateway_id)
        store = Store(limits.cache_semantic_bytes_max, limits.cache_semantic_entries_max, clock)
        return Semantic(store, embedder, _taught(settings, clock, log), chance, log)

    memory = Memory(limits.cache_bytes_max, limits.cache_entries_max, clock)
    outside, meaning = _outside(settings, clock, erased, log), Meaning(semantic, _labels(settings).exists())
    return Caches(memory, outside, meaning, erased, clock, metrics, limits.cache_answer_bytes_max, killed)


def _labels(settings: Settings) -> Path:
    """Where what was learned of answers is kept."""
    return settings.data_dir / "labels"


def _taught(settings: Settings, clock: Clock, log: Log) -> Taught:
    """What this process's predecessor learned. What cannot be read is learned again."""
    from cohort.gateway.cache.semantic.baselines import Baselines
    from cohort.gateway.cache.semantic.labels import LabelBook
    from cohort.gateway.cache.semantic.semantic import POOLS_MAX, Taught

    def failed(error: OSError) -> None:
        log.seldom("cache_labels_failed", reason=os.strerror(error.errno or 0))

    folder, entries_max = _labels(settings), LABELS_FACTOR * settings.limits.cache_semantic_entries_max
    own, pooled = LabelBook(folder / "entries", entries_max, clock, failed), LabelBook(folder / "pools", POOLS_MAX, clock, failed)
    baselines = Baselines(folder / "baselines")
    for part in (own, pooled, baselines):
        try:
            part.load()
        except OSError as error:
            failed(error)
    return Taught(own, pooled, baselines)


def _outside(settings: Settings, clock: Clock, erased: Erased, log: Log) -> Outside:
    limits, packing = settings.limits, Packing(clock, _boot())
    disk = Disk(settings.data_dir / "answers", limits.cache_disk_bytes_max, limits.cache_disk_entries_max, clock, packing)
    if settings.cache_redis is None:
        return Outside(disk, None, erased, log)
    file = settings.cache_redis_password_file

    def password() -> str:
        return read_secret(file, "cache_redis_password_file", 1) if file is not None else ""

    password()
    return Outside(disk, Shared(redis_address(settings.cache_redis, password), limits.cache_shared_wait_s, clock, packing), erased, log)


def _boot() -> str:
    """What names this boot of the machine, where it says: Linux does."""
    try:
        return BOOT_ID.read_text(encoding="ascii").replace("-", "")[:16]
    except OSError:
        return ""
