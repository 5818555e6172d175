"""The addresses that the player and the page's downloads use."""

import io
import zipfile

import pytest

from separator.web.overview import BANDS, COLUMNS

RATE = 44100


@pytest.fixture
def client(service, pair):
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from separator.web.routes import add_routes

    app = FastAPI()
    add_routes(app, service)
    service.library.add(pair)
    return TestClient(app)


def test_the_player_gets_what_it_needs(client, pair):
    data = client.get("/stems/token/player.json").json()
    assert [track["name"] for track in data["tracks"]] == ["mixture", "a", "b"]
    assert data["samples"] == RATE and len(data["tracks"][1]["peaks"]) == COLUMNS
    assert "path" not in str(data)
    sound = client.get("/stems/token/sound?start=5&count=7")
    assert len(sound.content) == 3 * 7 * 2 * 2
    assert len(client.get("/stems/token/spectrogram/1").content) == COLUMNS * BANDS
    stem = client.get("/stems/token/track/1")
    assert stem.content == (pair.folder / "a.wav").read_bytes()
    assert "A%20song%20-%20a.wav" in stem.headers["content-disposition"]


def test_zips_and_mixes_are_downloaded_and_cleaned_up(client, pair):
    archive = client.get("/stems.zip?token=token&token=token")
    with zipfile.ZipFile(io.BytesIO(archive.content)) as file:
        assert "01 A song/A song - a.wav" in file.namelist()
    some = client.get("/stems.zip?token=gone&token=token")
    with zipfile.ZipFile(io.BytesIO(some.content)) as file:
        assert len(file.namelist()) == 2, "what is left"
    assert client.get("/stems/token/mix.wav?1=1&2=0.5").content.startswith(b"RIFF")
    assert not list(pair.folder.glob("mix-*"))


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/stems/other/player.json", 404),
        ("/stems/..%2f..%2fetc/player.json", 404),
        ("/stems/token/track/9", 404),
        ("/stems/token/track/-1", 404),
        ("/stems/token/spectrogram/7", 404),
        ("/stems/token/sound?start=-1&count=5", 422),
        ("/stems/token/mix.wav?1=loud", 400),
        ("/stems/token/mix.wav", 400),
        ("/stems.zip?token=other&token=gone", 404),
        ("/stems.zip", 404),
        ("/stems-static/../jobs.py", 404),
    ],
)
def test_wrong_addresses_give_nothing(client, address, status):
    assert client.get(address).status_code == status


def test_the_browser_may_talk_to_this_server_alone(client):
    policy = client.get("/stems-static/player.js").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
