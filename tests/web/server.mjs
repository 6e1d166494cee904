// Starts the real serving program on a model made for the test, on a port the system chose.
import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const bin = process.env.ENGRAM_BIN_DIR;
if (!bin) throw new Error('ENGRAM_BIN_DIR must name the folder of the programs');

// The first line of a child's stdout that `pattern` matches.
function awaitLine(child, pattern) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('not ready in 30 s')), 30_000);
    child.once('exit', (code) => reject(new Error(`${child.spawnfile} ended with ${code}`)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const found = pattern.exec(line);
      if (!found) return;
      clearTimeout(timer);
      resolve(found[1]);
    });
  });
}

const start = (program, argv) => spawn(join(bin, program), argv, { stdio: ['ignore', 'pipe', 'inherit'] });

// sets: settings as "a.b=value"; nodes: memory nodes, 0: the tables are in the process. Close it when
// done.
export async function startServer(sets = [], nodes = 0) {
  const folder = mkdtempSync(join(tmpdir(), 'engram-web-'));
  const model = join(folder, 'tiny');
  execFileSync(join(bin, 'engramctl'),
    ['make-model', '--preset', 'tiny', '--seed', '7', '--out', model], { stdio: 'ignore' });
  const children = [];
  const options = ['api.listen=127.0.0.1:0', ...sets].flatMap((set) => ['--set', set]);
  const members = Array.from({ length: nodes }, (_, i) => `m${i}`);
  const addresses = [];
  for (const member of members) {
    const node = start('engram-memnode', [`node.name=${member}`, `cluster.members=${members}`, `model.path=${model}`,
      `store.path=${join(folder, member)}`, 'control.listen=127.0.0.1:0', 'http.listen=127.0.0.1:0']
      .flatMap((set) => ['--set', set]));
    children.push(node);
    addresses.push(await awaitLine(node, /^ready .*control=(\S+)/));
  }
  if (nodes > 0) options.push('--memnodes', addresses.join(','));
  const child = start('engram-compute', ['serve', '--model', model, ...options]);
  children.unshift(child);
  const url = `http://${await awaitLine(child, /^ready http=(\S+)/)}`;
  return {
    url,
    model,
    state: async () => (await fetch(`${url}/debug/state`)).json(),
    pauseNodes: () => children.slice(1).forEach((node) => node.kill('SIGSTOP')),
    resumeNodes: () => children.slice(1).forEach((node) => node.kill('SIGCONT')),
    async close() {
      this.resumeNodes();
      for (const each of children) {
        const exited = new Promise((resolve) => each.once('exit', resolve));
        each.kill('SIGTERM');
        await exited;
      }
      rmSync(folder, { recursive: true });
    },
  };
}

// Until `check` holds; fails after ten seconds.
export async function eventually(check) {
  for (let i = 0; i < 500; ++i) {
    if (await check()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`never became true: ${check}`);
}
