"""`alexnet-prep verify`: check every byte of a shard set, and repair it."""

import itertools
import shlex
from pathlib import Path

import click

from ...pipeline.errors import ShardError
from ...pipeline.prepare.against_source import compare, find_by_todays_rules
from ...pipeline.prepare.repair import Repair, clear_aside, repair
from ...pipeline.shards.manifest import ShardSet, read_manifest
from ...pipeline.shards.verify import Report, verify_shards
from ...pipeline.sources.find import PhotoSource
from ...pipeline.workers import worker_pool
from .. import console, options
from .doubts import lines_of

SHOWN = 5  # damages printed per shard, and notes


@click.command("verify", context_settings=options.SETTINGS)
@options.shards()
@options.workers()
@click.option("--repair", "do_repair", is_flag=True, help="Rebuild the damaged shards from the photos.")
@options.path("--source", help="Where the photos are now.  [default: where they were when the set was built]")
@options.path("--against", help="Also compare classes and splits with the photos that are here, by today's rules.")
def verify(shards, workers, do_repair, source, against):
    """Check a whole shard set: hashes, LMDB pages, every record, every picture, the CSV files.

    Lists all damage with shard, record, photo and reason; with --against also photos whose class or split in the set
    is not that of the source, and photos that the set lacks. Exit code 0: undamaged, and no such photo; 1: damaged, or
    such photos.

    \b
    Examples:
      alexnet-prep verify --shards out
      alexnet-prep verify --shards out --repair --source /data/imagenet
      alexnet-prep verify --shards out --against /data/imagenet
    """
    shard_set = read_manifest(shards)
    today = find_by_todays_rules(shard_set, against) if against else None
    total = sum(split.records for split in shard_set.splits.values())
    with worker_pool(workers or 0) as pool:
        with console.progress("verifying", total, "records") as advance:
            report = verify_shards(shard_set, pool, advance)
        if do_repair and report.damaged_shards:
            _print_damage(report)
            count = _records(shards, report.damaged_shards)
            with console.progress("rebuilding", total) as advance:
                done = repair(report, pool, source, advance)
            _print_repair(done)
            with console.progress("verifying", count, "records") as advance:
                report = verify_shards(done.shard_set, pool, advance, only=done.shards)
    for note in report.notes[:SHOWN]:
        click.echo(f"note: {note}", err=True)
    if len(report.notes) > SHOWN:
        click.echo(f"note: {len(report.notes) - SHOWN:,} more other files", err=True)
    if report.whole:
        if do_repair:
            clear_aside(shards)
        click.echo(
            f"undamaged: {report.records:,} records in {report.shards:,} shards; all hashes and pictures are correct"
        )
        if today:
            _compare(read_manifest(shards), today)
        else:
            for line in lines_of(shard_set):
                click.echo(f"note: {console.plain(line)}", err=True)
        return
    _print_damage(report)
    raise ShardError(
        f"{shards}: damaged: {len(report.damages):,} faults"
        + (f" in {len(report.damaged_shards):,} of {report.shards:,} shards" if report.damaged_shards else ""),
        _remedy(report, read_manifest(shards).manifest),
    )


def _compare(shard_set: ShardSet, today: PhotoSource) -> None:
    """Print how a set differs from its source.

    Raises:
        ShardError: a photo has another class or split, or the set lacks photos or has too many.
    """
    found = compare(shard_set, today)
    place = found.today.requested or found.today.root
    for note in found.notes:
        click.echo(console.plain(f"note: {note}"), err=True)
    for one in found.differences:
        click.echo(f"{_photos(one.photos)} {one.what}")
        for example in one.examples:
            click.echo(console.plain(f"  {example}"))
        if (more := one.photos - len(one.examples)) > 0:
            click.echo(f"  and {more:,} more")
    faults = sum(one.photos for one in found.differences if one.is_fault)
    if faults:
        raise ShardError(
            f"{shard_set.root}: {faults:,} differences from {place} as today's rules read it; "
            f"{_photos(found.same)} agree",
            f"build it again: alexnet-prep build-lmdb {shlex.quote(str(place))} --out another-folder",
        )
    click.echo(
        console.plain(
            f"agrees with {place}: {_photos(found.same)} with the same class and split"
            + (f"; {found.rejected:,} in rejected.csv" if found.rejected else "")
        )
    )


def _photos(count: int) -> str:
    return f"{count:,} photo{'s' * (count != 1)}"


def _print_damage(report: Report) -> None:
    for shard, group in itertools.groupby(report.damages, key=lambda damage: damage.shard):
        damages = list(group)
        for damage in damages[:SHOWN]:
            record = "" if damage.record is None else f", record {damage.record}"
            photo = f" ({damage.source_path})" if damage.source_path else ""
            click.echo(console.plain(f"{shard}{record}{photo}: {damage.reason}"))
        if len(damages) > SHOWN:
            click.echo(f"{shard}: and {len(damages) - SHOWN:,} more")


def _print_repair(done: Repair) -> None:
    same = len(done.shards) - len(done.changed)
    if same:
        click.echo(f"rebuilt: {same:,} shards, identical byte for byte")
    for path in done.changed:
        click.echo(f"rebuilt: {path}, with different bytes; dataset.json has the new SHA-256")
    if done.changed:
        why = (
            f"the library versions differ ({'; '.join(done.versions)})"
            if done.versions
            else "photos changed under the same names and sizes, or can no longer be read"
        )
        click.echo(f"warning: {why}", err=True)
    for lost in done.rejected[:SHOWN]:
        click.echo(f"warning: rejected now but not before: {lost}", err=True)
    if done.kept:
        click.echo(
            f"note: {len(done.rejected):,} photos are lost; the damaged shards are kept in {done.kept}", err=True
        )


def _remedy(report: Report, manifest: dict) -> str:
    """Return the hint for what is damaged."""
    others = {damage.shard for damage in report.damages}
    remedies = []
    if report.damaged_shards:
        remedies.append(
            f"alexnet-prep verify --shards {report.root} --repair, which rebuilds "
            f"{len(report.damaged_shards):,} shards from {manifest.get('source', {}).get('path', 'the photos')}; "
            "or copy them again"
        )
    if "stats.npz" in others:
        remedies.append(f"alexnet-prep pca-stats --shards {report.root}")
    if others & {"rejected.csv", "dataset.json"}:
        remedies.append(
            f"copy {' and '.join(sorted(others & {'rejected.csv', 'dataset.json'}))} from a copy of the set, "
            "or remove the set and build it again"
        )
    return "; then ".join(remedies)


def _records(root: Path, shards: tuple[str, ...]) -> int:
    return sum(
        file.records
        for split in read_manifest(root).splits.values()
        for folder, file in split.shards
        if folder.relative_to(root).as_posix() in shards
    )
