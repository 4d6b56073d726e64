# SPDX-License-Identifier: Apache-2.0
"""The condition of a job: a question about this device's attributes, which it answers itself before any handler runs.

    {"operation": "diagnostics", "condition": "engineStarts >= 20000 and site == 'berlin'"}

    condition  = comparison { "and" comparison }           at most 256 characters, blanks between the parts
    comparison = name ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) value
    name       = letters, digits, _ and -, for a member of a flat dict with a dot: memory.free
    value      = number (-12, 0.5, 1e6) | 'text' (without a quote in it) | true | false (only with == and !=)
Texts compare by code points ('1.10' < '1.9'). Values of different kinds are not equal, and neither less nor greater.
"""

from edgeagent.compat import Any, const
from edgeagent.errors import JobFailed, JobRejected

_CHARS = const(256)
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."


class JobSkipped(JobFailed):
    """The device is not one of those that the job means: reported SUCCEEDED, with `skipped` and the reason."""

    status = "SUCCEEDED"


def check(text: object, attributes: "dict[str, Any]") -> None:
    """Return if the condition is met. attributes: Attributes.full().

    Raises JobSkipped with the first comparison that is not met and the attribute's present value; JobRejected with the
    position, from 1, of what is malformed, whatever the attributes are.
    """
    if not isinstance(text, str) or len(text) > _CHARS:
        raise JobRejected("condition: must be text of at most %d characters" % _CHARS)
    skipped: "JobSkipped | None" = None
    at = 0
    while True:
        start, at, name = _token(text, at)
        if name[0] not in _LETTERS or "+" in name or not all(name.split(".")):
            _bad(start, "attribute name expected")
        place, at, operator = _token(text, at)
        if operator not in ("==", "!=", "<", "<=", ">", ">="):
            _bad(place, "== != < <= > or >= expected")
        place, at, word = _token(text, at)
        value: Any = word[1:-1]
        if word in ("true", "false"):
            value = word == "true"
            if operator[0] in "<>":
                _bad(place, "%s has no order" % word)
        elif word[0] != "'":
            value = _number(word, place)
        if not skipped:
            skipped = _compare(text[start:at], name, operator, value, attributes)
        place, at, word = _token(text, at)
        if word == "\n":
            break
        if word != "and":
            _bad(place, "and expected")
    if skipped:
        raise skipped


def _bad(at: int, what: str) -> None:
    raise JobRejected("condition: position %d: %s" % (at + 1, what))


def _token(text: str, at: int) -> "tuple[int, int, str]":
    """(start, end, token) of the next token from `at` on; the token is a newline at the end of the text."""
    while text[at : at + 1] == " ":
        at += 1
    start = at
    char = text[at : at + 1]
    if not char:
        return at, at, "\n"
    if char == "'":
        at = text.find("'", at + 1) + 1
        if not at:
            _bad(start, "text without an end")
    elif char in "=!<>":
        while text[at : at + 1] in ("=", "!", "<", ">"):
            at += 1
    else:
        while at < len(text) and text[at] in _LETTERS + "+":
            at += 1
        if at == start:
            _bad(at, "unexpected character")
    return start, at, text[start:at]


def _number(word: str, place: int) -> "int | float | None":
    """digits [. digits] [e [+-] digits], with a minus before it or not: what int() and float() take is more."""
    digits = word[word[0] == "-" :].lower()
    power = "0"
    if "e" in digits:
        digits, power = digits.split("e", 1)
        power = power[power[:1] in ("+", "-") :]
    parts = digits.split(".")
    for part in parts + [power]:
        if not part or len(parts) > 2 or part.strip("0123456789"):
            _bad(place, "number, 'text', true or false expected")
    return float(word) if "e" in word.lower() or "." in word else int(word)


def _kind(value: Any) -> int:
    """1 true or false, 2 number, 3 text; 0 anything else."""
    if isinstance(value, bool):
        return 1
    if isinstance(value, (int, float)):
        return 2
    return 3 if isinstance(value, str) else 0


def _compare(part: str, name: str, operator: str, value: Any, attributes: "dict[str, Any]") -> "JobSkipped | None":
    """None if the comparison `part` is met."""
    held: Any = attributes
    for key in name.split("."):
        held = held.get(key) if isinstance(held, dict) else None
    kind = _kind(held)
    reason = "is unknown"
    if kind:
        reason = "is " + str(held)[:100]
        same = kind == _kind(value)
        equal = same and held == value
        if operator in ("==", "!="):
            met = equal == (operator == "==")
        elif same and not equal:
            met = (held < value) == (operator[0] == "<")
        else:
            met = equal and operator[1:] == "="
        if met:
            return None
    return JobSkipped("condition not met: %s %s" % (name, reason), {"skipped": part})
