// Starts the real serving program on a model made for the test, on a port the system chose.
import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const bin = process.env.ENGRAM_BIN_DIR;
if (!bin) throw new Error('ENGRAM_BIN_DIR must name the folder of the programs');

// sets: settings as "a.b=value". Close it when done.
export async function startServer(sets = []) {
  const folder = mkdtempSync(join(tmpdir(), 'engram-web-'));
  const model = join(folder, 'tiny');
  execFileSync(join(bin, 'engramctl'),
    ['make-model', '--preset', 'tiny', '--seed', '7', '--out', model], { stdio: 'ignore' });
  const options = ['api.listen=127.0.0.1:0', ...sets].flatMap((set) => ['--set', set]);
  const child = spawn(join(bin, 'engram-compute'), ['serve', '--model', model, ...options],
    { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  const url = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('not ready in 30 s')), 30_000);
    exited.then((code) => reject(new Error(`the server ended with ${code}`)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const found = /^ready http=(\S+)/.exec(line);
      if (!found) return;
      clearTimeout(timer);
      resolve(`http://${found[1]}`);
    });
  });
  return {
    url,
    model,
    state: async () => (await fetch(`${url}/debug/state`)).json(),
    async close() {
      child.kill('SIGTERM');
      await exited;
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
