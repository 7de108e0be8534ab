"""Downloads from a hub that runs here."""

import hashlib
import http.server
import json
import threading

import pytest

import pocket_t5

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(family, tmp_path, monkeypatch):
    """A hub with one repository, whose files are those of the family."""
    files = {path.name: path.read_bytes() for path in family.iterdir() if path.suffix in (".json", ".safetensors")}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/api/models/owner/name"):
                siblings = [{"rfilename": name} for name in files]
                self.answer(json.dumps({"sha": COMMIT, "siblings": siblings}).encode(), {})
                return
            data = files.get(self.path.rsplit("/", 1)[-1])
            if data is None:
                self.send_error(404)
                return
            headers = {"ETag": '"' + hashlib.sha256(data).hexdigest() + '"', "X-Repo-Commit": COMMIT}
            begin, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            begin, end = int(begin), min(int(end or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            self.answer(data[begin : end + 1], headers, 206)

        def answer(self, body, headers, status=200):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield files
    server.shutdown()
    thread.join()
    server.server_close()


def test_progress_is_told(hub, family):
    told = []
    model = pocket_t5.Model("hf:owner/name", progress=lambda file, done, size: told.append((file, done, size)))
    text = "the quick fox"
    assert model.outputs(text)[0].ids == pocket_t5.Model(family).outputs(text)[0].ids
    size = len(hub["model.safetensors"])
    weights = [(done, size) for file, done, size in told if file == "model.safetensors"]
    assert weights[0] == (0, size) and weights[-1] == (size, size)
    # The second time it is there.
    told.clear()
    pocket_t5.Model("hf:owner/name", progress=lambda *call: told.append(call))
    assert told == []


def test_what_a_listener_raises_ends_the_download(hub, capfd):
    def refuse(file, done, size):
        if file == "model.safetensors" and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pocket_t5.Model("hf:owner/name", progress=refuse)
    assert capfd.readouterr().err == ""
    assert pocket_t5.Model("hf:owner/name", progress=False).file
