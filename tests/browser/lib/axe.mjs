// What axe-core finds wrong with a page for people who see, hear or move in other ways.

import { readFileSync } from 'node:fs';

import { toolFile } from './tools.mjs';

const AXE = readFileSync(toolFile('axe-core/axe.min.js'), 'utf8');

/** The violations of a page, as text, one each. */
export async function violationsOf(page) {
  await page.evaluate(AXE);
  const violations = await page.evaluate(async () => (await axe.run()).violations);
  return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target}: ${failureSummary}`));
}
