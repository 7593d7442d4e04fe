"""The page's addresses are relative, so it works under any path of a proxy: https://hermes.example/hermes/."""

import json
import re
import shutil
import subprocess

import pytest

from hermes.devserver.server import PROJECT

PAGE = PROJECT / "hermes" / "gateway" / "page"
FILES = sorted(each for each in PAGE.iterdir() if each.suffix in (".html", ".js", ".css"))
PREDICT = """
const asked = [];
globalThis.fetch = async (path) => {
  asked.push(path);
  const urls = { stream: "https://hermes.example/hermes/stream/some-id/some-secret" };
  return { ok: true, json: async () => ({ id: "some-id", urls }) };
};
globalThis.EventSource = class {
  constructor(path) { asked.push(path); }
  addEventListener(name, listener) { if (name === "done") queueMicrotask(listener); }
  close() {}
};
const { findModel, predict } = await import(process.argv[1]);
await findModel().catch(() => {});
await predict("local/model", {}, () => {}, (cancel) => cancel());
console.log(JSON.stringify(asked));
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_address_of_the_page_begins_at_the_root_of_its_host(file):
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href|action)=["']/[^"']*|(?:from|import|fetch\(|url\() ?["'`]/[^"'`]*""", text)
    assert not re.findall(r"location\.(?:origin|host)|\.pathname", text)


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_prediction_is_followed_under_the_path_of_the_page():
    command = ["node", "--input-type=module", "-e", PREDICT, str(PAGE / "api.js")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [
        "v1/models",
        "v1/models/local/model/predictions",
        "v1/predictions/some-id/cancel",
        "stream/some-id/some-secret",
        "v1/predictions/some-id",
    ]
