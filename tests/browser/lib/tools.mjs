// The npm packages and programs of tests/tools, which is where they are installed.

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const require = createRequire(new URL('../../tools/package.json', import.meta.url));

export const { chromium } = require('playwright-core');
export const { isValid, sign } = require('@tma.js/init-data-node');
export const { source: axeSource } = require('axe-core');
export const { WebSocket } = require('ws');

export const venvBin = fileURLToPath(new URL('../../tools/venv/bin', import.meta.url));
export const chromiumPath = '/usr/bin/chromium';
export const webKitBrowser = '/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser';
