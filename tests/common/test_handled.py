"""What the line of the log says of an exception that the program handles."""

import logging

import pytest

from vidrestore.common.files import remove_tree
from vidrestore.common.handled import log_handled, logged


def test_the_line_names_the_error_and_where_it_came_from(caplog):
    def reads() -> None:
        raise FileNotFoundError("tape.mp4")

    with caplog.at_level(logging.DEBUG, "vidrestore"):
        with logged(OSError):
            reads()
        with pytest.raises(KeyError), logged(OSError):
            raise KeyError
        log_handled(ValueError("never raised"))
    first, second = caplog.messages
    assert "reads" in first
    assert "FileNotFoundError('tape.mp4')" in first
    assert "never raised" in second


def test_a_folder_that_cannot_be_removed_leaves_a_line(tmp_path, caplog):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below/file").touch()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with caplog.at_level(logging.DEBUG, "vidrestore"):
        remove_tree(folder)
        assert not folder.exists()
        assert (tmp_path / "elsewhere").is_dir()
        assert not caplog.messages
        remove_tree(folder)
    assert any("FileNotFoundError" in message for message in caplog.messages)
