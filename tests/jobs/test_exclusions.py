"""Options that exclude each other, by one table."""

from itertools import product
from pathlib import Path

import pytest

from vidrestore import RestoreRequest, load_settings
from vidrestore.common.errors import UsageError
from vidrestore.jobs.exclusions import (
    DEINTERLACED,
    EXCLUSIONS,
    PICTURES,
    WOVEN,
    check_exclusions,
    given_by_fields,
)

PAIRS = [
    (option, other)
    for exclusion in EXCLUSIONS
    for option, other in product(exclusion.options, exclusion.others)
]


@pytest.mark.parametrize(("option", "other"), PAIRS)
def test_every_pair_of_the_table_is_refused_by_name(option, other):
    with pytest.raises(UsageError) as refused:
        check_exclusions({option: True, "--before": None, other: "value"})
    assert other.split()[0] in str(refused.value)
    check_exclusions({option: True, other: None})
    check_exclusions({option: False, other: "value"})


def test_all_others_that_are_given_are_named():
    with pytest.raises(UsageError, match="--plate and --layer cannot be combined with pictures"):
        check_exclusions({PICTURES: True, "--plate": "p", "--layer": "l", "--scale": False})


def test_only_fields_that_are_treated_exclude_anything():
    assert [name for name, applies in given_by_fields("keep").items() if applies] == [WOVEN]
    for mode in ("bob", "frame", "film"):
        assert [name for name, applies in given_by_fields(mode).items() if applies] == [
            DEINTERLACED
        ]
    assert not any(given_by_fields("off").values())


def test_a_request_names_each_option_of_the_table_that_it_has(make_video, tmp_path):
    source = make_video()
    names = set(RestoreRequest(source, tmp_path / "out.mp4").options())
    known = {name for each in EXCLUSIONS for name in (*each.options, *each.others)}
    assert names <= known
    of_the_command_line = {"--output-dir", "--analysis", "--people", "--shots", "--cuts"}
    assert known - names == of_the_command_line | {
        "--framemd5",
        "--report",
        *given_by_fields("off"),
    }


NAMES = {
    "pictures": "pictures",
    "OpenEXR pictures": "OpenEXR pictures",
    "woven fields": "`--deinterlace keep`",
    "deinterlaced frames": "`--deinterlace bob`, `frame`, `film`",
    "--start or --end": "`--start`, `--end`",
    "--workers or --cluster": "`--workers`, `--cluster`",
}


def test_the_page_of_limits_has_the_whole_table():
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|")[:2] for line in page.splitlines() if line.startswith("|")]
    listed = set()
    for option, other in PAIRS:
        names = [NAMES.get(name, f"`{name}`") for name in (option, other)]
        found = [row for row in rows if names[0] in row[0] and names[1] in row[1]]
        assert found, names
        listed.update(tuple(row) for row in found)
    assert len(listed) == len(rows) - 2  # all but the head and the line below it


def test_a_request_is_refused_before_any_file_is_looked_at(tmp_path):
    request = RestoreRequest(
        tmp_path / "missing.mp4", tmp_path / "out.mp4", load_settings(options={"scale.factor": 2}),
        plate=tmp_path / "plate.mp4",
    )  # fmt: skip
    with pytest.raises(UsageError, match="as large as the plate"):
        request.validate()
