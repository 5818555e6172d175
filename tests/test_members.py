"""The cards of ensembles: what is refused, and in which words."""

import pytest

from separator.errors import ConfigError
from separator.zoo.cards import Ensemble, leftover_name, read_card
from separator.zoo.members import find_members, usable_cards
from separator.zoo.writing import write_card

pytest_plugins = ["gain_models"]


def member(**fields):
    return {"model": "a", **fields}


MISTAKES = {
    "'members.1.model': Unknown model 'bb'.*Did you mean 'b'": {"members": ["a", "bb"]},
    "'members.0.model': an ensemble can't contain itself (e -> e)": {"members": ["e"]},
    "'members.0.model': 'fast' has sample_rate 48000 Hz, the ensemble 8000": {"members": ["fast"]},
    "'members.0.model': 'mono' has channels 1, the ensemble 2": {"members": ["mono"]},
    "'members.0.stems': 'a' has no stem 'vocal'; it has: drums, vocals.* 'vocals'": {
        "members": [member(stems=["vocal"])]
    },
    "'members.0.stems': stems and residual need different names": {
        "members": [member(stems={"drums": "x", "vocals": "x"})]
    },
    "none may be 'mixture'": {"members": [member(residual="mixture")]},
    "'members.0.weights': this member doesn't give 'bass'; it gives: drums, vocals": {
        "stems": ["bass", "vocals"],
        "members": [member(weights={"bass": 1})],
    },
    "'members.1.input': no earlier member gives 'bass'; allowed: mixture, drums, vocals": {
        "members": ["a", member(input="bass")]
    },
    "'members.0.input': no earlier member gives 'drums'; allowed: mixture": {
        "members": [member(input="drums"), "a"]
    },
    "'members.2.input': 2 earlier members give 'drums'": {
        "members": ["a", "b", member(input="drums")]
    },
    "'members.0.input': 'a' hears 1 signal(s), got 2: mixture, drums": {
        "members": [member(input=["mixture", "drums"])]
    },
    "'members.1.input': 'both' hears 2 signal(s), got 1: mixture": {"members": ["a", "both"]},
    "'members.1.input': no earlier member gives 'kick'; allowed: mixture, drums, vocals": {
        "members": ["a", {"model": "both", "input": ["vocals", "kick"]}]
    },
    "'stems': no member gives 'kazoo'; they give: drums, vocals": {"stems": ["drums", "kazoo"]},
    "'members': the weights of 'drums' sum to zero": {"members": [member(weights={"vocals": 1})]},
    "'members.0.weights.drums': input should be greater than or equal to 0, got -1": {
        "members": [member(weights={"drums": -1})]
    },
    "'members.0.weights.drum' is no stem of the ensemble.*Did you mean 'drums'": {
        "members": [member(weights={"drum": 1})]
    },
    "'members.0.weights.drums' is 0.5; with the algorithm 'median'.*part \\(1\\) or not \\(0\\)": {
        "members": [member(weights={"drums": 0.5})],
        "algorithm": "median",
    },
    "'algorithm': input should be 'mean', 'median', 'min' or 'max'": {"algorithm": "mode"},
    "'domain': input should be 'time', 'stft' or 'network'": {"domain": "bins"},
    "'consistency': input should be 'none' or 'energy'": {"consistency": "all"},
    "'wiener' weighs stems against each other and needs at least two": {
        "stems": ["drums"],
        "wiener": 1,
    },
    "'wiener': input should be greater than or equal to 0, got -1": {"wiener": -1},
    "'members': value should have at least 1 item": {"members": []},
    "'members.0.overlap': input should be less than 1": {"members": [member(overlap=1.0)]},
    "unknown key 'members.0.weight'. Did you mean 'weights'": {"members": [member(weight=1)]},
    "unknown key 'network'": {"network": "gains"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_in_cards_are_named(zoo, message):
    zoo.model("a", {"drums": 0.5, "vocals": 0.5})
    zoo.model("b", {"drums": 0.5})
    zoo.model("fast", {"drums": 0.5}, sample_rate=48000)
    zoo.model("mono", {"drums": 0.5}, channels=1)
    zoo.model("both", {"drums": 0.5}, parameters={"inputs": 2})
    zoo.ensemble("f", ["drums"], ["e"])
    zoo.ensemble("e", **({"stems": ["drums", "vocals"], "members": ["a"]} | MISTAKES[message]))
    pattern = message.replace("(e -> e)", r"\(e -> e\)").replace("(s)", r"\(s\)")
    with pytest.raises(ConfigError, match=f"^e(.yaml)?: .*{pattern}"):
        zoo.separator("e")
    assert not zoo.loads


def test_a_model_that_hears_several_signals_runs_in_ensembles_only(zoo):
    zoo.model("a", {"drums": 0.5})
    zoo.model("both", {"drums": 0.5}, parameters={"inputs": 2})
    with pytest.raises(ConfigError, match="'both' hears what another model finds, too"):
        zoo.separator("both")
    cards, problems = usable_cards()
    assert not problems
    assert "a" in [card.name for card in cards]
    assert "both" not in [card.name for card in cards]


def test_circles_through_other_ensembles_are_named(zoo):
    zoo.model("a", {"drums": 0.5})
    zoo.ensemble("f", ["drums"], ["a", "e"])
    zoo.ensemble("e", ["drums"], ["f"])
    with pytest.raises(ConfigError, match=r"^f: 'members.1.model': .*itself \(e -> f -> e\)"):
        zoo.separator("e")


def test_cards_of_ensembles_survive_writing(zoo, tmp_path):
    zoo.model("a", {"drums": 0.5, "vocals": 0.5})
    members = [member(stems={"drums": "kit"}, weights={"kit": 2.5}, overlap=0.5), "a"]
    zoo.ensemble("e", ["kit", "vocals"], members, consistency="energy")
    card = read_card(tmp_path / "e.yaml")
    assert isinstance(card, Ensemble)
    assert [model.name for model in find_members(card).models] == ["a"]
    (tmp_path / "copy").mkdir()
    again = read_card(write_card(card, tmp_path / "copy"))
    assert again.model_dump() == card.model_dump()


@pytest.mark.parametrize(
    ("stems", "residual", "chosen", "name"),
    [
        (["vocals", "drums"], "accompaniment", ["drums", "vocals"], "accompaniment"),
        (["vocals", "drums"], "accompaniment", ["drums"], "residual"),
        (["vocals", "drums"], None, ["vocals", "drums"], "residual"),
        (["Vocals", "drums"], "accompaniment", ["Vocals"], "instrumental"),
        (["Vocals"], "karaoke", ["Vocals"], "karaoke"),
    ],
)
def test_what_is_left_over_has_one_name(zoo, tmp_path, stems, residual, chosen, name):
    zoo.ensemble("e", stems, ["a"], residual=residual)
    card = read_card(tmp_path / "e.yaml")
    assert leftover_name(card, chosen) == name
