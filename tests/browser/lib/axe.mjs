// What axe-core finds wrong with a page as it stands.

import { axeSource } from './tools.mjs';

/** One line for each violation: the rule, and the elements that break it. */
export async function violationsOf(page) {
  // Evaluated by the browser's debugger, which the page's own policy does not bind.
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => `${target} ${failureSummary}`).join(' | ')}`);
}
