#!/usr/bin/env python3
"""Of kernels/check_spills.py: what it finds in spilling.cc, compiled.

    check_spills_test.py CHECK_SPILLS OBJECT
"""
import subprocess
import sys


def run(*command):
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


def main():
    check, spilling = sys.argv[1:]
    code, text = run(check, spilling)
    failures = []
    if code != 1:
        failures.append(f'exit status {code}, not 1')
    if 'KeepsTwentySums' not in text:
        failures.append('KeepsTwentySums is not found')
    for name in ('CountsIntoAnArray', 'KeepsEightSums', 'CallsInTheLoop'):
        if name in text:
            failures.append(f'{name} is found, which does not spill')
    code, _ = run(check, '/nowhere.o')
    if code == 0:
        failures.append('a file that is not there passes')
    print(text + '\n'.join(failures))
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
