// Our tokenizer beside Hugging Face's own (npm's `tokenizers`: their Rust, compiled) on tokenizers of
// five families, whose files this test makes from merges that theirs learns: every single id
// decodes alike, texts become the same ids and come back alike, and the compressed vocabulary,
// which decides every row, is the one that its definition gives on their decoding.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tokenizer } from 'tokenizers';
import { below, madeUpLine, oddities, pick } from './made_up_text.mjs';

const MERGES = 1500, LINES = 1500;
const root = process.env.ENGRAM_SOURCE_DIR;
const probe = join(process.env.ENGRAM_BIN_DIR, 'tokenizer_probe');
const real = ['README.md', 'compute/README.md', 'common/text/tokenizer.cc', 'tests/web/made_up_text.mjs']
  .flatMap((path) => readFileSync(join(root, path), 'utf8').split('\n')).filter(Boolean);

// GPT-2's letters of the 256 bytes.
const letters = [];
for (let byte = 0, next = 0x100; byte < 256; ++byte) {
  const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  letters.push(String.fromCodePoint(printable ? byte : next++));
}

const byteLevel = (use_regex) => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex });
const splits = (...patterns) => ({ type: 'Sequence', pretokenizers: [
  ...patterns.map((Regex) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false })),
  byteLevel(false)] });
const qwenWords = (digits) => "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" + digits +
  '| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const deepSeekWords = '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+' +
  '| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const special = (content, more) => ({ content, special: true, ...more });
const neverInUtf8 = [0xc0, 0xc1, ...Array.from({ length: 11 }, (_, i) => 0xf5 + i)].map((byte) => letters[byte]);

const families = {
  'GPT-2': { pre_tokenizer: byteLevel(true), added: [special('<|endoftext|>')] },
  'Llama 3': {
    pre_tokenizer: splits(qwenWords('{1,3}')),
    ignore_merges: true,
    post_processor: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: false, use_regex: true },
    added: ['begin_of_text', 'end_of_text', 'reserved_special_token_0', 'start_header_id', 'end_header_id', 'eot_id']
      .map((name) => special(`<|${name}|>`)),
  },
  'Qwen 2': {
    normalizer: { type: 'NFC' },
    pre_tokenizer: splits(qwenWords('')),
    added: ['<|endoftext|>', '<|im_start|>', '<|im_end|>'].map((name) => special(name)),
  },
  'DeepSeek': {
    // As V3's, with V2's added tokens for the bytes that its vocabulary lacks.
    normalizer: { type: 'Sequence', normalizers: [] },
    pre_tokenizer: splits('\\p{N}{1,3}', '[一-龥぀-ゟ゠-ヿ]+', deepSeekWords),
    lacks: neverInUtf8,
    added: [special('<｜begin▁of▁sentence｜>'), special('<｜end▁of▁sentence｜>'), special('<｜▁pad▁｜>'),
      ...neverInUtf8.map((content) => ({ content, normalized: true })),
      { content: '<｜fim▁hole｜>' }, { content: '<|EOT|>', normalized: true }, { content: '<｜User｜>' },
      { content: '<｜Assistant｜>' }],
  },
  'odd added tokens': {
    normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }] },
    pre_tokenizer: splits(qwenWords('{1,3}')),
    added: [{ content: 'Ãµ' }, { content: 'Ġthe·', normalized: true }, { content: '<|français|>' },
      { content: '‹|français|>', normalized: true }, { content: '⟨XQ', normalized: true }, { content: 'XQ⟩' },
      { content: 'XQ', normalized: true }, { content: '<L>', lstrip: true }, { content: '<R>', rstrip: true },
      { content: '<LR>', lstrip: true, rstrip: true, normalized: true }, { content: 'row', single_word: true },
      { content: 'rows', single_word: true, normalized: true }, { content: 'ro' }, { content: '   ' },
      { content: '\u00e9q', normalized: true }, { content: 'e\u0301z' }, { content: '\u03a9', normalized: true },
      { content: 'Ġ' }, { content: ' .' }, { content: '中文' }, { content: 'ĉĊ' }, { content: '\u00a0' }],
    texts: ['⟨XQ⟩', '⟨XQ⟨XQ⟩XQ', ' <L> <R> <LR> ', '<R>   <L>', '<R>    a', 'row rows rowsrow ro_row -row-', 'Ãµõ',
      '\u00e9q', 'e\u0301q', '\u00e9z', 'e\u0301z',
      '\u2126 \u03a9', 'row\u0301', '\u00a0<L>\u3000<R>\u2003x', 'a\n<LR>\n\nb'],
  },
};

// What their trainer learns on our texts with this pre-tokenizer.
async function learnedMerges(folder, document) {
  const file = join(folder, 'corpus.txt');
  writeFileSync(file, [...real, ...Array.from({ length: 2000 }, () => madeUpLine())].join('\n'));
  const tokenizer = Tokenizer.fromString(JSON.stringify(
    { ...document, added_tokens: [], model: { ...document.model, vocab: {}, merges: [] } }));
  tokenizer.train([file]);
  const saved = join(folder, 'trained.json');
  tokenizer.save(saved);
  return JSON.parse(readFileSync(saved, 'utf8')).model.merges.slice(0, MERGES);
}

async function makeFile(folder, family) {
  const { normalizer = null, pre_tokenizer, post_processor = null, ignore_merges = false, lacks = [] } = family;
  const document = {
    version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer, pre_tokenizer, post_processor,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null,
      fuse_unk: false, byte_fallback: false, ignore_merges, vocab: {}, merges: [] },
  };
  const merges = await learnedMerges(folder, document);
  let id = 0;
  const { vocab } = document.model;
  for (const token of [...letters.filter((letter) => !lacks.includes(letter)), ...merges.map((pair) => pair.join(''))]) {
    vocab[token] ??= id++;
  }
  // Where merges are ignored some tokens have none.
  document.model.merges = merges.filter((_, i) => !ignore_merges || i % 5 !== 4)
    .filter(([left, right]) => [left, right, left + right].every((token) => token in vocab));
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: false };
  document.added_tokens = family.added
    .map((token) => ({ id: token.content in vocab ? vocab[token.content] : id++, ...flags, ...token }));
  const file = join(folder, 'tokenizer.json');
  writeFileSync(file, JSON.stringify(document));
  return file;
}

// The compressed vocabulary by their normalizers.
const normalizer = Tokenizer.fromString(JSON.stringify({
  version: '1.0', added_tokens: [], model: { type: 'BPE', vocab: {}, merges: [] },
  normalizer: { type: 'Sequence', normalizers: [{ type: 'NFKC' }, { type: 'NFD' }, { type: 'StripAccents' },
    { type: 'Lowercase' }, { type: 'Replace', pattern: { Regex: '[ \\t\\r\\n]+' }, content: ' ' },
    { type: 'Replace', pattern: { Regex: '^ $' }, content: '\ue000' },
    { type: 'Strip', strip_left: true, strip_right: true },
    { type: 'Replace', pattern: { String: '\ue000' }, content: ' ' }] },
})).getNormalizer();

function compressed(decoded, raw) {
  const ids = new Map();
  return decoded.map((text, id) => {
    const key = text.includes('\ufffd') ? raw[id] : normalizer.normalizeString(text) || text;
    if (!ids.has(key)) ids.set(key, ids.size);
    return ids.get(key);
  });
}

const firstDifference = (ours, theirs) => theirs.findIndex((value, i) => JSON.stringify(value) !== JSON.stringify(ours[i]));

for (const [name, family] of Object.entries(families)) {
  test(`${name}: the same ids, texts and compressed vocabulary`, { timeout: 170_000 }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'engram-family-'));
    try {
      const file = await makeFile(folder, family);
      const theirs = Tokenizer.fromFile(file);
      const tokens = family.added.map((token) => token.content);
      const lines = [...(family.texts ?? []), ...tokens, ...Array.from({ length: LINES }, () =>
        below(3) === 0 ? pick(real) + pick(tokens) + pick(real) : madeUpLine([...oddities, ...tokens, ...tokens]))];
      const ours = JSON.parse(execFileSync(probe, [file], {
        input: lines.map((line) => JSON.stringify(line) + '\n').join(''), maxBuffer: 1 << 28 }));

      const size = theirs.getVocabSize(true);
      assert.equal(ours.decoded.length, size);
      const every = Array.from({ length: size }, (_, id) => id);
      const decoded = await theirs.decodeBatch(every.map((id) => [id]), false);
      const raw = every.map((id) => theirs.idToToken(id));
      assert.deepEqual(ours.raw, raw);
      assert.deepEqual(ours.decoded, decoded);
      assert.deepEqual(ours.map, compressed(decoded, raw));

      const ids = (await theirs.encodeBatch(lines, { addSpecialTokens: false })).map((encoding) => encoding.getIds());
      let at = firstDifference(ours.ids, ids);
      assert.equal(at, -1, `${JSON.stringify(lines[at])}: ${ours.ids[at]} instead of ${ids[at]}`);
      const texts = await theirs.decodeBatch(ids, false);
      at = firstDifference(ours.texts, texts);
      assert.equal(at, -1, `${JSON.stringify(lines[at])}: ${ours.texts[at]} instead of ${texts[at]}`);
      console.log(`${size} ids, ${lines.length} lines, ${ids.flat().length} tokens`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}
