#!/usr/bin/env python3
"""Lists names that a header of the product declares and that nothing uses.

    tests/gates/dead_declarations.py [--product]      exit code 1 when there are any

A function, class, constant or alias is used where its name stands outside its own declaration and
definition, in the product or in a test; with --product, in the product. Names are compared as words,
so that two things of one name keep each other alive: it may miss one, and blames none that is used.
"""
import collections
import pathlib
import re
import sys

root = pathlib.Path(__file__).parents[2]
in_product_only = "--product" in sys.argv[1:]
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
DECLARED = [
    re.compile(r"^ *(?:[\w:<>,*&\[\]]+ )+[*&]*(\w+)\((?!\*)", re.M),  # functions: a type, a name, a parenthesis
    re.compile(r"\b(?:class|struct|enum class|using) ([A-Z]\w+)"),
    re.compile(r"\b(k[A-Z]\w+)(?:\[\w*\])? ?[={]"),
]
DEFINED = re.compile(r"^[A-Za-z][\w:<>,*&\[\] ]*?\b(?:\w+::)?(\w+)\(", re.M)  # at the margin
KEYWORDS = {"return", "throw", "new", "delete", "else", "case", "co_return"}
# What a library calls by these names.
CALLED_BY_LIBRARIES = {"intrusive_ptr_add_ref", "intrusive_ptr_release", "sink_it_", "flush_", "main"}

texts = {}
for top in ("common", "kernels", "memnode", "compute", "tests"):
    for path in sorted((root / top).rglob("*")):
        if path.suffix in (".cc", ".h", ".cu", ".cuh"):
            texts[path] = NOT_CODE.sub(" ", path.read_text(encoding="utf-8"))

uses, defined = collections.Counter(), collections.Counter()
for path, text in texts.items():
    product = (root / "tests") not in path.parents
    if product or not in_product_only:
        uses.update(WORD.findall(text))
    if product and path.suffix in (".cc", ".cu"):
        defined.update(match.group(1) for match in DEFINED.finditer(text))

dead = set()
for path, text in texts.items():
    if path.suffix not in (".h", ".cuh") or (root / "tests") in path.parents:
        continue
    for pattern in DECLARED:
        for match in pattern.finditer(text):
            name = match.group(1)
            if match.group(0).split()[0] in KEYWORDS or name in CALLED_BY_LIBRARIES:
                continue
            if uses[name] <= 1 + min(1, defined[name]):
                dead.add((str(path.relative_to(root)), text[: match.start(1)].count("\n") + 1, name))

for path, line, name in sorted(dead):
    print(f"{path}:{line}: {name} is declared and never used")
sys.exit(1 if dead else 0)
