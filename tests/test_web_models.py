"""Models in a real browser: compared, downloaded, added, deleted."""

import shutil
from pathlib import Path

import pytest
import torch
from browsing import RATE, choose, engine, needs_chromium, separate, upload
from conftest import make_signal
from test_foreign import hybrid, package
from test_web_adding import write_sheet

from separator.audio.writer import AudioWriter
from separator.resources import DEFAULT_MODEL

pytest_plugins = ["browsing"]
pytestmark = needs_chromium


def test_a_model_is_compared_with_an_ensemble(open_page, songs):
    page = open_page()
    page.get_by_role("tab", name="Compare").click()
    choose(page, "#compare-first", "both")
    choose(page, "#compare-second", "tiny")
    upload(page, "#compare-song", songs / "one.flac")
    page.click("#compare-run")
    player = page.locator("#compare-player stem-player")
    player.get_by_role("button", name="Which is which?").click()
    player.locator(".truth p").first.wait_for()
    truth = player.locator(".truth p").all_inner_texts()
    assert sorted(line.split()[-1] for line in truth) == ["both.", "tiny."]


def test_models_are_compared_blindly(open_page, songs, tmp_path):
    page = open_page()
    with AudioWriter(tmp_path / "vocals.wav", RATE, 2) as writer:
        writer.write(make_signal(6 * RATE, RATE))
    page.get_by_role("tab", name="Compare").click()
    choose(page, "#compare-first", "tiny")
    choose(page, "#compare-second", "twin")
    upload(page, "#compare-song", songs / "one.flac")
    page.get_by_text("Range and references").click()
    upload(page, "#compare-references", tmp_path / "vocals.wav")
    page.click("#compare-run")
    player = page.locator("#compare-player stem-player")
    player.locator(".row").first.wait_for()
    versions = player.locator(".hear button")
    assert versions.all_inner_texts() == ["X", "Y", "Reference", "Original"]
    only_x = [0, *4 * [1], *4 * [0], 0]  # not the original, Y or the reference
    assert engine(page, "gains") == only_x
    assert "tiny" not in player.inner_text() and "twin" not in player.inner_text()
    page.evaluate("document.activeElement.blur()")
    for number in range(4):
        assert versions.nth(number).get_attribute("aria-pressed") == "true"
        page.keyboard.press("o")
    player.get_by_role("button", name="Which is which?").click()
    player.locator(".truth p").first.wait_for()
    truth = player.locator(".truth p").all_inner_texts()
    assert sorted(line.split()[-1] for line in truth) == ["tiny.", "twin."]
    scores = player.locator(".truth td:last-child").all_inner_texts()
    assert len(scores) == 2 and scores[0] == scores[1], "the same weights score alike"
    assert player.locator(".truth .chart .mark").count() == 2


def test_weights_are_downloaded_verified_and_deleted(open_page, weights):
    page = open_page()
    page.get_by_role("tab", name="Models").click()
    page.locator("#zoo-table").get_by_role("button", name="remote", exact=True).click()
    button = page.locator("#zoo-get:enabled")
    button.wait_for()
    right = weights.content
    weights.content = right[::-1]
    weights.rest.set()
    button.click()
    page.get_by_role("alert").filter(has_text="wrong content").wait_for()
    weights.content = right
    weights.rest.clear()
    button.click()
    page.locator("#zoo-status progress[value]").wait_for()  # half of them are here
    weights.rest.set()
    page.locator("#zoo-status").get_by_text("remote is ready to use.").wait_for()
    page.locator("#zoo-facts").get_by_text("downloaded").wait_for()
    page.get_by_role("tab", name="Separate").click()
    page.locator("#model label").filter(has_text="remote").wait_for()
    page.get_by_role("tab", name="Models").click()
    page.locator("#zoo-delete:enabled").click()
    page.locator("#zoo-status").get_by_text("remote was deleted.").wait_for()
    button.wait_for()


def test_models_are_found_by_words_stem_and_licence(open_page):
    page = open_page()
    page.get_by_role("tab", name="Models").click()
    names = page.locator("#zoo-table .pick")
    names.filter(has_text="tiny").wait_for()
    everything = names.count()
    choose(page, "#zoo-stem", "guitar")
    names.filter(has_text="tiny").wait_for(state="detached")
    assert 0 < names.count() < everything
    choose(page, "#zoo-stem", "any")
    names.filter(has_text="tiny").wait_for()
    choose(page, "#zoo-licence", "MIT")
    page.wait_for_function("""() => [...document.querySelectorAll("#zoo-table td:last-child")]
        .every((cell) => cell.innerText === "MIT")""")
    assert 0 < names.count() < everything
    page.get_by_label("Search").fill("random twin")
    names.filter(has_text="tiny").wait_for(state="detached")
    assert names.all_inner_texts() == ["twin"]
    assert page.locator("#zoo-model input").input_value() == DEFAULT_MODEL, "what is chosen stays"


def test_a_card_that_cannot_be_read_is_named_beside_the_others(open_page, models):
    (models / "half.yaml").write_text("name: half\ndescription: 'cut sho")
    try:
        page = open_page()
        page.get_by_role("tab", name="Models").click()
        alert = page.locator("#zoo-left-out").get_by_role("alert")
        alert.get_by_text("Left out: 'half.yaml' is not valid YAML").wait_for()
        page.locator("#zoo-table").get_by_role("button", name="tiny", exact=True).wait_for()
    finally:
        (models / "half.yaml").unlink()


def test_a_checkpoint_is_added_used_and_deleted(open_page, models, songs, tmp_path):
    files = [tmp_path / "New Model.safetensors", tmp_path / "config.yaml"]
    shutil.copy(models / "tiny.safetensors", files[0])
    write_sheet(files[1])
    page = open_page()
    page.get_by_role("tab", name="Models").click()
    page.get_by_text("Add a model").click()
    upload(page, "#zoo-files", *files)
    page.click("#zoo-add")
    page.locator("#zoo-status").get_by_text("new-model was added: drums, bass").wait_for()
    page.locator("#zoo-table").get_by_role("button", name="new-model", exact=True).wait_for()
    page.get_by_role("tab", name="Separate").click()
    page.locator("#model label").filter(has_text="new-model").click()
    player = separate(page, songs / "one.flac")
    player.get_by_text("new-model").wait_for()
    page.get_by_role("tab", name="Models").click()
    page.locator("#zoo-delete:enabled").click()
    page.locator("#zoo-status").get_by_text("new-model was deleted.").wait_for()
    assert not list(models.rglob("new-model*"))


def test_a_checkpoint_without_yaml_is_added(open_page, models, tmp_path):
    page = open_page()
    page.get_by_role("tab", name="Models").click()
    page.get_by_text("Add a model").click()
    page.click("#zoo-add")
    page.get_by_role("alert").filter(has_text="Choose the model's files first").wait_for()
    upload(page, "#zoo-files", package(hybrid(), tmp_path / "955717e8.safetensors"))
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_label("Stems", exact=True).locator("visible=true").fill("left, right")
    page.click("#zoo-add")
    page.locator("#zoo-status").get_by_text("mine was added: left, right.").wait_for()
    assert (models / "mine.yaml").exists()


@pytest.mark.parametrize("with_sheet", [True, False])
def test_a_hostile_checkpoint_is_refused_and_the_app_lives_on(
    open_page, songs, tmp_path, with_sheet
):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    checkpoint, config = tmp_path / "evil.ckpt", tmp_path / "evil.yaml"
    torch.save({"state_dict": {}, "x": Bomb()}, checkpoint)
    files = [checkpoint, write_sheet(config)] if with_sheet else [checkpoint]
    page = open_page()
    page.get_by_role("tab", name="Models").click()
    page.get_by_text("Add a model").click()
    upload(page, "#zoo-files", *files)
    page.click("#zoo-add")
    alert = page.locator("#zoo-status").get_by_role("alert")
    alert.get_by_text(f"'{checkpoint.name}' asks to run").wait_for()
    assert "\n" not in alert.inner_text()
    assert not (tmp_path / "exploded").exists()
    page.get_by_role("tab", name="Separate").click()
    separate(page, songs / "one.flac")
