"""Stand-ins for the weights and networks of several sizes of GPEN."""

from pathlib import Path

from helpers.media import (
    Painter,
)

from vidrestore.common.errors import WeightsError
from vidrestore.models.restorers.adaptive import AdaptiveGpen


class Counted(Painter):
    """A network of a fixed size that notes the shape of what it is given."""

    def __init__(self, size, template="gpen"):
        super().__init__()
        self.size, self.template, self.name = size, template, f"gpen-{size}"
        self.shapes = []

    def __call__(self, windows):
        self.shapes.append(tuple(windows.shape))
        return windows[:, 0].clone()


class Shelf:
    """Weights that are here, and networks that were opened."""

    def __init__(self, *sizes, template="gpen", file=Path(__file__)):
        self.file = file
        self.here = {f"gpen-{size}" for size in sizes}
        self.template = template
        self.asked, self.told = [], []
        self.opened: dict[str, Counted] = {}

    def tiers(self):
        return AdaptiveGpen(self.open, find_weights=self.find, is_available=self.here.__contains__,
                     on_notice=self.told.append)  # fmt: skip

    def find(self, name):
        self.asked.append(name)
        if name not in self.here:
            raise WeightsError(f"{name} is missing")
        return self.file

    def open(self, name):
        assert name not in self.opened
        self.opened[name] = Counted(int(name.removeprefix("gpen-")), self.template)
        return self.opened[name]
