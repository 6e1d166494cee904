// Our tokenizer beside an independent one, on 12,000 lines of mixed scripts and code: the same ids,
// and the text back.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { below, madeUpLine, oddities, pick } from './made_up_text.mjs';
import { startServer } from './server.mjs';

const LINES = 12_000;
const root = process.env.ENGRAM_SOURCE_DIR;

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
    else all.push(pick(real) + pick(oddities) + madeUpLine() + '\n\n  ' + pick(real));
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
