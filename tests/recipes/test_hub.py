"""Pushing a run and having it back, against a server that speaks the hub's language on loopback."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

import cbmf
from cbmf.cache.errors import RunError
from cbmf.recipes.hub import model_card, push_to_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as pushing and loading a model takes."""

    files: ClassVar[dict[str, bytes]] = {}
    created: ClassVar[list[dict]] = []

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            return self._json({"url": f"{self._root}/me/run", "name": "me/run"})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            told = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            return self._json({"files": told})
        if "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            where = f"{self._root}/me/run/commit/{COMMIT}"
            return self._json({"success": True, "commitOid": COMMIT, "commitUrl": where})
        return self._json({"error": self.path}, 404)

    def _chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.path.startswith("/api/models/me/run/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in self.files.items()
            ]
            return self._json(entries)
        if self.path.startswith("/api/models/me/run"):
            siblings = [{"rfilename": name} for name in self.files]
            return self._json(
                {"id": "me/run", "modelId": "me/run", "sha": COMMIT, "siblings": siblings}
            )
        name = self.path.partition(f"/me/run/resolve/{COMMIT}/")[2]
        if name not in self.files:
            return self._json({"error": "not found"}, 404)
        content = self.files[name]
        self.send_response(200)
        self.send_header("ETag", f'"{hash(content) & (2**64 - 1):x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
        return None

    @property
    def _root(self):
        return f"http://{self.headers['Host']}"

    def _json(self, value, status=200):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    Hub.files, Hub.created = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
    yield Hub
    server.shutdown()
    server.server_close()


def test_a_pushed_run_comes_back_whole(maker, hub, tmp_path):
    _, run = maker("pooled")
    push_to_hub(run.folder, "me/run", token="hf_token", private=True)
    assert hub.created[0]["name"] == "run"
    assert {
        "config.json",
        "model.safetensors",
        "README.md",
        "history.jsonl",
        "summary.json",
    } <= set(hub.files)
    assert "baselines/linear/model.safetensors" in hub.files
    assert hub.files["model.safetensors"] == (run.folder / "model.safetensors").read_bytes()
    pipeline = cbmf.load_pipeline("me/run")
    ours = cbmf.load_pipeline(run)
    assert (pipeline.embed_texts(["a red star"]) == ours.embed_texts(["a red star"])).all()


def test_the_card_holds_the_measured_tables_and_the_way_to_use_it(maker):
    _, run = maker("pooled")
    card = model_card(run)
    assert card.startswith("---\nlibrary_name: cbmf\nlicense: apache-2.0")
    assert "`demo-vit` (image) and `demo-bert` (text)" in card
    assert ("R@10" in card and "raw" in card) or "linear heads" in card
    assert "load_pipeline" in card


def test_what_the_hub_does_not_have_is_one_line(hub):
    with pytest.raises(RunError, match="you/other: no such folder, and not on the hub"):
        cbmf.load_pipeline("you/other")
