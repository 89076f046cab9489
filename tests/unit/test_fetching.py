"""Tests of downloads from a server that stalls, disconnects, sends wrong bytes, lacks ranges, or is unreachable."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pai_bench.datasets import files
from pai_bench.datasets.files import Archive, File, Info, Patience, Source
from pai_bench.errors import PaiBenchError

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
PATIENCE = Patience(timeout=60, rounds=2, pause=0.01)


def md5(raw: bytes) -> str:
    return hashlib.md5(raw).hexdigest()


class Server:
    """A server with files by path, a fault by path, and a log of the requested ranges."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.manners: dict[str, list[str]] = {}
        """By path, one for each request, the last for all that follow: "whole", "break", "slow", "no-range", "404"."""
        self.asked: list[tuple[str, str | None]] = []
        self.tag = '"one"'
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                server.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=partial(self.http.serve_forever, poll_interval=0.01), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, wanted = request.path, request.headers.get("Range")
        self.asked.append((path, wanted))
        manners = self.manners.get(path, ["whole"])
        manner = manners.pop(0) if len(manners) > 1 else manners[0]
        raw = self.files.get(path)
        if raw is None or manner == "404":
            request.send_error(404)
            return
        start = 0
        if wanted and manner != "no-range" and request.headers.get("If-Range") in (None, self.tag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(raw):
                request.send_error(416)
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(raw) - 1}/{len(raw)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(raw) - start))
        request.send_header("ETag", self.tag)
        request.end_headers()
        body = raw[start:]
        if manner == "break":
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            request.connection.close()
            return
        step = 20_000 if manner == "slow" else len(body)
        for first in range(0, len(body), step):
            request.wfile.write(body[first : first + step])
            request.wfile.flush()
            if manner == "slow":
                threading.Event().wait(0.03)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


class Notes:
    """An observer that records messages and progress."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done: list[int] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, name: str, done: int, total: int | None) -> None:
        self.done.append(done)


@pytest.fixture
def blob(server: Server) -> Server:
    """Register a data set of one file, blob/blob.bin, which the server has at /blob.bin."""
    server.files["/blob.bin"] = CONTENT
    archive = Archive("blob.bin", md5(CONTENT), (f"{server.url}/blob.bin",))
    source = Source(Info(1, 1, 1, 1, 1), "blob", (File("blob.bin", md5(CONTENT)),), lambda *_: None, (archive,))  # type: ignore[arg-type,return-value]
    files.register_source("blob", source)
    return server


def fetch(root: Path, mirrors: tuple[str, ...] = (), name: str = "blob") -> tuple[files.Check, Notes]:
    notes = Notes()
    return files.fetch(name, root, notes, mirrors, PATIENCE), notes


@pytest.mark.slow
def test_a_file_is_fetched_checked_and_not_fetched_twice(blob: Server, tmp_path: Path) -> None:
    blob.manners["/blob.bin"] = ["slow"]
    found, notes = fetch(tmp_path)
    assert found.state == "official" and notes.done[-1] == len(CONTENT) and notes.done == sorted(notes.done)
    assert [path.name for path in (tmp_path / "blob").iterdir()] == ["blob.bin"]
    fetch(tmp_path)
    assert len(blob.asked) == 1


def test_an_interrupted_download_is_resumed(blob: Server, tmp_path: Path) -> None:
    blob.manners["/blob.bin"] = ["break", "break", "whole"]
    assert fetch(tmp_path)[0].state == "official"
    half = len(CONTENT) // 2
    assert blob.asked == [("/blob.bin", wanted) for wanted in (None, f"bytes={half}-", f"bytes={half + half // 2}-")]


def test_a_part_of_an_earlier_process_is_resumed(blob: Server, tmp_path: Path) -> None:
    (tmp_path / "blob").mkdir()
    (tmp_path / "blob/blob.bin.part").write_bytes(CONTENT[:1234])
    fetch(tmp_path)
    assert blob.asked == [("/blob.bin", "bytes=1234-")]


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", b"other" * 10])
def test_complete_too_long_and_foreign_parts_are_handled(blob: Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "blob").mkdir()
    (tmp_path / "blob/blob.bin.part").write_bytes(part)
    assert fetch(tmp_path)[0].state == "official"
    assert len(blob.asked) == (1 if part == CONTENT else 2)


def test_a_file_that_changed_on_the_server_is_fetched_from_its_start(blob: Server, tmp_path: Path) -> None:
    blob.manners["/blob.bin"] = ["break", "404"]
    with pytest.raises(files.FetchFailed):
        fetch(tmp_path)
    assert (tmp_path / "blob/blob.bin.part").stat().st_size == len(CONTENT) // 2
    blob.manners["/blob.bin"], blob.tag = ["whole"], '"two"'
    (tmp_path / "blob/blob.bin.part").write_bytes(b"x" * 99)
    notes = fetch(tmp_path)[1]
    assert blob.asked[-1] == ("/blob.bin", "bytes=99-") and notes.done[0] > 99  # answered with the whole file
    assert len(blob.asked) == 3


def test_a_server_without_ranges_restarts_the_download(blob: Server, tmp_path: Path) -> None:
    blob.manners["/blob.bin"] = ["break", "no-range"]
    assert fetch(tmp_path)[0].state == "official"


def test_wrong_bytes_and_missing_files_lead_to_the_next_mirror(blob: Server, tmp_path: Path) -> None:
    blob.files["/wrong/blob.bin"] = b"<html>sign in</html>"
    _, notes = fetch(tmp_path, (f"{blob.url}/wrong", f"{blob.url}/none/"))
    assert [path for path, _ in blob.asked] == ["/wrong/blob.bin", "/none/blob.bin", "/blob.bin"]
    assert any("other content than the original" in line for line in notes.said)


def test_nothing_is_kept_when_every_source_fails(blob: Server, tmp_path: Path) -> None:
    blob.files["/blob.bin"] = CONTENT[:-1] + b"?"
    with pytest.raises(files.FetchFailed, match=f"expected {md5(CONTENT)}") as caught:
        fetch(tmp_path)
    assert "\n" not in caught.value.cause + caught.value.remedy
    assert "login node" in caught.value.remedy and "--from DIR" in caught.value.remedy
    assert not (tmp_path / "blob/blob.bin").exists() and (tmp_path / "blob/blob.bin.part").stat().st_size == 0


def test_an_unreachable_server_is_reported_in_one_line(blob: Server, tmp_path: Path) -> None:
    blob.http.shutdown()
    blob.http.server_close()
    with pytest.raises(files.FetchFailed, match=r"blob\.bin could not be fetched: .*Connection refused"):
        fetch(tmp_path)


@pytest.mark.slow
def test_two_fetches_at_once_fetch_once(blob: Server, tmp_path: Path) -> None:
    blob.manners["/blob.bin"] = ["slow"]
    found: list[tuple[files.Check, Notes]] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [check.state for check, _ in found] == ["official"] * 3
    assert len(blob.asked) == 1 and [path.name for path in (tmp_path / "blob").iterdir()] == ["blob.bin"]


def test_a_file_that_is_not_the_original_is_renamed_and_not_deleted(blob: Server, tmp_path: Path) -> None:
    (tmp_path / "blob").mkdir()
    (tmp_path / "blob/blob.bin").write_bytes(b"mine")
    assert fetch(tmp_path)[0].state == "official"
    assert (tmp_path / "blob/blob.bin.not-original").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_named(blob: Server) -> None:
    with pytest.raises(PaiBenchError, match="--data-dir"):
        files.fetch("blob", Path("/proc/none"), Notes(), (), PATIENCE)


@pytest.fixture
def packed(server: Server) -> Server:
    """Register a data set of two files, packed/a and packed/b, in an archive with further members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("packed/a", "packed/b", "../evil", "/tmp/evil-absolute", "packed/../../evil"):
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    server.files["/packed.tar.gz"] = raw = buffer.getvalue()
    source = Source(
        Info(1, 1, 1, 1, 1),
        "packed",
        tuple(File(name, md5(f"packed/{name}".encode())) for name in "ab"),
        lambda *_: None,  # type: ignore[arg-type,return-value]
        (Archive("packed.tar.gz", md5(raw), (f"{server.url}/packed.tar.gz",), ("a", "b")),),
    )
    files.register_source("packed", source)
    return server


def test_only_the_listed_members_are_extracted_from_an_archive(packed: Server, tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert fetch(root, name="packed")[0].state == "official"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        *("data", "data/packed", "data/packed/a", "data/packed/b")
    ]
    assert not Path("/tmp/evil-absolute").exists()


def test_a_half_unpacked_folder_is_completed(packed: Server, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/a").write_bytes(b"pack")
    assert fetch(tmp_path, name="packed")[0].state == "official"


def test_copies_are_added_from_files_archives_and_links(packed: Server, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "packed.tar.gz").write_bytes(packed.files["/packed.tar.gz"])
    assert files.add("packed", origin, tmp_path / "one").state == "official"
    for number, folder in enumerate((tmp_path / "one", tmp_path / "one/packed")):
        for link in (False, True):
            root = tmp_path / f"{number}{link}"
            assert files.add("packed", folder, root, link=link).state == "official"
            assert (root / "packed/a").is_symlink() is link
            assert sorted(path.name for path in root.iterdir()) == ["packed"]
    with pytest.raises(PaiBenchError, match="does not contain packed: looked for a, b"):
        files.add("packed", tmp_path, tmp_path / "two")
    (tmp_path / "one/packed/a").write_bytes(b"mine")
    with pytest.raises(PaiBenchError, match="not the original file of packed: MD5") as caught:
        files.add("packed", tmp_path / "one", tmp_path / "two")
    assert "--accept-checksum" in caught.value.remedy and not (tmp_path / "two/packed").exists()
    found = files.add("packed", tmp_path / "one", tmp_path / "two", accept_checksum=True)
    assert found.state == "accepted" and files.check("packed", tmp_path / "two").origin == found.origin
    # In place: nothing is copied, the hashes are noted.
    assert files.add("packed", tmp_path / "one", tmp_path / "one", accept_checksum=True).origin == found.origin
    assert sorted(path.name for path in (tmp_path / "one/packed").iterdir()) == ["a", "b"]


def test_every_source_can_be_installed_from_its_archives() -> None:
    for name in files.names():
        source = files.source(name)
        brought = {name for a in source.archives for name in a.members or (a.name.removesuffix(".gz"),)}
        assert not source.archives or {file.name for file in source.files} <= brought
        for archive in source.archives:
            assert all(url.endswith(f"/{archive.name}") and len(archive.md5) == 32 for url in archive.urls)
