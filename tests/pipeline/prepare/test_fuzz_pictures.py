"""2,000 damaged photos of all formats are rejected or prepared as 256x256x3; damaged_pictures.py tries 100,000."""

import damaged_pictures as soak
import pytest
from alexnet_dali.pipeline.prepare.resize import prepare

CASES = 2000


def test_no_damage_crashes_hangs_or_takes_memory():
    counts, memory, wrong = soak.survey(CASES, seed=1)
    assert wrong == "" and counts.total() == CASES
    assert memory < soak.MOST_MEMORY
    # Otherwise nearly all would be rejected at their first bytes, or nearly none damaged.
    assert 0.05 * CASES < CASES - counts["rejected"] < 0.6 * CASES and len(counts) > 8


def test_the_undamaged_photos_can_be_prepared():
    forms = {prepare(photo).form for photo in soak.bases()}
    assert {"JPEG", "JPEG grey", "JPEG CMYK", "PNG", "GIF", "WebP", "BMP", "TIFF", "PPM"} <= forms
    damaged = [soak.photo_of(1, case) for case in range(300)]
    assert damaged == [soak.photo_of(1, case) for case in range(300)]  # each case has its own seed
    assert len(set(damaged)) > 290 and sum(photo in soak.bases() for photo in damaged) < 30


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        ("crash", "seed 1, case 7: the process died of signal 11"),
        ("hang", "seed 1, case 7: not finished after 2 s"),
        ("error", "KeyError: 'planted'"),
        ("sides", "AssertionError: planted"),
    ],
)
def test_a_failure_is_reported_with_its_case(plant, message):
    counts, _, wrong = soak.survey(20, seed=1, plant=plant, longest=2)
    assert not counts and wrong.startswith("seed 1, case 7: ") and message in wrong


def test_excessive_memory_is_reported(monkeypatch):
    monkeypatch.setattr(soak, "MOST_MEMORY", -1)
    assert "seed 1, 0+20" in soak.survey(20, seed=1)[2]
