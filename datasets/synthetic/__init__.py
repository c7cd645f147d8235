"""Generated images of people: stand-ins for the five datasets and a synthetic dataset, deterministic for a seed."""

from datasets.synthetic.cameras import Camera, Climate, camera
from datasets.synthetic.drawing import draw
from datasets.synthetic.layouts import LAYOUTS, OFFICIAL
from datasets.synthetic.people import Person, person
from datasets.synthetic.worlds import SCALES, Scale
from datasets.synthetic.writing import GENERATOR_VERSION, MARKER, foreign, generate

__all__ = [
    "GENERATOR_VERSION",
    "LAYOUTS",
    "MARKER",
    "OFFICIAL",
    "SCALES",
    "Camera",
    "Climate",
    "Person",
    "Scale",
    "camera",
    "draw",
    "foreign",
    "generate",
    "person",
]
