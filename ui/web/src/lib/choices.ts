/** What the person chose in this browser (language, colours); never anything about a patient. */

/** Returns the kept choice, or null when none was made or the browser keeps nothing. */
export function readChoice(key: string): string | null {
  try {
    return window.localStorage.getItem(key);
  } catch {
    return null; // storage is closed in some embedded browsers
  }
}

/** Keeps a choice for the next visit, where the browser allows it. */
export function writeChoice(key: string, value: string): void {
  try {
    window.localStorage.setItem(key, value);
  } catch {
    // The choice then lasts until the page is closed.
  }
}
