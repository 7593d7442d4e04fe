import pytest

from hermes.errors import BadMessages, EngineFailed, PromptTooLong
from hermes.gateway.completion_requests import CompletionRequest
from hermes.gateway.openai_requests import ParsedRequest
from hermes.gateway.problems import of_failed
from hermes.gateway.run import Run


def failed(error, **more):
    run = Run(b"{}")
    run.status, run.error = "failed", str(error)
    for name, value in more.items():
        setattr(run, name, value)
    return of_failed(run)


def test_a_prompt_that_is_too_long_is_said_in_openais_words():
    problem = failed(PromptTooLong(9012, 512, 8192), refused=True)
    assert (problem.status, problem.code, problem.param) == (400, "context_length_exceeded", "messages")
    assert problem.message.startswith(
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9012 tokens."
    )


def test_a_prompt_that_is_too_long_is_named_as_the_client_sent_it():
    run = Run(b"{}")
    run.status, run.error, run.refused = "failed", str(PromptTooLong(9012, 512, 8192)), True
    problem = of_failed(run, CompletionRequest.params)
    assert problem.param == "prompt"
    assert "your prompt resulted in 9012 tokens. Please reduce the length of the prompt." in problem.message


def test_a_token_that_there_is_not_is_named_as_the_client_sent_it():
    run = Run(b"{}")
    run.status, run.error, run.refused = "failed", str(BadMessages("prompt_token_ids[5]", "is 99999")), True
    parsed = ParsedRequest("m", False, False, b"{}", (b"1", b"2"), 2, params=CompletionRequest.params)
    problem = parsed.problem_of(3, run)
    assert (problem.param, problem.message) == ("prompt[1][5]", "E1005 BadMessages: prompt[1][5] is 99999")
    assert ParsedRequest("m", False, False, b"{}", (b"1",)).problem_of(0, run).param == "prompt[5]"


@pytest.mark.parametrize(
    ("error", "more", "expected"),
    [
        (BadMessages("messages[0]", "is odd"), {"refused": True}, (400, "E1005", "messages")),
        ("temperature: must be at most 2", {"refused": True}, (400, None, None)),
        (EngineFailed("the engine died"), {}, (503, "E1203", None)),
        ("no slot was free for 600 s", {"retry_after": 60}, (429, "rate_limit_exceeded", None)),
        ("the gateway failed: KeyError: 'x'", {}, (500, None, None)),
    ],
)
def test_each_failure_has_its_status(error, more, expected):
    problem = failed(error, **more)
    assert (problem.status, problem.code, problem.param) == expected


def test_a_body_is_read_by_both_dialects():
    body = failed(EngineFailed("the engine died")).body()
    assert body["detail"] == body["error"]["message"]
    assert (body["title"], body["status"], body["error"]["type"]) == ("Service unavailable", 503, "server_error")
    problem = failed("full", retry_after=7)
    assert problem.headers() == {"Retry-After": "7"}
    assert problem.body()["error"]["type"] == "rate_limit_error"
