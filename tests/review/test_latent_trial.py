"""The trial of latent codes, by which people judge the setting on weights of their own."""

from pathlib import Path

import torch
from helpers import gpen_formula

from vidrestore.models.restorers.gpen import Gpen
from vidrestore.review.latent_trial import try_codes


def test_a_still_face_changes_less_with_the_codes_of_the_shot(tmp_path: Path) -> None:
    torch.save(gpen_formula.build("gpen-64").state_dict(), path := tmp_path / "gpen.pth")
    restorer = Gpen(path, device=torch.device("cpu"), number_format="float32")
    found = try_codes(restorer, torch.device("cpu"))
    assert 0 < found.change_by_shot < found.change_by_frame
    assert f"by {found.change_by_shot:.2f} levels with restore.latent=shot" in found.verdict
