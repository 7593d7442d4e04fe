"""Data out of documents, as an instance of a pydantic model. Needs a running server (make serve)."""

import sys
from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from hermes import CogServer, extract


class Invoice(BaseModel):
    number: Annotated[str, Field(pattern=r"^[A-Z]{2}-\d{3,6}$")]
    issued: date
    currency: Literal["EUR", "USD"]
    total: Annotated[float, Field(ge=0, le=100_000)]


DOCUMENTS = [
    "Invoice AB-1234 of 2026-03-01. Two lamps, 80 EUR each.",
    "Reminder: the total of 160 EUR for AB-1234 is due.",
]
model = CogServer(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:5000")
print(repr(extract(model, Invoice, DOCUMENTS, temperature=0, max_tokens=200)))
