"""prompt_template: the client's own raw prompt, filled by plain replacement in one pass.

Nothing in a template is evaluated: no str.format, no Jinja. `{prompt.__class__}`, `{prompt:>9}` and the braces of JSON
are text like any other.
"""

import logging
import re

from hermes.errors import BadMessages, BadPromptTemplate, PromptTemplateError
from hermes.text import shortened, surrogate_problem

logger = logging.getLogger(__name__)

MAX_STATEMENT = 60  # characters of one in a message

# Other template languages write two braces, so both forms count. Group 1 matches if there are two braces, and then
# spaces may stand inside of them. Group 2 is the name.
PLACEHOLDER = re.compile(r"(\{)?\{(?(1)\s{0,9})(prompt|system_prompt)(?(1)\s{0,9}\})\}")
JINJA_STATEMENT = re.compile(r"\{%-?\s*(?:for|if|elif|else|end\w+|set|macro|block|include|import)\b")


def fill(template: str, prompt: str, system_prompt: str) -> str:
    """The template with {prompt} and {system_prompt} replaced. Inserted text is not searched again."""
    values = {"prompt": prompt, "system_prompt": system_prompt}
    return PLACEHOLDER.sub(lambda placeholder: values[placeholder[2]], template)


def filled_size(template: str, prompt: str, system_prompt: str) -> int:
    """How many bytes `fill` would give. A small template can repeat a prompt many times."""
    sizes = {"prompt": len(prompt.encode()), "system_prompt": len(system_prompt.encode())}
    placeholders = PLACEHOLDER.finditer(template)
    return len(template.encode()) + sum(sizes[each[2]] - len(each[0]) for each in placeholders)


def check(template: str, prompt: str) -> None:
    """Refuse a template that cannot work.

    Raises:
        BadMessages: the template holds a lone surrogate.
        BadPromptTemplate: the prompt is not empty, and the template has no {prompt}.
        PromptTemplateError: the template holds a Jinja statement.
    """
    if problem := surrogate_problem(template):
        raise BadMessages("prompt_template", problem)
    if statement := JINJA_STATEMENT.search(template):
        raise PromptTemplateError(shortened(statement[0], MAX_STATEMENT))
    placeholders = list(PLACEHOLDER.finditer(template))
    if prompt and not any(each[2] == "prompt" for each in placeholders):
        raise BadPromptTemplate
    if doubled := next((each[2] for each in placeholders if each[1]), None):
        logger.info("prompt_template: {{%s}} is read as {%s}", doubled, doubled)
