"""What becomes of scores: averages, comparisons, tables, plots, one page."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from separator.datasets import KINDS
from separator.errors import ConfigError
from separator.evaluation.plots import draw_all, draw_differences, draw_speed
from separator.evaluation.published import published
from separator.evaluation.report import Failure, worst_frames, write_report
from separator.evaluation.results import FRAME_METRICS, Run, Target, TrackResult
from separator.evaluation.summary import ALL, Summary, summarize
from separator.evaluation.tables import Table, all_tables, score_table

TRACKS = 12


def make_result(
    method, kind, track, scores, *, data="musdb18hq", fingerprint="a-b", excerpt=None
) -> TrackResult:
    targets = [
        Target(stem, dict.fromkeys(FRAME_METRICS, (usdr,)), {"csdr": csdr, "usdr": usdr})
        for stem, (csdr, usdr) in scores.items()
    ]
    if excerpt:
        targets = [Target(t.name, t.frames, t.scores, {}, excerpt) for t in targets]
    timed = {"seconds": 20.0, "peak_memory": 3 * 2**20} if kind == "model" else {}
    run = Run(method, kind, fingerprint, "torch", data, 44100, 10.0, metric_seconds=1.0, **timed)
    return TrackResult(f"track {track:02d}", "test", run, tuple(targets))


def make_results(data="musdb18hq"):
    """Two models, of which `good` is better by 1 dB in the vocals, and the mixture."""
    generator = np.random.default_rng(0)
    for track in range(TRACKS):
        drums, vocals = generator.normal(5, 2, (2, 2)).tolist()
        better = [score + 1 for score in vocals]
        stems = {"drums": drums, "vocals": vocals}
        yield make_result("plain", "model", track, stems, data=data)
        yield make_result("good", "model", track, stems | {"vocals": better}, data=data)
        yield make_result("mixture", "mixture", track, {"drums": (-5, -5), "vocals": (-6, -6)})


@pytest.fixture
def summary():
    return Summary(tuple(make_results()))


def scores_of(method, stem, index):
    key = ("csdr", "usdr")[index]
    return [
        target.scores[key]
        for result in make_results()
        for target in result.targets
        if (result.run.method, target.name) == (method, stem)
    ]


def test_csdr_is_a_median_and_usdr_a_mean_over_tracks(summary):
    assert summary.value("good", "vocals", "csdr") == np.median(scores_of("good", "vocals", 0))
    expected = np.mean(scores_of("good", "vocals", 1))
    assert summary.value("good", "vocals", "usdr") == pytest.approx(expected)


def test_the_mean_over_stems_is_that_of_their_averages(summary):
    stems = [summary.value("good", stem, "csdr") for stem in ("drums", "vocals")]
    assert summary.value("good", ALL, "csdr") == pytest.approx(np.mean(stems))


def test_what_a_method_left_out_does_not_count_in_the_mean():
    scores = {"vocals": (3.0, 4.0), "accompaniment": (13.0, 14.0)}
    summary = Summary((make_result("duo", "model", 0, scores),))
    assert summary.stems == ("vocals", "accompaniment")
    assert summary.value("duo", ALL, "usdr") == 4.0


def test_a_missing_stem_leaves_the_mean_open():
    results = (
        make_result("all", "model", 0, {"drums": (1.0, 1.0), "vocals": (2.0, 2.0)}),
        make_result("one", "model", 0, {"vocals": (3.0, 3.0)}),
    )
    summary = Summary(results)
    assert math.isnan(summary.value("one", ALL, "usdr"))
    row = score_table(summary, "usdr").rows[1]
    assert row == ("one", "", "3.00", "", "1")


def test_methods_stand_between_their_bounds(summary):
    assert list(summary.methods) == ["mixture", "good", "plain"]


def test_speed_is_that_of_all_music_together(summary):
    speed = summary.speed("good")
    assert (speed.real_time_factor, speed.peak_memory, speed.metric_factor) == (2.0, 3.0, 0.1)
    assert summary.speed("mixture").real_time_factor is None


def test_models_are_compared_and_bounds_are_not(summary):
    rows = {
        (row.first, row.second, row.stem): row
        for row in summary.comparisons
        if row.metric == "usdr"
    }
    assert set(rows) == {("good", "plain", "drums"), ("good", "plain", "vocals")}
    vocals = rows["good", "plain", "vocals"].comparison
    assert vocals.difference.value == pytest.approx(1)
    assert (vocals.wins, vocals.losses) == (TRACKS, 0)
    assert vocals.permutation == pytest.approx(2 / 2**TRACKS)
    assert rows["good", "plain", "drums"].comparison.wilcoxon == 1
    assert rows["good", "plain", "vocals"].p_holm == pytest.approx(2 * vocals.wilcoxon)


def test_definitions_are_never_mixed(summary):
    for definition in ("cSDR", "uSDR"):
        title = f"{definition} in dB, higher is better"
        (table,) = [table for table in all_tables(summary) if table.title == title]
        shown = [row[0] for row in table.rows if row[0].startswith("published: ")]
        expected = [row.method for row in published(definition, "musdb18hq", "test")]
        assert len(shown) == len(expected) > 3
        assert all(name in row for name, row in zip(expected, shown, strict=True))


@pytest.mark.parametrize(("data", "split"), [("moisesdb", "test"), ("musdb18hq", "validation")])
def test_published_results_stand_beside_the_same_data_alone(data, split):
    assert not published("cSDR", data, split)


def test_published_results_name_all_stems_and_their_source():
    for definition in ("cSDR", "uSDR"):
        for row in published(definition, "musdb18", "test"):
            assert set(row.scores) == {"drums", "bass", "other", "vocals"}
            assert row.source.startswith(("arXiv ", "github.com/"))


def test_plots_are_pictures(summary, tmp_path):
    drawn = draw_all(summary, tmp_path)
    assert {path.name for path in drawn} == {
        f"{name}-{metric}.png"
        for name in ("boxes", "speed", "differences")
        for metric in ("csdr", "usdr")
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_bounds_alone_have_boxes_only(tmp_path):
    results = tuple(result for result in make_results() if result.run.kind == "mixture")
    names = {path.name for path in draw_all(Summary(results), tmp_path)}
    assert names == {"boxes-csdr.png", "boxes-usdr.png"}


def write_all(results, folder: Path) -> Path:
    for result in results:
        result.write(folder)
    return folder


def test_the_report_holds_everything(tmp_path):
    write_all(make_results(), tmp_path)
    failures = [Failure("a <b>", "good", "it | broke"), Failure("c", "", "is quiet", True)]
    write_report(tmp_path, "test", failures)
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count('src="data:image/png;base64,') == 6
    text = (tmp_path / "report.md").read_text()
    assert "# Evaluation on musdb18hq, test: 12 tracks" in text
    assert "| a <b> | good | it \\| broke |" in text
    assert "## Warnings" in text
    for name, rows in {
        "scores": 3 * TRACKS * 2 * 2,
        "frames": 3 * TRACKS * 2,
        "summary": 3 * 2 * 2,
        "comparisons": 2 * 2,
        "methods": 3,
    }.items():
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == rows, name


def test_the_worst_frames_can_be_listened_to(tmp_path):
    for track in range(5):
        excerpt = {"time": 3.0, "sdr": -track, "reference": "a b.ogg", "estimate": "c.ogg"}
        scores = {"vocals": (1.0, 1.0)}
        make_result("my model", "model", track, scores, excerpt=excerpt).write(tmp_path)
    frames = worst_frames(summarize(tmp_path, "test"))
    assert [frame.track for frame in frames] == ["track 04", "track 03", "track 02"]
    write_report(tmp_path, "test")
    page = (tmp_path / "report.html").read_text()
    assert page.count('href="my%20model/a%20b.ogg"') == 3


def test_results_made_with_different_settings_are_refused(tmp_path):
    scores = {"vocals": (1.0, 1.0)}
    write_all(
        [make_result("m", "model", i, scores, fingerprint=f"{i}-x") for i in (1, 2)], tmp_path
    )
    with pytest.raises(ConfigError, match="different settings"):
        summarize(tmp_path, "test")


def test_results_of_different_data_sets_are_refused(tmp_path):
    scores = {"vocals": (1.0, 1.0)}
    write_all([make_result("m", "model", i, scores, data=d) for i, d in enumerate(KINDS)], tmp_path)
    with pytest.raises(ConfigError, match=r"different data sets .*folder, .*musdb18hq"):
        summarize(tmp_path, "test")


def test_tables_tell_how_many_tracks_count_where_not_all_do():
    """An estimate that is silent has no cSDR: it must not look as if it had one."""
    scores = [(1.0, 1.0)] * 3 + [(2.0, 2.0)] * 3 + [(math.nan, 0.0)]
    results = [make_result("m", "model", i, {"vocals": both}) for i, both in enumerate(scores)]
    summary = Summary(tuple(results))
    cells = {m: score_table(summary, m).rows[0] for m in ("csdr", "usdr")}
    assert cells["csdr"][1].startswith("1.50 [")
    assert cells["csdr"][1].endswith("] (6)")
    assert cells["usdr"][1].startswith("1.29 [")
    assert cells["usdr"][1].endswith("]")
    assert cells["csdr"][-1] == "7"


def test_few_tracks_have_no_interval_and_the_table_says_so():
    few, enough = (
        Summary(tuple(make_result("m", "model", i, {"vocals": (i, i)}) for i in range(count)))
        for count in (5, 6)
    )
    table = score_table(few, "usdr")
    assert table.rows[0][1] == "2.00"
    assert "too few tracks: 6 are needed" in table.note
    table = score_table(enough, "usdr")
    assert table.rows[0][1].startswith("2.50 [")
    assert "too few" not in table.note


def test_no_results_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="holds no results of the split 'test'"):
        write_report(tmp_path, "test")
    assert not list(tmp_path.iterdir())


def test_only_words_may_wrap():
    table = Table("Failed", "1 in all.", ("track", "what", "dB"), (("a <b>", "why", "1"),), words=2)
    assert '<td class="words">a &lt;b&gt;</td><td class="words">why</td><td>1</td>' in table.html()
    assert "| --- | --- | ---: |" in table.markdown()


def test_a_single_track_is_track_one():
    first = tuple(result for result in make_results() if result.track == "track 00")
    axes = draw_differences(Summary(first), "usdr").axes[0]
    shown = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    assert shown == [1]


@pytest.mark.parametrize(("slower", "label"), [(1.0, "0.50"), (50.0, "0.01")])
def test_speeds_are_written_without_powers(summary, slower, label):
    results = [
        replace(one, run=replace(one.run, seconds=20.0 * slower))
        if one.run.method == "plain"
        else one
        for one in summary.results
    ]
    figure = draw_speed(Summary(tuple(results)), "usdr")
    figure.canvas.draw()
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels(which="both")]
    assert label in labels
    assert not any("^" in text for text in labels)
