// Lines of mixed scripts and code, the same on every machine.

// xorshift
let seed = 0x2545f491;
export const below = (bound) => {
  seed ^= seed << 13; seed ^= seed >>> 17; seed ^= seed << 5;
  return (seed >>> 0) % bound;
};
export const pick = (list) => list[below(list.length)];

// Assigned for long: implementations go by different versions of Unicode.
const ranges = [
  [0x20, 0x7e], [0xa1, 0x17f], [0x300, 0x36f], [0x370, 0x3ff], [0x400, 0x4ff], [0x5d0, 0x5ea],
  [0x610, 0x6ff], [0x900, 0x97f], [0xe01, 0xe5b], [0x1100, 0x11ff], [0x1e00, 0x1eff],
  [0x2000, 0x206f], [0x20a0, 0x20bf], [0x2100, 0x214f], [0x2190, 0x21ff], [0x2460, 0x24ff],
  [0x3000, 0x30ff], [0x4e00, 0x9fff], [0xac00, 0xd7a3], [0xe000, 0xe0ff], [0xfb00, 0xfb4f],
  [0xff01, 0xff60], [0x10330, 0x1034a], [0x1d400, 0x1d7ff], [0x1f300, 0x1f64f], [0x20000, 0x2000f],
];
export const oddities = ['<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>', '<｜', '｜>', '▁', '\ufeff', '\u200d',
  '\u00a0', '\u3000', '\t', '  ', '    ', ' \t ', "'s", "'LL", "don't", '123', '1234567', '3.14', '٣٤٥', '一二三',
  '...', '!!!', '=>', '//', '/*', '*/', '{}', '();', '\\n', '<|im_start|>', '�', 'Å', 'Å', 'ﬁ', 'ǅ', 'İ'];

// `special`: what stands between words here and there.
export function madeUpLine(special = oddities) {
  let line = '';
  const range = pick(ranges);
  for (let words = 1 + below(12); words > 0; --words) {
    const [first, last] = below(4) === 0 ? pick(ranges) : range;
    for (let n = 1 + below(10); n > 0; --n) line += String.fromCodePoint(first + below(last - first + 1));
    line += below(6) === 0 ? pick(special) : below(8) === 0 ? '' : ' ';
  }
  return line;
}
