// Three real browsers with one face, each with a profile of its own:
//
//   browser.name, browser.version, browser.newPage(), and
//   browser.sleep(), wake()  all its processes stop, as those of a device that sleeps
//
//   page.goto(url), page.evaluate(fn, ...args), page.reload(), page.back(), page.forward(), page.close()
//   page.duplicate()        the same page in another tab, sessionStorage copied, as "Duplicate tab" does; returns it
//   page.hide(), show()     really in the background, and back
//   page.setOffline(is)     the browser's own offline mode, as far as it has one; returns whether it has
//   page.freeze(), thaw()   only in Chromium
//
// Every page has a window of its own, so that one does not put another into the background.

import { startChromium } from './chromium.mjs';
import { startFirefox } from './firefox.mjs';
import { startWebKit } from './webkit.mjs';

export const BROWSERS = { chromium: startChromium, firefox: startFirefox, webkit: startWebKit };
