// Where on the screen something changed.

/**
 * Runs `action`, and returns what it changed that is not wholly on the screen, as texts. What is scrolled out of a box of the page is
 * not on the screen.
 */
export async function changedOffScreen(page, action) {
  await page.evaluate(() => {
    window.changed = new Set();
    window.observer = new MutationObserver((records) => {
      for (const { target, addedNodes } of records) {
        for (const node of [target, ...addedNodes]) window.changed.add(node instanceof Element ? node : node.parentElement);
      }
    });
    window.observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  });
  await action();
  return page.evaluate(() => {
    window.observer.disconnect();
    const screen = { top: 0, left: 0, bottom: innerHeight, right: innerWidth };
    const frame = (element) => {
      const { overflowY } = getComputedStyle(element);
      return overflowY === 'visible' ? screen : element.getBoundingClientRect();
    };
    const within = (inner, outer) =>
      inner.top >= outer.top - 1 && inner.left >= outer.left - 1 && inner.bottom <= outer.bottom + 1 && inner.right <= outer.right + 1;
    const isSeen = (element) => {
      const own = element.getBoundingClientRect();
      // What holds other things is as large as they are: the list in its box.
      if (own.width === 0 || element.matches('tbody, .unseen')) return true;
      for (let around = element.parentElement; around; around = around.parentElement) {
        if (!within(own, around === document.body ? screen : frame(around))) return false;
      }
      return true;
    };
    return [...window.changed].filter((element) => element?.isConnected && !isSeen(element)).map((element) => element.outerHTML.slice(0, 200));
  });
}
