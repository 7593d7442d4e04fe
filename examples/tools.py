"""Function calling, with the stock example of the model card. Needs a running server (make serve)."""

import sys

from hermes import CogServer, run_tools, tool


@tool
def get_stock_fundamentals(symbol: str) -> dict:
    """Get fundamental data for a given stock symbol.

    Args:
        symbol: The stock symbol.
    """
    # A real one would ask an exchange; these are the figures of the model card.
    known = {"TSLA": {"company_name": "Tesla, Inc.", "sector": "Consumer Cyclical", "pe_ratio": 49.604652, "eps": 4.3}}
    if symbol not in known:
        raise KeyError(f"no stock has the symbol {symbol!r}")
    return {"symbol": symbol, **known[symbol]}


model = CogServer(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:5000")
run = run_tools(
    model,
    "Fetch the stock fundamentals data for Tesla (TSLA)",
    [get_stock_fundamentals],
    # The small model would not call by itself; Hermes does with "auto", the default.
    tool_choice="get_stock_fundamentals",
    max_rounds=1,
    max_tokens=150,
    temperature=0.5,
    seed=1,
)
for message in run.messages:
    print(f"--- {message['role']}\n{message['content']}")
