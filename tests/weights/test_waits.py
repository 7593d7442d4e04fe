"""How long a host asks to wait, in each form that hosts have for it."""

import time
from email.utils import formatdate

import pytest

from hermes.weights.waits import retry_after

NOW = 1_800_000_000
DATE = formatdate(NOW, usegmt=True)
WAITS = {
    "seconds": ({"Retry-After": "120"}, 120),
    "at once": ({"Retry-After": "0", "RateLimit": '"api";r=0;t=9'}, 0),
    "a fraction": ({"Retry-After": " 1.5 "}, 1.5),
    "a date": ({"Retry-After": formatdate(NOW + 90, usegmt=True)}, 90),
    "a date that is over": ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    "a date without a zone": ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 -0000"}, 0),
    "nothing": ({}, None),
    "empty": ({"Retry-After": ""}, None),
    "below nothing": ({"Retry-After": "-5"}, None),
    "a strange digit": ({"Retry-After": "²"}, None),
    "nonsense, and a limit": ({"Retry-After": "soon", "RateLimit": '"api";r=0;t=9'}, 9),
    "the hub's limit": ({"RateLimit": '"resolvers";r=0;t=178', "RateLimit-Policy": '"fixed";"r";q=3000;w=300'}, 178),
    "of several limits": ({"RateLimit": '"a";r=0;t=55, "b";r=7;t=200,"c"; r=0; t=60'}, 60),
    "in another order": ({"RateLimit": "default;t=30;r=0;pk=:x:"}, 30),
    "a limit that is not reached": ({"RateLimit": '"api";r=3;t=178'}, None),
    "the older draft": ({"RateLimit": "limit=500, remaining=0, reset=178"}, 178),
    "the older draft, with requests left": ({"RateLimit": "limit=500, remaining=2, reset=178"}, None),
    "the oldest draft": ({"RateLimit-Remaining": "0", "RateLimit-Reset": "33"}, 33),
    "as GitHub": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW + 44}"}, 44),
    "with requests left": ({"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": f"{NOW + 44}"}, None),
    "a fraction of a second": ({"X-RateLimit-Reset": f"{NOW + 5}.5"}, 5.5),
    "a name with reset": ({"RateLimit": '"preset-pages";r=0;t=50,"api";r=5;t=300'}, 50),
    "a name that is reset": ({"RateLimit": '"reset";r=5;t=50,"api";r=0;t=30'}, 30),
    "a reset with a date": ({"X-RateLimit-Reset": formatdate(NOW + 7, usegmt=True)}, 7),
    "a reset that is over": ({"X-RateLimit-Reset": f"{NOW - 7}"}, 0),
}


@pytest.mark.parametrize(("headers", "expected"), WAITS.values(), ids=WAITS)
def test_a_host_says_when_to_come_again(headers, expected):
    assert retry_after({"Date": DATE, **headers}, 429) == expected


def test_without_a_date_the_clock_is_ours():
    assert 3590 < retry_after({"Retry-After": formatdate(time.time() + 3600, usegmt=True)}, 503) < 3601


def test_a_rate_limit_is_not_why_a_server_fails():
    assert retry_after({"RateLimit": '"api";r=0;t=178'}, 500) is None
    assert retry_after({"X-RateLimit-Reset": "3000"}, 503) is None
    assert retry_after({"RateLimit": '"api";r=0;t=178', "Retry-After": "3"}, 500) == 3
