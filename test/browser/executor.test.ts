import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Browser, chromium } from 'playwright-core';
import { createServer, type ViteDevServer } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Report } from './executor-page.ts';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const isMissing = !existsSync(executablePath);

describe.skipIf(isMissing)(`in Chromium${isMissing ? `: ${executablePath} is not installed` : ''}`, () => {
  let server: ViteDevServer;
  let browser: Browser;
  beforeAll(async () => {
    server = await createServer({
      root: resolve(import.meta.dirname, '../..'),
      configFile: false,
      logLevel: 'error',
      // Pre-bundling would move ONNX Runtime away from the wasm files beside it.
      optimizeDeps: { noDiscovery: true, exclude: ['onnxruntime-web'] },
      server: { port: 0, host: '127.0.0.1', hmr: false, watch: null },
    });
    await server.listen();
    const args = [
      '--no-sandbox',
      '--enable-unsafe-webgpu',
      '--use-webgpu-adapter=swiftshader',
      '--disable-background-networking',
    ];
    browser = await chromium.launch({ executablePath, headless: true, args });
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  it.each(['webgpu', 'wasm'])(
    'a block runs on %s as on the reference',
    { timeout: 120_000 },
    async (device) => {
      const page = await browser.newPage();
      const problems: string[] = [];
      page.on('pageerror', (error) => problems.push(error.message));
      await page.goto(`${server.resolvedUrls?.local[0]}test/browser/executor-page.html?device=${device}`);
      await page.waitForFunction('globalThis.report !== undefined', undefined, { timeout: 100_000 });
      const report = (await page.evaluate('globalThis.report')) as Report | { failure: string };
      await page.close();
      expect(problems).toEqual([]);
      expect(report).toEqual({ device, values: 80, error: expect.any(Number) });
      expect('error' in report && report.error).toBeLessThan(1e-5);
    },
  );
});
