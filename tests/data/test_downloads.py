"""What a server on this machine sends instead of a data set, and damaged files of one."""

import gzip
import hashlib
import io
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from cifar_files import write_set
from torchvision.datasets import CIFAR10, FashionMNIST

from snnprune.data import DataOptions, open_data, public
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError

Run = Callable[..., subprocess.CompletedProcess[str]]
EVERY = 401  # bits


class Sending(BaseHTTPRequestHandler):
    """Sends the first bytes of `body` and breaks off."""

    body, sent = b"", 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body[: self.sent])

    do_HEAD = do_GET  # noqa: N815  # the name that the server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Sending]]]:
    """Its address, and what it sends."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Sent(Sending):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Sent) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/", Sent
        found.shutdown()


def archive(members: dict[str, bytes], links: dict[str, str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
        for name, target in links.items():
            about = tarfile.TarInfo(name)
            about.type, about.linkname = tarfile.SYMTYPE, target
            tar.addfile(about)
    return file.getvalue()


def published(
    data: bytes, url: str, sending: type[Sending], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive of CIFAR-10 is this, by the word of whoever publishes it."""
    sending.body, sending.sent = data, len(data)
    monkeypatch.setattr(CIFAR10, "url", f"{url}{CIFAR10.filename}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(data).hexdigest())


def of_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The members of an archive as it should be."""
    place = write_set("cifar10", folder, monkeypatch)
    return {f"{place.name}/{path.name}": path.read_bytes() for path in place.iterdir()}


def test_a_good_archive_is_fetched_unpacked_and_read(
    server: tuple[str, type[Sending]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = of_cifar(tmp_path / "made", monkeypatch)
    published(archive(members, {}), *server, monkeypatch)
    data = open_data("cifar10", options=DataOptions(root=tmp_path / "root", download=True))
    assert isinstance(data.test, ImageSplit)
    assert len(data.test) == 20


@pytest.mark.parametrize("name", ["../outside", "cifar-10-batches-py/../../outside"])
def test_a_member_of_an_archive_that_leads_out_of_the_folder_is_refused(
    name: str,
    server: tuple[str, type[Sending]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
) -> None:
    members = of_cifar(tmp_path / "made", monkeypatch)
    outside = tmp_path / "outside"
    published(archive({name: b"x", **members}, {}), *server, monkeypatch)
    flags = ("--data-root", tmp_path / "root", "--download", "--out", tmp_path / "run")
    done = run("train", "--recipe", "cifar10", *flags)
    assert done.returncode == 3
    assert done.stderr.count("error: ") == 1
    assert "cifar10 cannot be downloaded" in done.stderr
    assert "outside" in done.stderr
    assert not outside.exists()


def test_a_link_in_an_archive_that_leads_out_of_the_folder_is_refused(
    server: tuple[str, type[Sending]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = archive(of_cifar(tmp_path / "made", monkeypatch), {"away": str(tmp_path)})
    published(data, *server, monkeypatch)
    root = tmp_path / "root"
    with pytest.raises(InputError, match="cannot be downloaded"):
        open_data("cifar10", options=DataOptions(root=root, download=True))
    assert not (root / "away").is_symlink()


def test_half_a_download_is_told_and_never_used(
    server: tuple[str, type[Sending]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, sending = server
    published(archive(of_cifar(tmp_path / "made", monkeypatch), {}), url, sending, monkeypatch)
    root, whole = tmp_path / "root", sending.sent
    sending.sent = whole // 2
    with pytest.raises(InputError, match="cannot be downloaded"):
        open_data("cifar10", options=DataOptions(root=root, download=True))
    with pytest.raises(InputError, match="is not there, looked for data_batch_1"):
        open_data("cifar10", options=DataOptions(root=root))
    sending.sent = whole  # the next time the half of it is replaced
    assert open_data("cifar10", options=DataOptions(root=root, download=True)).classes == 10


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A tiny Fashion-MNIST of packed files."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    drawn = torch.Generator().manual_seed(0)
    for part, count in (("train", 12), ("t10k", 4)):
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=drawn)
        labels = torch.arange(count).remainder(10).to(torch.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            data = gzip.compress(public.encode_idx(values), mtime=0)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(data)
    return folder


def opened(root: Path) -> list[torch.Tensor]:
    data = open_data("fashion-mnist", options=DataOptions(root=root))
    assert isinstance(data.train, ImageSplit)
    assert data.train.labels is not None
    return [data.train.images, data.train.labels]


def test_half_a_packed_file_is_told_and_to_be_deleted(packed: Path, tmp_path: Path) -> None:
    path = packed / "train-images-idx3-ubyte.gz"
    data = path.read_bytes()
    for kept in (1, 10, len(data) // 2, len(data) - 9, len(data) - 1):
        path.write_bytes(data[:kept])
        with pytest.raises(InputError) as caught:
            opened(tmp_path)
        assert caught.value.file == str(path)
        assert caught.value.hint == "delete it and get it again"


@pytest.mark.slow
def test_a_flipped_bit_in_a_packed_file_is_told_or_changes_no_image(
    packed: Path, tmp_path: Path
) -> None:
    path, expected = packed / "train-images-idx3-ubyte.gz", opened(tmp_path)
    data, refused = path.read_bytes(), 0
    bits = range(0, 8 * len(data), EVERY)
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found = opened(tmp_path)
        except InputError as error:
            refused += error.hint == "delete it and get it again"
            continue
        assert all(map(torch.equal, found, expected)), bit  # it was in the header of gzip
    assert refused > 0.99 * len(bits)


def test_a_set_of_nobody_s_is_looked_for_in_named_places(run: Run, tmp_path: Path) -> None:
    flags = ("--data-root", tmp_path, "--out", tmp_path / "run")
    done = run("train", "--recipe", "fashion-mnist-mini", "--set", "data.name=mnist", *flags)
    assert done.returncode == 3
    for word in ("train-images-idx3-ubyte.gz", f"{tmp_path}/MNIST/raw", f"{tmp_path}/mnist"):
        assert word in done.stderr
    assert "--download" in done.stderr
    assert FashionMNIST.__name__ not in done.stderr
