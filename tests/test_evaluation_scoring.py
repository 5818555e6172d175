"""Which estimate belongs to which reference, and what is scored."""

import math

import pytest
import torch

from separator.errors import AudioError, ConfigError
from separator.evaluation.methods import LoadedSong, choose_oracles
from separator.evaluation.scoring import choose_engine, choose_metrics, pair, score

STEMS = ("drums", "bass", "other", "vocals")
RATE = 2000


@pytest.fixture
def song():
    torch.manual_seed(0)
    references = torch.randn(4, 2, 3 * RATE) / 10
    return LoadedSong("song", "test", STEMS, references, references.sum(0), RATE)


def noisy(song, *stems):
    torch.manual_seed(1)
    truth = dict(zip(song.stems, song.references, strict=True))
    return {stem: truth[stem] + 0.01 * torch.randn(2, 3 * RATE) for stem in stems}


def test_all_stems_are_paired_in_the_order_of_the_data(song):
    estimates = noisy(song, "vocals", "drums", "bass", "other")
    pairing = pair(song, estimates)
    assert pairing.stems == STEMS
    assert torch.equal(pairing.references, song.references)
    assert torch.equal(pairing.estimates[3], estimates["vocals"])


def test_what_is_left_out_of_the_vocals_is_the_accompaniment(song):
    estimates = noisy(song, "vocals")
    pairing = pair(song, estimates)
    assert pairing.stems == ("vocals", "accompaniment")
    torch.testing.assert_close(pairing.references[1], song.references[:3].sum(0))
    torch.testing.assert_close(pairing.estimates.sum(0), song.mixture)


def test_what_is_left_out_of_others_is_the_rest(song):
    pairing = pair(song, noisy(song, "drums", "bass"))
    assert pairing.stems == ("drums", "bass", "rest")
    torch.testing.assert_close(pairing.references.sum(0), song.mixture)


@pytest.mark.parametrize("missing", STEMS)
def test_a_single_stem_that_is_left_out_keeps_its_name(song, missing):
    pairing = pair(song, noisy(song, *(stem for stem in STEMS if stem != missing)))
    assert set(pairing.stems) == set(STEMS)
    place = pairing.stems.index(missing)
    torch.testing.assert_close(pairing.references[place], song.references[STEMS.index(missing)])
    torch.testing.assert_close(pairing.estimates.sum(0), song.mixture)


def test_what_is_left_out_of_the_accompaniment_is_the_vocals(song):
    pairing = pair(song, {"instrumental": song.references[:3].sum(0)})
    assert set(pairing.stems) == {"accompaniment", "vocals"}
    torch.testing.assert_close(
        pairing.references[pairing.stems.index("vocals")], song.references[3]
    )


@pytest.mark.parametrize("name", ["instrumental", "accompaniment", "other"])
def test_models_of_two_stems_know_vocals_and_all_else(song, name):
    vocals = noisy(song, "vocals")["vocals"]
    pairing = pair(song, {"vocals": vocals, name: song.mixture - vocals})
    assert pairing.stems == ("vocals", "accompaniment")
    torch.testing.assert_close(pairing.references[1], song.references[:3].sum(0))
    torch.testing.assert_close(pairing.estimates[1], song.mixture - vocals)


def test_an_instrumental_beside_all_its_parts_is_left_out(song):
    estimates = noisy(song, *STEMS)
    assert pair(song, estimates | {"instrumental": song.mixture}).stems == STEMS


def test_stems_that_the_data_has_not_count_to_other(song):
    estimates = noisy(song, *STEMS)
    guitar = torch.randn(2, 3 * RATE)
    pairing = pair(song, estimates | {"guitar": guitar})
    assert pairing.stems == STEMS
    torch.testing.assert_close(pairing.estimates[2], estimates["other"] + guitar)


def test_no_common_stem_is_an_error(song):
    with pytest.raises(AudioError, match=r"speech.*'song' has: drums, bass"):
        pair(song, {"speech": song.mixture})


@pytest.mark.parametrize(("name", "hint"), [("vocal", "Did you mean 'vocals'"), ("vox", "Rename")])
def test_a_renamed_stem_is_neither_left_out_nor_counted_to_other(song, name, hint):
    estimates = noisy(song, *STEMS)
    estimates[name] = estimates.pop("vocals")
    with pytest.raises(AudioError, match=f"estimate of '{name}' and none of 'vocals'.*{hint}"):
        pair(song, estimates)


def test_stems_of_the_data_that_nobody_asked_for_are_left_out(song):
    alone = LoadedSong("song", "test", ("vocals",), song.references[3:], song.mixture, RATE)
    assert pair(alone, noisy(song, *STEMS)).stems == ("vocals",)


def test_frames_count_where_no_source_is_silent(song):
    song.references[0, :, :RATE] = 0
    metrics, engine = ("csdr",), choose_engine("torch")[0]
    estimates = noisy(song, *STEMS)
    whole = score(song, pair(song, estimates), metrics, engine)[3]
    alone = score(song, pair(song, {"vocals": estimates["vocals"]}), metrics, engine)[0]
    assert [math.isnan(x) for x in whole.frames["SDR"]] == [True, False, False]
    assert alone.frames["SDR"][1:] == pytest.approx(whole.frames["SDR"][1:], abs=1e-9)
    assert not math.isnan(alone.frames["SDR"][0])


def test_singers_are_paired_by_likeness(song):
    duet = LoadedSong("duet", "test", ("a", "b"), song.references[:2], song.mixture, RATE)
    swapped = {"one": song.references[1], "two": song.references[0]}
    pairing = pair(duet, swapped, ordered=False)
    assert torch.equal(pairing.estimates, song.references[:2])
    with pytest.raises(AudioError, match="1 estimates"):
        pair(duet, {"one": song.mixture}, ordered=False)


def test_scores_do_not_depend_on_what_other_stems_are_called(song):
    """SDR of a stem is the same, whether the others are estimated or taken as the rest."""
    estimates = noisy(song, *STEMS)
    metrics = ("csdr", "usdr")
    engine, _ = choose_engine("torch")
    whole = score(song, pair(song, estimates), metrics, engine)[3]
    alone = score(song, pair(song, {"vocals": estimates["vocals"]}), metrics, engine)[0]
    assert whole.name == alone.name == "vocals"
    assert whole.scores == pytest.approx(alone.scores, abs=1e-9)
    assert len(whole.frames["SIR"]) == 3


def test_a_silent_reference_has_a_reason(song):
    song.references[0] = 0
    target = score(song, pair(song, noisy(song, *STEMS)), ("usdr",), choose_engine("torch")[0])[0]
    assert math.isnan(target.scores["usdr"])
    assert target.reasons == {"usdr": "the reference is silent"}
    assert not target.frames


def test_metrics_are_chosen_by_name():
    assert choose_metrics(["usdr", "csdr", "usdr"]) == ("usdr", "csdr")
    assert "usdr" in choose_metrics([])
    assert set(choose_metrics([])) < set(choose_metrics(["all"]))
    with pytest.raises(ConfigError, match=r"Unknown metric 'usd'.*'usdr'"):
        choose_metrics(["usd"])


def test_oracles_are_chosen_by_the_beginning_of_their_name():
    assert [oracle.name for oracle in choose_oracles(["mixture", "irm"])] == [
        "mixture",
        "oracle-irm1",
        "oracle-irm2",
    ]
    with pytest.raises(ConfigError, match="Unknown oracle"):
        choose_oracles(["iron"])


def test_engines_are_torch_and_museval():
    with pytest.raises(ConfigError, match="allowed: torch, museval"):
        choose_engine("numpy")


def test_museval_gives_the_same_frames(song):
    pytest.importorskip("museval", exc_type=Exception)
    engine, name = choose_engine("museval")
    assert name.startswith("museval ")
    pairing = pair(song, noisy(song, "vocals"))
    ours = score(song, pairing, ("csdr",), choose_engine("torch")[0])
    theirs = score(song, pairing, ("csdr",), engine)
    for own, other in zip(ours, theirs, strict=True):
        for metric, values in own.frames.items():
            assert values == pytest.approx(other.frames[metric], abs=1e-3)
