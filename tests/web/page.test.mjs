// The page at "/", in headless Chromium: a message gets an answer, the plots move, a picture is kept.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { startServer, eventually } from './server.mjs';

const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

test('the page chats and plots', { timeout: 90_000 }, async () => {
  // Over the network: rows in shared memory come from a stopped node too.
  const server = await startServer(['engine.deadline_ms=60000', 'lookup.path=gather'], 2);
  const profile = mkdtempSync(join(tmpdir(), 'engram-chromium-'));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: flags,
    viewport: { width: 1180, height: 760 },
  });
  try {
    const page = await browser.newPage();
    const problems = [];
    page.on('pageerror', (error) => problems.push(String(error)));
    page.on('console', (message) => { if (message.type() === 'error') problems.push(message.text()); });
    const asked = [];
    page.on('request', (request) => asked.push(request.url()));
    await page.goto(server.url);
    assert.match(await page.title(), /Engram Mesh/);
    for (const text of ['Tell me of memory.', 'And of rows?']) {
      await page.getByLabel('Message').fill(text);
      await page.getByRole('button', { name: 'Send' }).click();
      await eventually(async () => await page.getByRole('button', { name: 'Send' }).isEnabled());
    }
    const answers = await page.locator('.assistant').allTextContents();
    assert.equal(answers.length, 2);
    assert.ok(answers.every((answer) => answer.trim().length > 0));
    // A third one is stopped by hand while its rows cannot come, so that it is never done before.
    server.pauseNodes();
    await page.getByLabel('Message').fill('Go on for long.');
    await page.getByRole('button', { name: 'Send' }).click();
    await eventually(async () => (await server.state()).running === 1);
    await page.getByRole('button', { name: 'Stop' }).click();
    await eventually(async () => await page.getByRole('button', { name: 'Send' }).isEnabled());
    server.resumeNodes();
    await eventually(async () => (await server.state()).running === 0);
    assert.equal(await page.locator('.error').count(), 0);
    await eventually(async () => (await page.locator('#tokens-value').textContent()).match(/[1-9]/));
    // Some load, until the plots are lines.
    const points = async () => (await page.locator('#tokens polyline').getAttribute('points') ?? '').split(' ').length;
    await eventually(async () => {
      await fetch(`${server.url}/v1/completions`, { method: 'POST', body: JSON.stringify({ prompt: 'row '.repeat(1 + Math.random() * 60), max_tokens: 30 }) });
      return (await points()) >= 7;
    });
    assert.match(await page.locator('#nodes').textContent(), /m0.*m1/);
    for (const plot of ['tokens', 'rows', 'wait', 'hits']) {
      assert.ok(await page.locator(`#${plot} polyline`).getAttribute('points'), plot);
    }
    assert.match(await page.locator('#health').textContent(), /ready/i);
    await page.screenshot({ path: process.env.SCREENSHOT ?? 'page.png' });
    await page.setViewportSize({ width: 390, height: 800 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    assert.equal(overflow, false, 'wider than a phone');
    assert.deepEqual(problems, []);
    assert.ok(asked.every((url) => url.startsWith(server.url)), 'the page stays on its server');
  } finally {
    await browser.close();
    rmSync(profile, { recursive: true, force: true });
    await server.close();
  }
});
