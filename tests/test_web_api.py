"""The web app for programs: `gradio_client`, what it gets, and what nobody gets."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from conftest import make_signal, read_all

from separator.audio.reader import probe
from separator.audio.writer import AudioWriter
from separator.resources import data_folder

RATE = 44100
README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module")
def server(tiny_models, tmp_path_factory):
    from separator.web.app import Server
    from separator.web.settings import AppSettings

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEPARATOR_MODELS", str(tiny_models))
        patch.setenv("SEPARATOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        with Server(AppSettings(port=0, device="cpu")) as server:
            yield server


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    from gradio_client import Client

    folder = tmp_path_factory.mktemp("downloads")
    client = Client(server.url, verbose=False, download_files=folder, analytics_enabled=False)
    yield client
    client.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A song of one second."""
    path = tmp_path_factory.mktemp("songs") / "song.flac"
    with AudioWriter(path, RATE, 2, bit_depth=24) as writer:
        writer.write(make_signal(RATE, RATE))
    return path


def call(server, endpoint: str, *values: object) -> tuple[str, object]:
    """Call an endpoint as any program could; return the event and its data."""
    address = f"{server.url}gradio_api/call/{endpoint}"
    event = httpx.post(address, json={"data": list(values)}).json()["event_id"]
    answer = httpx.get(f"{address}/{event}", timeout=300).text
    name, data = re.findall(r"event: (\w+)\ndata: (.*)", answer)[-1]
    return name, json.loads(data)


def test_a_program_gets_stems_that_sum_to_its_song(client, clip):
    from gradio_client import handle_file

    stems = client.predict(
        song=handle_file(clip),
        model="tiny",
        stems=["vocals"],
        residual="rest",
        api_name="/separate",
    )
    assert {stem: Path(path).name for stem, path in stems.items()} == {
        "vocals": "vocals.wav",
        "rest": "rest.wav",
    }
    total = read_all(Path(stems["vocals"])) + read_all(Path(stems["rest"]))
    assert np.abs(total - read_all(clip)).max() < 2**-21


def test_the_example_of_the_readme_is_true(server, clip, tmp_path):
    text = README.read_text(encoding="utf-8")
    example = re.search(r"```python\n(from gradio_client .*?)```", text, re.DOTALL)
    assert example, "the README shows how programs use the web app"
    here = f'"{server.url}", download_files={str(tmp_path)!r}'
    code = example[1].replace('"http://127.0.0.1:7860"', here).replace("song.mp3", str(clip))
    names: dict[str, object] = {}
    exec(code, names)
    for stem in ("drums", "bass", "other", "vocals"):
        assert read_all(Path(names["stems"][stem])).shape == (2, RATE)
    names["client"].close()


def test_programs_see_the_models_and_the_types(client):
    models = {model["name"]: model for model in client.predict(api_name="/models")}
    assert models["tiny"]["stems"] == ["drums", "bass", "other", "vocals"]
    assert models["tiny"]["ready"] is True
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/separate", "/models"}, "the pages' own events stay private"
    parameters = {each["parameter_name"]: each for each in endpoints["/separate"]["parameters"]}
    assert parameters["model"]["python_type"]["type"] == "str"
    assert parameters["start"]["python_type"]["type"] == "float"
    assert parameters["shifts"]["python_type"]["type"] == "int"
    described = endpoints["/separate"]["description"]
    assert all(f"{name}: " in described for name in parameters)


def test_programs_choose_what_the_page_hides_under_advanced(client, clip):
    from gradio_client import handle_file

    options = {"bit_depth": 16, "precision": "float32", "overlap": 0.5, "shifts": 1}
    stems = client.predict(
        song=handle_file(clip),
        model="tiny",
        start=0.25,
        duration=0.5,
        audio_format="flac",
        **options,
        api_name="/separate",
    )
    info = probe(Path(stems["bass"]))
    assert (info.bit_depth, info.duration, Path(stems["bass"]).suffix) == (16, 0.5, ".flac")


def test_only_this_computer_is_served_and_nothing_is_reported(server):
    from gradio import analytics

    assert server.url.startswith("http://127.0.0.1:")
    assert not analytics.analytics_enabled()
    config = httpx.get(f"{server.url}config").json()
    assert config["analytics_enabled"] is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "tinny"}, "tiny"),
        ({"stems": ["kazoo"]}, "kazoo"),
        ({"start": 5.0}, "ends at 1"),
        ({"overlap": 2.0}, "overlap"),
        ({"precision": "half"}, "precision"),
        ({"start": "soon"}, "'start': input should be a valid number, got 'soon'"),
        ({"stems": "vocals"}, "'stems': input should be a valid list"),
        ({"shifts": 1.5}, "'shifts': input should be a valid integer"),
        ({"shifts": 5000}, "at most 32"),
        ({"model": None}, "'model': input should be a valid string"),
        ({"overlap": [0.5]}, "'overlap': input should be a valid number"),
    ],
)
def test_wrong_values_are_told_in_one_line(client, clip, values, message):
    from gradio_client import handle_file

    with pytest.raises(Exception, match=message) as caught:
        client.predict(song=handle_file(clip), api_name="/separate", **{"model": "tiny", **values})
    assert "Traceback" not in str(caught.value)


def test_no_file_of_the_server_passes_for_an_upload(server):
    outside = data_folder("models") / "demo" / "mixture.flac"
    inside = server.service.uploads.folder
    for path in (str(outside), f"{inside}/../../{outside}", "", None, 5):
        body = {"data": [{"path": path}, "tiny"]}
        assert httpx.post(f"{server.url}gradio_api/call/separate", json=body).status_code == 403
    assert call(server, "separate", str(outside), "tiny")[0] == "error"


def test_a_leftover_cannot_be_named_out_of_its_folder(client, clip):
    from gradio_client import handle_file

    before = set(clip.parent.iterdir())
    stems = client.predict(
        song=handle_file(clip),
        model="tiny",
        stems=["vocals"],
        residual="../../out",
        api_name="/separate",
    )
    assert set(stems) == {"vocals", "out"}
    assert set(clip.parent.iterdir()) == before


def test_songs_of_the_page_are_not_served_as_files(server, clip):
    from separator.web.service import Request

    job = server.service.submit(Request(clip, "tiny"), "somebody/separate")
    assert job.ended.wait(300)
    track = job.result.tracks[1].path
    for address in (
        str(track),
        f"{server.service.uploads.folder}/../songs/{track.parent.name}/01.wav",
    ):
        assert httpx.get(f"{server.url}gradio_api/file={quote(address)}").status_code == 403
    assert httpx.get(f"{server.url}stems/{job.result.token}/track/1").status_code == 200


@pytest.mark.slow
def test_the_program_serves_and_cleans_up_when_it_is_stopped(tiny_models, tmp_path):
    root = README.parent
    command = [sys.executable, str(root / "app.py"), "--port", "0", "--device", "cpu"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "TMPDIR": str(tmp_path),
        "SEPARATOR_MODELS": str(tiny_models),
    }
    program = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        page = httpx.get(program.stdout.readline().strip(), timeout=300)
        assert page.status_code == 200 and "Separator" in page.text
        assert list(tmp_path.glob("separator-web-*"))
        program.terminate()
        assert program.wait(300) == 130
    finally:
        program.kill()
        program.communicate()
    assert not list(tmp_path.glob("separator-web-*"))


def test_a_password_keeps_strangers_out(tiny_models, monkeypatch):
    from starlette.testclient import TestClient

    from separator.web.app import build_app
    from separator.web.service import Service
    from separator.web.settings import AppSettings

    monkeypatch.setenv("SEPARATOR_MODELS", str(tiny_models))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # so that it is put back afterwards
    service = Service(AppSettings(host="0.0.0.0", user="me", password="secret", device="cpu"))
    with TestClient(build_app(service)) as browser:
        for address in ("config", "gradio_api/info", "gradio_api/file=x"):
            assert browser.get(f"/{address}").status_code == 401, address
        wrong = {"username": "me", "password": "guess"}
        assert browser.post("/login", data=wrong).status_code == 400
        assert browser.get("/config").status_code == 401
        assert browser.post("/login", data={**wrong, "password": "secret"}).status_code == 200
        assert browser.get("/config").status_code == 200
    service.close()
