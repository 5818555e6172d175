"""Which model to take: scores compared with their like, licences, speeds of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from separator.errors import ModelError
from separator.zoo.cards import Card, Ensemble, parse_card
from separator.zoo.recommend import GOALS, recommend, resolve_alias
from separator.zoo.search import ALIASES, find_card, list_cards
from separator.zoo.speeds import Speeds, work

MULTISONG = ("uSDR", "MVSep Multisong")
MUSDB = ("cSDR", "MUSDB18-HQ test")


def card(name: str, scores: dict | None = None, ranking=MULTISONG, **fields) -> Card:
    """Return a card of a model that has to be downloaded."""
    score = {"definition": ranking[0], "dataset": ranking[1], "values": scores, "source": "x"}
    return parse_card(
        {
            "name": name,
            "description": name,
            "network": "bs_roformer",
            "stems": ["vocals"],
            "residual": "instrumental",
            "segment": 8.0,
            "overlap": 0.5,
            "licence": "not stated",
            "weights": {"urls": ["https://example.org/w.ckpt"], "format": "msst"},
            "scores": [score] if scores else [],
        }
        | fields,
        name,
    )


@pytest.fixture
def speeds(tmp_path: Path) -> Speeds:
    return Speeds(tmp_path / "speeds.json")


def picked(goal: str, cards: list[Card], speeds: Speeds) -> dict[str, str]:
    return {pick.kind: pick.card.name for pick in recommend(GOALS[goal], cards, speeds)}


def test_scores_of_another_kind_are_not_compared(speeds):
    cards = [
        card("a", {"vocals": 8.0}),
        card("b", {"vocals": 9.0}),
        card("c", {"vocals": 12.0}, MUSDB),
        card("d", {"vocals": 20.0}, ("author", "not stated")),
    ]
    (best,) = recommend(GOALS["vocals"], cards, speeds)
    assert (best.card.name, best.score, best.ranking) == ("b", 9.0, "uSDR, MVSep Multisong")


def test_licences_that_permit_commercial_use(speeds):
    cards = [card("a", {"vocals": 9.0}), card("b", {"vocals": 8.0}, licence="MIT")]
    cards.append(card("c", {"vocals": 8.5}, licence="CC-BY-NC-4.0"))
    assert picked("vocals", cards, speeds) == {"best": "a", "free": "b"}


def test_nobody_is_led_to_a_model_of_bad_origin(speeds):
    cards = [card("a", {"vocals": 9.0}, recommended=False), card("b", {"vocals": 8.0})]
    assert picked("vocals", cards, speeds) == {"best": "b"}
    found = [one for one in list_cards() if not one.recommended]
    assert "bs-roformer-sw" in {one.name for one in found} and len(found) >= 9
    for goal in GOALS.values():
        assert all(pick.card.recommended for pick in recommend(goal, list_cards(), speeds))


def test_all_stems_of_a_goal_are_wanted(speeds):
    four = ["drums", "bass", "other", "vocals"]
    partly = card("a", {"vocals": 20.0}, stems=four, residual=None)
    whole = card("b", dict.fromkeys(four, 5.0), stems=four, residual=None)
    assert picked("four", [partly, whole], speeds) == {"best": "b"}
    assert picked("six", [partly, whole], speeds) == {}


def test_speed_is_measured_or_follows_from_the_work(speeds):
    one, two = card("a", gflops=100.0), card("b", gflops=400.0)
    known = {"a": one, "b": two}
    assert work(one) == 200.0  # every second is computed twice
    assert speeds.estimate(two, known) is None
    speeds.note("a", seconds=30.0, duration=120.0)
    assert speeds.estimate(one, known) == 0.25
    assert speeds.estimate(two, known) == pytest.approx(1.0)
    assert picked("vocals", [one, two], speeds)["fast"] == "a"
    speeds.note("a", seconds=90.0, duration=4.0)  # too short to tell
    assert Speeds(speeds._path).get("a") == 0.25


def test_a_damaged_memory_of_speeds_is_forgotten(tmp_path):
    for text in ("[]", "{", '{"a": "fast"}', '{"a": null}'):
        (tmp_path / "speeds.json").write_text(text)
        assert Speeds(tmp_path / "speeds.json").get("a") is None


def test_every_model_says_what_it_costs_or_cannot():
    """Only graphs of other programs and networks for whole tracks have no number."""
    models = [one for one in list_cards() if isinstance(one, Card)]
    without = {one.network for one in models if one.gflops is None}
    assert without <= {"mdx_onnx", "vr_aspp", "vr_lstm"}
    ensemble = find_card("htdemucs_ft")
    assert isinstance(ensemble, Ensemble)
    assert work(ensemble) == pytest.approx(4 * work(find_card("htdemucs_ft-bass")))


def test_aliases_lead_to_cards():
    best = find_card("best:vocals")
    assert best.name == resolve_alias("best:vocals").name
    assert "vocals" in best.stems
    assert find_card("here:four").licence == "MIT"
    for name, problem in {
        "best:vocal": "Did you mean 'vocals'?",
        "best:": "allowed: vocals",
        "here:six": "No model is 'here:six' here",
    }.items():
        with pytest.raises(ModelError, match="(?s)" + problem.replace("?", "\\?")):
            find_card(name)
    with pytest.raises(ModelError, match="Unknown model 'worst:vocals'"):
        find_card("worst:vocals")


def test_the_command_recommends(cli):
    done = cli("models", "recommend", "--stem", "vocals", "--json")
    found = json.loads(done.stdout)
    assert list(found) == ["vocals", "four", "six"]
    assert {pick["kind"] for pick in found["vocals"]} <= set(ALIASES)
    lines = cli("models", "recommend").stdout.splitlines()
    assert lines[0] == "Vocals" and max(map(len, lines)) <= 100
    assert cli("models", "recommend", "--stem", "kazoo", code=2).stderr.startswith("error: --stem")
