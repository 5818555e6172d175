from pathlib import Path

import pytest

from separator.audio.naming import DEFAULT_TEMPLATE, check_template, stem_path
from separator.errors import ConfigError


@pytest.mark.parametrize(
    "template", [DEFAULT_TEMPLATE, "{model}/{track} - {stem}.{ext}", "{stem}.{ext}"]
)
def test_good_templates_pass(template):
    check_template(template)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{track}.{ext}", "needs {stem}"),
        ("{track}/{stm}.{ext}", "Did you mean 'stem'"),
        ("../{stem}.{ext}", "inside the output folder"),
        ("/etc/{stem}.{ext}", "inside the output folder"),
        ("{stem", "can't be read"),
        ("{}/{stem}", "unknown field"),
        ("{track}/{stem}.flac", "must end in .{ext}"),
        ("{track}/{stem}", "must end in .{ext}"),
        ("{stem!x}.{ext}", "its name alone"),
        ("{stem:d}.{ext}", "its name alone"),
        ("{stem:{foo}}.{ext}", "its name alone"),
    ],
)
def test_bad_templates_are_refused(template, reason):
    with pytest.raises(ConfigError, match=reason):
        check_template(template)


def test_brackets_braces_and_unicode_in_names_survive():
    path = stem_path(DEFAULT_TEMPLATE, track="絆 [Live] {1}", stem="a/b", ext="wav", model="m")
    assert path == Path("絆 [Live] {1}/a_b.wav")
