/**
 * `node scripts/screenshot.js [file.webp]`: takes the picture of the demo page for README.md, by
 * default web/demo.webp. Chromium opens the page as `npm start` serves it, the model writes once to
 * warm up, and then again for the picture.
 */
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { serveDemo } from '../web/serve.js';
import { build } from './build.js';
import { findChromium } from './setup/engines.js';
import { main, root, SetupError } from './setup/run.js';

/** Size limit of a picture in a README, in bytes. */
const LARGEST_BYTES = 150e3;
const SIZE = { width: 1280, height: 800 };

/** @param {string} file */
async function photograph(file) {
  const executablePath = findChromium();
  if (!executablePath) throw new SetupError('no Chromium: none on PATH, and CHROMIUM_PATH names none');
  await build({ quiet: true });
  const server = await serveDemo();
  const args = process.getuid?.() === 0 ? ['--no-sandbox', '--disable-gpu'] : ['--disable-gpu'];
  const browser = await chromium.launch({ executablePath, args });
  try {
    const page = await browser.newPage({
      viewport: SIZE,
      deviceScaleFactor: 1.5,
      colorScheme: 'light',
      reducedMotion: 'reduce',
    });
    await page.goto(server.url);
    const done = page.locator('#stats[data-state=done]');
    await done.waitFor();
    await page.getByLabel('How the text begins').press('Enter');
    await page.locator('#stats[data-state=writing]').waitFor({ state: 'detached' });
    await done.waitFor();
    // Removes the focus ring from the picture.
    await page.evaluate(() => /** @type {HTMLElement | null} */ (document.activeElement)?.blur());
    // Playwright itself cannot write WebP.
    const session = await page.context().newCDPSession(page);
    const { data } = await session.send('Page.captureScreenshot', { format: 'webp', quality: 85 });
    const picture = Buffer.from(data, 'base64');
    if (picture.length > LARGEST_BYTES)
      throw new SetupError(`the picture has ${picture.length} bytes, ${LARGEST_BYTES} are allowed`);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, picture);
    process.stdout.write(`${path.relative(root, file)}: ${statSync(file).size} bytes\n`);
  } finally {
    await browser.close();
    await server.close();
  }
}

await main(() => photograph(path.resolve(process.argv[2] ?? path.join(root, 'web/demo.webp'))));
