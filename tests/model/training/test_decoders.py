"""Who decodes a run: a new one by fused on the CPU; a resumed one as it began, or a note says why not."""

import pytest
import tiny
from alexnet_dali.model.training import checkpoint, decoders
from alexnet_dali.model.training.distributed import Team
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.pipeline.stream import finish
from tiny import trainer_of


@pytest.fixture(scope="module", autouse=True)
def small(small_nets):
    """Nets of few hidden units."""


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


def trained(few, run, **options):
    """Train; return the decoder that the checkpoint names, why it was chosen, and the notes."""
    notes, trainer = [], trainer_of(few, run, epochs=1, **options)
    trainer.train(lambda line: notes.append(line["text"]) if line["kind"] == "note" else None)
    return checkpoint.load(run / "last.pt")["decode"], trainer.state.chosen, notes


def test_a_new_run_is_fused_and_an_old_one_goes_on_as_it_began(few, tmp_path):
    assert trained(few, tmp_path / "new", steps=1) == ("fused", "decode fused: the fastest on a CPU", [])
    assert trained(few, tmp_path / "new", resume=True) == ("fused", "", [])
    for decode in ("threads", "dali"):
        assert trained(few, tmp_path / decode, steps=1, decode=decode) == (decode, "", [])
        assert trained(few, tmp_path / decode, resume=True) == (decode, "", [])


def test_a_fused_run_goes_on_where_fused_is_not_possible_and_says_so(few, tmp_path, monkeypatch):
    trained(few, tmp_path, steps=1)
    monkeypatch.setattr(finish, "_compiled", None)
    decode, chosen, (note,) = trained(few, tmp_path, resume=True)
    assert decode == "threads" and chosen.startswith("decode threads: fused, the fastest on a CPU, is not possible")
    assert note == (
        "this run used --decode fused, which is not possible here: its compiled part is missing "
        "(alexnet-prep doctor); pixels differ by rounding"
    )


def test_a_run_that_asks_for_what_is_not_possible_is_refused(few, tmp_path, monkeypatch):
    """Before anything else is said; also a resumed run, which may have used another decoder."""
    monkeypatch.setattr(finish, "_compiled", None)
    trained(few, tmp_path / "old", steps=1)
    for run, resume in ((tmp_path / "new", False), (tmp_path / "old", True)):
        with pytest.raises(UsageError, match="the decoder fused is not possible: its compiled part is missing"):
            trainer_of(few, run, decode="fused", resume=resume)


class Rank1(Team):
    """The second of two processes, to which rank 0 says that it uses fused."""

    first = False

    def broadcast(self, value):
        return "fused"


def test_a_process_that_cannot_do_as_rank_0_does_is_told(few, tmp_path, monkeypatch):
    """It does not use another decoder silently, not even when it resumes."""
    trained(few, tmp_path, steps=1)
    part = trainer_of(few, tmp_path, epochs=1, resume=True)
    part.team = Rank1()
    monkeypatch.setattr(finish, "_compiled", None)
    with pytest.raises(UsageError, match="the decoder fused is not possible: its compiled part is missing"):
        part._stream(lambda line: None)


def test_views_of_a_fused_run_are_decoded_by_threads():
    assert [decoders.for_views(name) for name in ("fused", "threads", "dali", "auto")] == [
        *("threads", "threads", "dali", "auto")
    ]
