"""BSDS300 as a builder of TensorFlow Datasets. Needs no TensorFlow."""

import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from jaxsr.datasets import bsds300_archive

_CITATION = """
@inproceedings{martin2001database,
  author = {D. Martin and C. Fowlkes and D. Tal and J. Malik},
  title = {A Database of Human Segmented Natural Images and its Application to Evaluating
           Segmentation Algorithms and Measuring Ecological Statistics},
  booktitle = {Proc. 8th Int'l Conf. Computer Vision},
  year = {2001},
  volume = {2},
  pages = {416--423},
}
"""


class BSDS300(tfds.core.GeneratorBasedBuilder):
    """The 300 photographs of the Berkeley Segmentation Dataset: 200 to train on, 100 to test with.

    An example is an `image`, kept as the JPEG file it is, and its `id`; they come in the order of
    the authors' lists. Written as ArrayRecord: read with `as_data_source`.

    The archive is not fetched by TFDS's download manager, which without a network tries for over
    three minutes.

    Args:
      source: as in `bsds300_archive.read`: None downloads the archive.
      options: of `tfds.core.GeneratorBasedBuilder`, such as `data_dir`.
    """

    name = "bsds300"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, source: pathlib.Path | None = None, **options: Any):
        self._source = source
        super().__init__(**{"file_format": "array_record", **options})

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Natural photographs of 481x321 or 321x481 pixels, without segmentations.",
            features=tfds.features.FeaturesDict({"image": image, "id": tfds.features.Text()}),
            disable_shuffling=True,
            homepage=bsds300_archive.HOMEPAGE,
            citation=_CITATION,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        splits = bsds300_archive.read(self._source)
        return {split: self._generate_examples(files) for split, files in splits.items()}

    def _generate_examples(self, files: dict[str, bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (key, jpeg) in enumerate(files.items()):  # TFDS sorts by the index
            yield index, {"image": jpeg, "id": key}
