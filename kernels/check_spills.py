#!/usr/bin/env python3
"""Fails when a hot loop of compiled code stores a vector register to the stack.

    check_spills.py OBJECT_OR_ARCHIVE...

A hot loop is an innermost one that computes with vectors of floats and calls nothing. A store counts
that goes to a fixed place of the stack, which is where a compiler keeps what found no register; an
array that an index or a pointer reaches is the program's own.
"""
import re
import subprocess
import sys

FUNCTION = re.compile(r'^[0-9a-f]+ <(.*)>:$')
INSTRUCTION = re.compile(r'^ *([0-9a-f]+):\t(\S+) *(.*)$')
JUMP_TARGET = re.compile(r'^([0-9a-f]+)(?: |$)')
STORE = re.compile(r'^%[xyz]mm\d+,[-0-9a-fx]*\(%(\w+)\)(?:\{%k\d\})?$')
ENDS = re.compile(r'^(jmp|ret|ud2|notrack)')
ARITHMETIC = re.compile(r'^v(add|sub|mul|div|max|min|fn?m(add|sub)|dpbf16)[0-9a-z]*p[sd]')


def disassemble(path):
    """(function, [(address, operation, operands)]) of every function of the file."""
    dump = subprocess.run(['objdump', '-d', '-C', '--no-show-raw-insn', path],
                          capture_output=True, text=True)
    if dump.returncode != 0:
        sys.exit(f'check_spills: objdump {path}: {dump.stderr.strip()}')
    name, instructions = None, []
    for line in dump.stdout.splitlines():
        if begins := FUNCTION.match(line):
            if instructions:
                yield name, instructions
            name, instructions = begins[1], []
        elif found := INSTRUCTION.match(line):
            instructions.append((int(found[1], 16), found[2], found[3].strip()))
    if instructions:
        yield name, instructions


def blocks_of(instructions):
    """The function's basic blocks, [instruction] each, and the indices of each one's successors."""
    starts = {instructions[0][0]}
    inside = {address for address, _, _ in instructions}
    for (_, operation, operands), after in zip(instructions, instructions[1:] + [(None, '', '')]):
        if not (operation.startswith('j') or operation.startswith('ret')):
            continue
        starts.add(after[0])
        if (to := JUMP_TARGET.match(operands)) and int(to[1], 16) in inside:
            starts.add(int(to[1], 16))
    blocks = []
    for instruction in instructions:
        if instruction[0] in starts:
            blocks.append([])
        blocks[-1].append(instruction)
    index = {block[0][0]: i for i, block in enumerate(blocks)}
    successors = []
    for i, block in enumerate(blocks):
        _, operation, operands = block[-1]
        to = JUMP_TARGET.match(operands) if operation.startswith('j') else None
        after = [index[int(to[1], 16)]] if to and int(to[1], 16) in index else []
        if not ENDS.match(operation) and i + 1 < len(blocks):
            after.append(i + 1)
        successors.append(after)
    reached = {to for after in successors for to in after}
    successors[0] += [i for i in range(1, len(blocks)) if i not in reached]  # by a table of jumps
    return blocks, successors


def innermost_loops(blocks, successors):
    """The blocks of every natural loop that holds no other."""
    count = len(blocks)
    predecessors = [[] for _ in range(count)]
    for i, after in enumerate(successors):
        for to in after:
            predecessors[to].append(i)
    everything = (1 << count) - 1
    dominators = [1] + [everything] * (count - 1)  # bit sets
    changed = True
    while changed:
        changed = False
        for i in range(1, count):
            now = everything
            for before in predecessors[i]:
                now &= dominators[before]
            now |= 1 << i
            changed = changed or now != dominators[i]
            dominators[i] = now
    loops = {}
    for i, after in enumerate(successors):
        for head in after:
            if not dominators[i] >> head & 1:
                continue
            body, waiting = loops.setdefault(head, {head}), [i]
            while waiting:
                block = waiting.pop()
                if block not in body:
                    body.add(block)
                    waiting += predecessors[block]
    return [body for head, body in loops.items()
            if not any(other != head and other in body for other in loops)]


def spills(instructions):
    """Operands of the stores to the stack in the function's hot loops."""
    has_frame = any(operation == 'mov' and operands == '%rsp,%rbp'
                    for _, operation, operands in instructions)
    stack = {'rsp', 'rbp'} if has_frame else {'rsp'}
    blocks, successors = blocks_of(instructions)
    found = []
    for loop in innermost_loops(blocks, successors):
        body = [instruction for block in sorted(loop) for instruction in blocks[block]]
        operations = [operation for _, operation, _ in body]
        if any(operation.startswith('call') for operation in operations):
            continue
        if not any(ARITHMETIC.match(operation) for operation in operations):
            continue
        for address, operation, operands in body:
            store = STORE.match(operands) if operation.startswith('v') else None
            if store and store[1] in stack:
                found.append(f'{address:x}: {operation} {operands}')
    return found


def main():
    functions, bad = 0, 0
    for path in sys.argv[1:]:
        for name, instructions in disassemble(path):
            functions += 1
            if stores := spills(instructions):
                bad += 1
                print(f'{name}\n  {len(stores)} stores of vector registers to the stack in hot '
                      f'loops, as {stores[0]}')
    if functions == 0:
        sys.exit('check_spills: no code in ' + ' '.join(sys.argv[1:]))
    print(f'{functions} functions, {bad} with spills in hot loops')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
