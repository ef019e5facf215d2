#!/usr/bin/env python3
"""Draw docstrings, comments, messages and help texts at random, to be read against docs/style.md.

scripts/tools/sample_prose.py [--count 60] [--seed 0]
"""

import argparse
import ast
import io
import random
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIN_LENGTH = 25  # characters; shorter texts are names and units


def texts_of(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of everything that a file says to people."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "lineno", 1), "docstring", docstring
        elif isinstance(node, ast.Call) and _is_message(node):
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                if isinstance(argument, ast.Constant | ast.JoinedStr):
                    text = ast.unparse(argument)
                    if " " in text:
                        yield node.lineno, "message", text
    yield from _comments(source)


def _comments(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield comments; comments on adjacent lines are one text."""
    first, lines, column = 0, list[str](), 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        comment = token.string.lstrip("# ")
        if token.type != tokenize.COMMENT or comment.startswith(("noqa", "type:", "fmt:", "!")):
            continue
        line, start = token.start
        if lines and (line, start) == (first + len(lines), column):
            lines.append(comment)
            continue
        if lines:
            yield first, "comment", " ".join(lines)
        first, lines, column = line, [comment], start
    if lines:
        yield first, "comment", " ".join(lines)


def _is_message(call: ast.Call) -> bool:
    """Tell whether a call is an error, a warning, or the definition of an option."""
    name = ast.unparse(call.func)
    return name.endswith(("Error", "log.warning", "Option", "click.option"))


def main() -> None:
    """Print the sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = [
        (path, *text)
        for path in sorted((ROOT / "faceswap").rglob("*.py"))
        for text in texts_of(path)
        if len(text[2]) >= MIN_LENGTH
    ]
    chosen = random.Random(options.seed).sample(found, options.count)  # noqa: S311 - not a secret
    for number, (path, line, kind, text) in enumerate(chosen, start=1):
        print(f"{number}. {path.relative_to(ROOT)}:{line} ({kind})\n   {text}\n")


if __name__ == "__main__":
    main()
