// Our tokenizer beside an independent one, on 12,000 lines of mixed scripts and code: the same ids,
// and the text back.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { startServer } from './server.mjs';

const LINES = 12_000;
const root = process.env.ENGRAM_SOURCE_DIR;

// xorshift: the same lines on every machine.
let seed = 0x2545f491;
const below = (bound) => {
  seed ^= seed << 13; seed ^= seed >>> 17; seed ^= seed << 5;
  return (seed >>> 0) % bound;
};
const pick = (list) => list[below(list.length)];

const ranges = [
  [0x20, 0x7e], [0xa1, 0x17f], [0x300, 0x36f], [0x370, 0x3ff], [0x400, 0x4ff], [0x5d0, 0x5ea],
  [0x610, 0x6ff], [0x900, 0x97f], [0xe01, 0xe5b], [0x1100, 0x11ff], [0x1e00, 0x1eff],
  [0x2000, 0x206f], [0x20a0, 0x20bf], [0x2100, 0x214f], [0x2190, 0x21ff], [0x2460, 0x24ff],
  [0x3000, 0x30ff], [0x4e00, 0x9fff], [0xac00, 0xd7a3], [0xe000, 0xe0ff], [0xfb00, 0xfb4f],
  [0xff01, 0xff60], [0x10330, 0x1034a], [0x1d400, 0x1d7ff], [0x1f300, 0x1faff], [0x20000, 0x2000f],
];
const special = ['<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>', '<｜', '｜>', '▁', '\ufeff', '\u200d',
  '\u00a0', '\u3000', '\t', '  ', '    ', ' \t ', "'s", "'LL", "don't", '123', '1234567', '3.14', '٣٤٥', '一二三',
  '...', '!!!', '=>', '//', '/*', '*/', '{}', '();', '\\n', '<|im_start|>', '�', 'Å', 'Å', 'ﬁ', 'ǅ', 'İ'];

function madeUpLine() {
  let line = '';
  const range = pick(ranges);
  for (let words = 1 + below(12); words > 0; --words) {
    const [first, last] = below(4) === 0 ? pick(ranges) : range;
    for (let n = 1 + below(10); n > 0; --n) line += String.fromCodePoint(first + below(last - first + 1));
    line += below(6) === 0 ? pick(special) : below(8) === 0 ? '' : ' ';
  }
  return line;
}

function filesOf(folder, out = []) {
  for (const name of readdirSync(folder).sort()) {
    if (name.startsWith('.') || name === 'build' || name === 'node_modules' || name === 'corpus') continue;
    const path = join(folder, name);
    if (statSync(path).isDirectory()) filesOf(path, out);
    else if (/\.(md|cc|h|sh|txt|yaml|mjs|html)$/.test(name)) out.push(path);
  }
  return out;
}

function lines() {
  const real = filesOf(root).flatMap((path) => readFileSync(path, 'utf8').split('\n')).filter(Boolean);
  const all = [];
  for (let i = 0; i < LINES; ++i) {
    const kind = below(10);
    if (kind < 5) all.push(madeUpLine());
    else if (kind < 9) all.push(pick(real));
    else all.push(pick(real) + pick(special) + madeUpLine() + '\n\n  ' + pick(real));
  }
  all.push('a'.repeat(5000), ' '.repeat(3000), '中'.repeat(2000), '😀'.repeat(500), '0'.repeat(1000));
  return all;
}

test('ids agree with an independent implementation and decode to the text', { timeout: 110_000 }, async () => {
  const server = await startServer();
  try {
    const other = new Tokenizer(JSON.parse(readFileSync(join(server.model, 'tokenizer.json'), 'utf8')), {});
    const ask = async (path, body) => {
      const answer = await fetch(server.url + path, { method: 'POST', body: JSON.stringify(body) });
      assert.equal(answer.status, 200);
      return answer.json();
    };
    const different = [];
    let tokens = 0;
    for (const line of lines()) {
      const { tokens: ids } = await ask('/tokenize', { prompt: line });
      tokens += ids.length;
      const expected = other.encode(line, { add_special_tokens: false }).ids;
      if (JSON.stringify(ids) !== JSON.stringify(expected)) different.push({ line, ids, expected });
      const { prompt } = await ask('/detokenize', { tokens: ids });
      assert.equal(prompt, line);
    }
    console.log(`${LINES} lines, ${tokens} tokens, ${different.length} lines different`);
    for (const { line, ids, expected } of different.slice(0, 8)) {
      const at = ids.findIndex((id, i) => id !== expected[i]);
      console.log(JSON.stringify(line.slice(0, 200)), 'token', at, ids.slice(at, at + 6), expected.slice(at, at + 6));
    }
    assert.equal(different.length, 0);
  } finally {
    await server.close();
  }
});
