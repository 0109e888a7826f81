import type { MantineColorScheme, MantineColorSchemeManager } from '@mantine/core';
import { readChoice, writeChoice } from '../lib/choices';

const KEY = 'bfr-colour-scheme'; // public/colour-scheme.js reads the same key before the first paint

function isScheme(value: string | null): value is MantineColorScheme {
  return value === 'light' || value === 'dark' || value === 'auto';
}

/** Keeps the chosen colour scheme in this browser, also when its storage is closed. */
export function colourSchemeManager(): MantineColorSchemeManager {
  let handle: ((event: StorageEvent) => void) | undefined;
  return {
    get: (fallback) => {
      const chosen = readChoice(KEY);
      return isScheme(chosen) ? chosen : fallback;
    },
    set: (value) => writeChoice(KEY, value),
    subscribe: (update) => {
      handle = (event) => {
        if (event.key === KEY && isScheme(event.newValue)) update(event.newValue);
      };
      window.addEventListener('storage', handle);
    },
    unsubscribe: () => {
      if (handle) window.removeEventListener('storage', handle);
    },
    clear: () => writeChoice(KEY, 'auto'),
  };
}
