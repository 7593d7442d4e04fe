"""prompt_template: the caller's own raw prompt, filled by plain replacement in one pass.

Nothing in a template is evaluated: no str.format, no Jinja. `{prompt.__class__}`, `{prompt:>9}` and the braces of JSON
are text like any other.
"""

import re

from hermes.errors import BadPromptTemplate, PromptTemplateError

PLACEHOLDER = re.compile(r"\{(prompt|system_prompt)\}")
JINJA_STATEMENT = re.compile(r"\{%-?\s*(?:for|if|elif|else|end\w+|set|macro|block|include|import)\b")


def fill(template: str, prompt: str, system_prompt: str) -> str:
    """The template with {prompt} and {system_prompt} replaced; what they bring in is not looked at again."""
    values = {"prompt": prompt, "system_prompt": system_prompt}
    return PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]], template)


def check(template: str, prompt: str) -> None:
    """Refuse a template that would lose the prompt or that waits for a template engine.

    Raises:
        BadPromptTemplate: there is a prompt and no {prompt}.
        PromptTemplateError: there is a Jinja statement.
    """
    if statement := JINJA_STATEMENT.search(template):
        raise PromptTemplateError(statement[0])
    if prompt and "{prompt}" not in template:
        raise BadPromptTemplate
