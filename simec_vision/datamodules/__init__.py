"""Where images and their similarities come from: one file a source."""

from simec_vision.datamodules.cifar10 import CIFAR10 as CIFAR10
from simec_vision.datamodules.image_data import Batches as Batches
from simec_vision.datamodules.image_data import ImageDataModule as ImageDataModule
from simec_vision.datamodules.image_data import Normalisation as Normalisation
from simec_vision.datamodules.image_table import ImageTable as ImageTable
from simec_vision.datamodules.shards import Shards as Shards
from simec_vision.datamodules.shoes import DrawnShoes as DrawnShoes
from simec_vision.datamodules.zappos50k import Zappos50K as Zappos50K

SOURCES: dict[str, type[ImageDataModule]] = {
    source.__name__: source for source in (DrawnShoes, Zappos50K, CIFAR10, ImageTable, Shards)
}
"""The sources of images by their class names, which options use."""
