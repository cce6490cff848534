// Waits for what real timers bring.

import { vi } from 'vitest';

export const settled = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 20_000 });
