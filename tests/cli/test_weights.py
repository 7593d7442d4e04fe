"""`python -m hermes weights` fetches, locks, verifies, lists and packs models."""

import json
import re
import tarfile

import numpy
import pytest
from safetensors.numpy import save_file

from tests.support.commands import FILES, MODEL, TOKEN, WEIGHTS, assert_misuse


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_fetch_prints_the_folder_and_logs_what_it_took(run, home):
    code, out, err = run("weights", "fetch", MODEL)
    [folder] = (home / "weights").glob("org--model-*")
    assert (code, out) == (0, f"{folder}\n")
    assert re.fullmatch(r"weights: hf://org/model@main is here, 3 files verified; 0\.0 MB fetched in \d s\n", err)
    assert files_in(folder) == FILES


def test_a_model_that_is_there_needs_no_network(run, server, fetched):
    server.clear()
    assert run("weights", "fetch", MODEL) == (0, f"{fetched}\n", "")
    assert server.requests == []


def test_without_a_source_it_is_the_model_of_the_settings(run, monkeypatch, fetched):
    monkeypatch.setenv("HERMES_MODEL", MODEL)
    assert run("weights", "fetch") == (0, f"{fetched}\n", "")
    assert run("weights", "verify") == (0, "every file is as locked\n", "")


def test_list_prints_what_is_here(run, fetched):
    code, out, err = run("weights", "list")
    commit = json.loads((fetched / ".complete.json").read_text())["lock"]["commit"]
    assert (code, out, err) == (0, f"{MODEL}@main  commit {commit[:12]}  3 files, 0.0 GB  {fetched}\n", "")


def test_list_prints_nothing_where_there_is_nothing(run):
    assert run("weights", "list") == (0, "", "")


def test_lock_writes_what_the_repository_holds_without_fetching_the_large_files(run, server, home):
    code, out, err = run("weights", "lock", MODEL)
    [locked] = json.loads((home / "weights.lock").read_text())["models"]
    assert (code, out, err) == (0, f"{MODEL}@main  commit {locked['commit'][:12]}  3 files, 0.0 GB\n", "")
    assert [(file["name"], file["size"]) for file in locked["files"]] == [
        (name, len(content)) for name, content in FILES.items()
    ]
    assert not [asked.path for asked in server.requests if "safetensors" in asked.path]


def test_what_is_not_as_locked_is_not_fetched(run, home):
    run("weights", "lock", MODEL)
    lock = home / "weights.lock"
    lock.write_text(lock.read_text().replace(f'"size": {len(WEIGHTS)}', '"size": 7'))
    code, out, err = run("weights", "fetch", MODEL)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "model.safetensors is not what weights.lock has: expected 7 bytes with SHA-256 " in err
    assert f", found {len(WEIGHTS)} bytes with SHA-256 " in err


def test_verify_names_the_files_that_are_wrong(run, fetched):
    changed = bytearray(WEIGHTS)
    changed[5000] ^= 1
    (fetched / "model.safetensors").write_bytes(changed)
    (fetched / "tokenizer.json").unlink()
    code, out, err = run("weights", "verify", MODEL)
    wrong, missing = out.splitlines()
    assert (code, missing) == (1, "tokenizer.json is not there")
    assert wrong.startswith("model.safetensors is not what weights.lock has: expected 10240 bytes with SHA-256 ")
    assert err == (
        f"E1000 WeightsError: weights '{MODEL}@main': 2 of its files are wrong; delete them, and fetch it again\n"
    )


def test_the_files_that_were_wrong_are_fetched_again_and_no_others(run, server, fetched):
    (fetched / "model.safetensors").unlink()
    server.clear()
    code, out, _ = run("weights", "fetch", MODEL)
    assert (code, out, files_in(fetched)) == (0, f"{fetched}\n", FILES)
    assert server.bytes_sent == len(WEIGHTS)


FAILURES = {
    "never fetched": (["verify", MODEL], f"'{MODEL}@main': it has not been fetched; run `python -m hermes weights"),
    "no repository": (
        ["fetch", "hf://org/none"],
        "'hf://org/none@main': the repository does not exist or is private",
    ),
    "no revision": (["fetch", f"{MODEL}@v9"], f"'{MODEL}@v9': it has no revision 'v9'; name another revision after"),
    "gated": (["fetch", "hf://org/gated"], "'hf://org/gated@main': the repository is gated; accept its licence on the"),
    "private": (["lock", "hf://org/private"], "'hf://org/private@main': the repository does not exist or is private"),
    "no syntax": (["fetch", "hf://model"], "'hf://model': this is not a repository on the hub; write hf://owner/repo"),
    "no scheme": (["lock", "o/r"], "'o/r': there is no such folder; hf://o/r is the repository on the hub"),
    "no scheme, with a revision": (["fetch", "o/r@v1"], "'o/r@v1': there is no such folder; hf://o/r@v1 is the"),
    "no path": (["verify", "./none"], "'none': there is no such folder; name the folder of a model"),
    "built in": (["lock", "demo"], "'demo': it is used where it is, and is neither fetched nor locked; name a repo"),
    "archive not here": (
        ["pack", "http://h/m.tar", "-o", "x"],
        "'http://h/m.tar': what an archive holds is known when",
    ),
    "no folder": (["pack", "./none", "-o", "x"], "'none': there is no such folder; name the folder of a model"),
    "no tar": (
        ["pack", MODEL, "-o", "/m.zip"],
        "'/m.zip': no tar can be written there; name a file",
    ),
    "compressed": (
        ["pack", MODEL, "-o", "/m.tar.gz"],
        "'/m.tar.gz': no tar can be written there; name a file",
    ),
    "no place": (["pack", MODEL, "-o", "/no/such/x.tar"], "'/no/such/x.tar': it can't be written (No such file or"),
}


@pytest.mark.parametrize("command", ["fetch", "lock", "verify"])
def test_a_folder_with_a_model_is_used_where_it_is(run, tmp_path, command):
    (tmp_path / "config.json").write_text("{}")
    code, _, err = run("weights", command, str(tmp_path))
    assert (code, "it is used where it is, and is neither fetched nor locked; name a repository" in err) == (1, True)


@pytest.mark.parametrize(("arguments", "line"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_exit_code_1_and_one_line(run, arguments, line):
    code, out, err = run("weights", *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"E1000 WeightsError: weights {line}")


def test_a_lock_file_that_is_cut_is_left_for_people_to_mend(run, home):
    (home / "weights.lock").write_text('{"version": 1, "mod')
    for command in ("fetch", "lock", "verify"):
        code, out, err = run("weights", command, MODEL)
        assert (code, out) == (1, "")
        assert err.startswith(f"E1000 WeightsError: weights '{home}/weights.lock': Invalid JSON: EOF while parsing")
    assert (home / "weights.lock").read_text() == '{"version": 1, "mod'


def test_a_setting_that_does_not_exist_is_a_failure(run, monkeypatch):
    monkeypatch.setenv("HERMES_WEIGHT_DIR", "x")
    code, _, err = run("weights", "list")
    assert (code, err.split(";")[0]) == (1, "E1202 InvalidConfiguration: HERMES_WEIGHT_DIR: there is no such setting")


MISUSE = {
    "no command": (["weights", "fetsh"], "No such command 'fetsh'"),
    "two sources": (["weights", "fetch", MODEL, MODEL], "Got unexpected extra argument"),
    "no output": (["weights", "pack", MODEL], "Missing option '--output'"),
    "no JSON": (["weights", "pack", MODEL, "-o", "x", "--engine-args", "{"], "--engine-args: this is not JSON ("),
    "no object": (
        ["weights", "pack", MODEL, "-o", "x", "--engine-args", "[1]"],
        "--engine-args: this is not a JSON object",
    ),
}


@pytest.mark.parametrize(("arguments", "line"), MISUSE.values(), ids=MISUSE)
def test_misuse_is_exit_code_2_and_one_line(run, arguments, line):
    assert_misuse(run, arguments, line)


def test_misuse_is_found_before_the_hub_is_asked(run, server):
    assert run("plan", MODEL, "--gpus", "3090")[0] == 2
    assert run("weights", "pack", MODEL, "-o", "x", "--engine-args", "{")[0] == 2
    assert server.requests == []


def members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_pack_writes_the_model_and_its_settings(run, home):
    out = home / "model.tar"
    settings = ["--prompt-template", "A {prompt}", "--engine-args", '{"dtype": "float16"}']
    assert run("weights", "pack", MODEL, "-o", out, *settings) == (0, f"{out}: 4 files, 0.0 GB\n", "")
    packed = members(out)
    config = json.loads(packed.pop("predictor_config.json"))
    assert (packed, config) == (FILES, {"engine_args": {"dtype": "float16"}, "prompt_template": "A {prompt}"})


def test_a_pack_is_the_same_from_the_hub_the_store_and_a_folder(run, server, fetched, home, monkeypatch):
    run("weights", "pack", fetched, "-o", home / "from_folder.tar")
    server.clear()
    run("weights", "pack", MODEL, "-o", home / "from_store.tar")
    assert server.requests == []
    monkeypatch.setenv("HERMES_WEIGHTS_DIR", str(home / "empty"))
    run("weights", "pack", MODEL, "-o", home / "from_hub.tar")
    packed = {(home / f"from_{name}.tar").read_bytes() for name in ("folder", "store", "hub")}
    assert len(packed) == 1


@pytest.fixture
def draft(tmp_path):
    """A model without a tokenizer, of a kind that can be quantised."""
    folder = tmp_path / "draft"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"model.layers.0.mlp.up_proj.weight": numpy.ones((128, 128), "float32")}, folder / "model.safetensors")
    return folder


WITHOUT_TOKENIZER = {
    "a draft": {"HERMES_SPECULATION": "{draft}"},
    "a draft as a URL": {"HERMES_SPECULATION": "file://{draft}"},
    "another tokenizer": {"HERMES_ENGINE_ARGS": '{{"tokenizer": "/tokenizer"}}'},
}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch warns of itself
@pytest.mark.parametrize("command", ["pack", "quantize"])
@pytest.mark.parametrize("settings", WITHOUT_TOKENIZER.values(), ids=WITHOUT_TOKENIZER)
def test_the_settings_say_which_model_needs_no_tokenizer(run, draft, home, monkeypatch, settings, command):
    out = home / "out.tar"
    code, _, err = run("weights", command, draft, "-o", out)
    assert (code, err.count("\n"), out.exists()) == (1, 1, False)
    assert f"weights '{draft}': there is no tokenizer among its files; add its tokenizer.json" in err
    for name, value in settings.items():
        monkeypatch.setenv(name, value.format(draft=draft))
    assert run("weights", command, draft, "-o", out)[0] == 0
    assert out.exists()


def test_a_repository_without_a_tokenizer_is_not_packed(run, server, home, monkeypatch):
    server.add_repo("org/draft", {name: data for name, data in FILES.items() if name != "tokenizer.json"})
    out = home / "out.tar"
    assert "there is no tokenizer among its files" in run("weights", "pack", "hf://org/draft", "-o", out)[2]
    monkeypatch.setenv("HERMES_SPECULATION", "hf://org/draft")
    assert run("weights", "pack", "hf://org/draft", "-o", out)[0] == 0


def everything_written(home):
    return b"".join(str(path).encode() + path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_no_secret_of_an_archives_url_is_shown_or_kept(run, server, home):
    signed = server.url.replace("//", "//me:s3cr3t@") + "/model.tar?X-Amz-Signature=s3cr3t&versionId=7"
    plain = f"{server.url}/model.tar?versionId=7"
    said = [run("weights", command, signed) for command in ("fetch", "verify", "lock")]
    said += [run("weights", "list"), run("weights", "fetch", signed.replace("model", "other"))]
    assert [code for code, _, _ in said] == [0, 0, 0, 0, 1]
    assert said[2][1] == f"{plain}  3 files, 0.0 GB\n"
    assert said[4][2].startswith(
        f"E1000 WeightsError: weights '{plain.replace('model', 'other')}': there is nothing (HTTP"
    )
    assert "s3cr3t" not in str(said)
    assert b"s3cr3t" not in everything_written(home)


def test_a_token_opens_a_repository_and_is_shown_nowhere(run, home, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = [run("weights", "fetch", f"hf://org/{name}") for name in ("gated", "private", "none")]
    assert [code for code, _, _ in said] == [0, 0, 1]
    assert TOKEN not in str(said)
    assert TOKEN.encode() not in everything_written(home)


def test_the_token_of_the_settings_opens_it_too(run, monkeypatch):
    monkeypatch.setenv("HERMES_HUB_TOKEN", TOKEN)
    assert run("weights", "fetch", "hf://org/private")[0] == 0
