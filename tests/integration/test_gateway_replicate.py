"""Replicate's official client, unmodified, against the gateway and the real engine."""

from contextlib import closing, contextmanager

import httpx
import pytest
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.webhook import Webhooks, WebhookSigningSecret

from tests.support.asking import three_chances, until
from tests.support.gateways import MODEL, gateway_before
from tests.support.scripted import Handler, serving

ASKED = {"prompt": "Write a short story about a lighthouse.", "temperature": 0, "max_tokens": 30, "min_tokens": 30}
LONG = ASKED | {"min_tokens": 1900, "max_tokens": 1900}


@contextmanager
def client_of(gateway):
    client = Client(api_token="none", base_url=gateway.url)
    yield client
    client._client.close()  # it has no close of its own


@pytest.fixture(scope="module")
def client(quick_gateway):
    with client_of(quick_gateway) as client:
        yield client


def events_of(text):
    whole = text.split("\n\n")[:-1]
    return [dict(line.split(": ", 1) for line in each.split("\n")) for each in whole]


def test_run_gives_the_pieces_and_together_the_answer(client):
    for ref in (MODEL, f"{MODEL}:{client.models.get(MODEL).latest_version.id}"):
        output = client.run(ref, input=ASKED)
        text = "".join(map(str, output))
        assert len(text) > 60
        assert text == "".join(client.run(ref, input=ASKED, wait=False))


def test_stream_comes_piece_by_piece(client):
    pieces = map(str, client.stream(MODEL, input=ASKED))
    assert "".join(pieces) == "".join(client.run(MODEL, input=ASKED))
    first = next(client.stream(MODEL, input=LONG))
    latest = client.predictions.list().results[0]
    status = latest.status
    latest.cancel()
    assert (bool(str(first)), status) == (True, "processing"), "the first piece comes before the end"


def test_a_prediction_can_be_made_by_version_by_model_and_by_deployment(client):
    version = client.models.get(MODEL).latest_version
    assert len(version.id) == 64
    made = [
        client.predictions.create(version=version.id, input=ASKED),
        client.predictions.create(version=MODEL, input=ASKED),
        client.models.predictions.create(MODEL, input=ASKED),
        client.deployments.predictions.create(MODEL, input=ASKED),
    ]
    texts = set()
    for prediction in made:
        prediction.wait()
        assert (prediction.status, prediction.error) == ("succeeded", None)
        assert prediction.metrics["output_token_count"] == 30
        texts.add("".join(prediction.output))
    assert len(texts) == 1
    listed = client.predictions.list().results
    assert [each.id for each in listed[:4]] == [each.id for each in reversed(made)]


def test_models_versions_deployments_and_the_account_are_there(client):
    assert [model.name for model in client.models.list().results] == ["model"]
    model = client.models.get(MODEL)
    [version] = model.versions.list()
    assert (
        model.versions.get(version.id).openapi_schema["components"]["schemas"]["Output"]["x-cog-array-type"]
        == "iterator"
    )
    assert client.deployments.get(MODEL).current_release.version == version.id
    assert client.accounts.current().username


@three_chances
def test_cancel_frees_the_slot_and_keeps_what_was_said(client, quick_gateway):
    prediction = client.predictions.create(version=MODEL, input=LONG, stream=True)
    with closing(prediction.stream()) as stream:
        next(stream)
        prediction.cancel()
    took = until(lambda: quick_gateway.running == 0, 5, "the slot is free")
    assert took < 2
    prediction.reload()
    assert prediction.status == "canceled"
    assert prediction.output


def test_an_answer_that_takes_longer_than_the_wait_is_not_taken_as_final(gateway):
    inputs = ASKED | {"min_tokens": 60, "max_tokens": 60}
    response = gateway.post("/v1/predictions", {"version": MODEL, "input": inputs}, Prefer="wait=1")
    body = response.json()
    assert (response.status_code, response.headers["preference-applied"]) == (201, "wait")
    assert (body["status"], body["output"]) == ("starting", None)
    with client_of(gateway) as client:
        prediction = client.predictions.get(body["id"])
        prediction.wait()
    assert prediction.metrics["output_token_count"] == 60


def test_a_lost_stream_goes_on_where_it_was(quick_gateway):
    stream = quick_gateway.post("/v1/predictions", {"version": MODEL, "input": ASKED}).json()["urls"]["stream"]
    seen = ""
    with httpx.stream("GET", stream, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for text in response.iter_text():
            seen += text
            if seen.count("event: output") >= 3:
                break
    lost = events_of(seen)  # without what was cut off
    rest = events_of(httpx.get(stream, headers={"Last-Event-ID": lost[-1]["id"]}, timeout=60).text)
    whole = events_of(httpx.get(stream, timeout=60).text)
    texts = [event["data"] for event in whole if event["event"] == "output"]
    assert [event["data"] for event in lost + rest if event["event"] == "output"] == texts
    assert rest[-1]["event"] == whole[-1]["event"] == "done"


def test_inputs_that_are_wrong_fail_as_on_replicate(client):
    with pytest.raises(ModelError, match="E1003 BadPromptTemplate"):
        client.run(MODEL, input={"prompt": "Hi", "prompt_template": "nothing"}, wait=False)
    with pytest.raises(ReplicateError, match=r"input.temperature: 9 is greater than the maximum of 2") as refused:
        client.predictions.create(version=MODEL, input={"temperature": 9})
    assert refused.value.status == 422


def test_what_is_not_there_is_a_problem_that_the_client_can_read(client):
    with pytest.raises(ReplicateError) as missing:
        client.predictions.get("nothing")
    assert (missing.value.status, missing.value.title) == (404, "Not found")
    assert "nothing" in missing.value.detail
    with pytest.raises(ReplicateError, match="there is no 'other/model' here"):
        client.models.get("other/model")


def test_webhooks_are_signed_and_filtered(quick_server):
    got = []

    class Receiver(Handler):
        def do_POST(self):  # noqa: N802
            got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer({})

    with serving(Receiver) as url, gateway_before(quick_server.url, options=["--webhooks", "127.0.0.1"]) as hooking:
        with client_of(hooking) as client:
            prediction = client.predictions.create(
                version=MODEL, input=ASKED, webhook=url, webhook_events_filter=["start", "output", "completed"]
            )
            prediction.wait()
            until(lambda: b'"status":"succeeded"' in got[-1][1] if got else False, 10, "the last webhook")
        secret = WebhookSigningSecret(key=hooking.get("/v1/webhooks/default/secret").json()["key"])
    for headers, body in got:
        Webhooks.validate(
            headers={name.lower(): value for name, value in headers.items()}, body=body.decode(), secret=secret
        )
    assert 2 <= len(got) < 20, "at most one each 500 ms"


def test_a_webhook_cannot_shut_down_the_cog_server(quick_server, client):
    """Cog's POST /shutdown is open to whoever reaches its port."""
    asked = {"version": MODEL, "input": ASKED, "webhook_events_filter": ["start"]}
    shutdown = f"{quick_server.url}/shutdown"
    with pytest.raises(ReplicateError, match="webhooks are disabled"):
        client.predictions.create(webhook=shutdown, **asked)
    with gateway_before(quick_server.url, options=["--webhooks", "*", "--webhooks", "127.0.0.1"]) as hooking:
        for url in (shutdown, shutdown.replace("127.0.0.1", "localhost"), f"{hooking.url}/v1/predictions"):
            assert hooking.post("/v1/predictions", asked | {"webhook": url}).status_code == 422
    assert "".join(client.run(MODEL, input=ASKED))


def test_a_deadline_ends_a_prediction_that_runs(client, quick_gateway):
    body = {"version": MODEL, "input": LONG}
    prediction = quick_gateway.post("/v1/predictions", body, **{"Cancel-After": "1s", "Prefer": "Wait=20"}).json()
    assert prediction["status"] == "canceled"
    assert prediction["output"]
    until(lambda: quick_gateway.running == 0, 5, "the slot is free")


def test_tokens_separate_people(quick_server):
    with gateway_before(
        quick_server.url, environment={"HERMES_GATEWAY_TOKENS": "anna:first-token,bert:second-token"}
    ) as gateway:
        anna, bert = (Client(api_token=token, base_url=gateway.url) for token in ("first-token", "second-token"))
        made = anna.predictions.create(version=MODEL, input=ASKED)
        made.wait()
        with pytest.raises(ReplicateError, match="there is no prediction"):
            bert.predictions.get(made.id)
        assert [each.id for each in anna.predictions.list().results] == [made.id]
        assert bert.predictions.list().results == []
        assert bert.accounts.current().username == "bert"
        for client in (anna, bert):
            client._client.close()


def test_a_gateway_before_replicate_answers_as_the_model_does(quick_gateway, client):
    """The first gateway stands for Replicate here: it speaks its API, and the model is the real one."""
    environment = {"REPLICATE_BASE_URL": quick_gateway.url, "REPLICATE_API_TOKEN": "none"}
    with gateway_before(f"replicate:{MODEL}", environment=environment) as second:
        expected = "".join(client.run(MODEL, input=ASKED))
        with client_of(second) as through:
            assert "".join(through.run(MODEL, input=ASKED)) == expected
            assert "".join(map(str, through.stream(MODEL, input=ASKED))) == expected
            prediction = through.predictions.create(version=MODEL, input=LONG, stream=True)
            with closing(prediction.stream()) as stream:
                next(stream)
                prediction.cancel()
        until(lambda: quick_gateway.running == 0, 5, "the slot is free")
