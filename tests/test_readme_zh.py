"""The Chinese README says what the English one says."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick
ROOT = Path(__file__).resolve().parents[1]
NAMES = ("README.md", "README.zh.md")
SPARE_LINES = 8  # Chinese paragraphs break elsewhere
CODE = re.compile(r"```.*?```", re.DOTALL)


def facts(text):
    """What must be the same: lists, in order where it matters."""
    lines, prose = text.splitlines(), CODE.sub("", text)
    links = {link for link in re.findall(r"\]\(([^)]*)\)", text) if "://" not in link}
    return {
        "commands": [re.sub(r"\s+#.*", "", line) for line in lines if line.startswith("    ")],
        "code": CODE.findall(text),
        "sections and rows": [
            line[:2] + " ".join(re.findall(r"`[^`]+`|\([^)]*\)", line))
            for line in lines
            if line.startswith(("## ", "|"))
        ],
        "in code font": sorted(set(re.findall(r"`([^`]+)`", prose))),
        "links": sorted(links - set(NAMES)),
        "numbers": sorted(set(re.findall(r"\d+(?:\.\d+)+|\b\d{3,}\b", prose))),
    }


def test_both_readmes_have_the_same_commands_numbers_and_length():
    texts = [(ROOT / name).read_text("utf-8") for name in NAMES]
    english, chinese = map(facts, texts)
    for kind, wanted in english.items():
        found = chinese[kind]
        missing = [one for one in wanted if one not in found]
        more = [one for one in found if one not in wanted]
        assert wanted == found, f"{kind}: only in README.md {missing}, only in README.zh.md {more}"
    lengths = [len(text.splitlines()) for text in texts]
    assert abs(lengths[0] - lengths[1]) <= SPARE_LINES and max(lengths) <= 160, lengths
