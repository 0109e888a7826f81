/** The keys of the picture area. They act only while it has the focus (WCAG 2.1.4). */
import type { MessageKey } from '../../i18n';

export type Command =
  | 'previousImage'
  | 'nextImage'
  | 'firstImage'
  | 'lastImage'
  | 'previousSeries'
  | 'nextSeries'
  | 'otherViewport'
  | 'reset'
  | 'invert'
  | 'flipHorizontal'
  | 'flipVertical'
  | 'rotateRight'
  | 'rotateLeft'
  | 'cine'
  | 'zoomIn'
  | 'zoomOut'
  | 'wider'
  | 'narrower'
  | 'brighter'
  | 'darker'
  | 'panLeft'
  | 'panRight'
  | 'panUp'
  | 'panDown'
  | 'toolWindow'
  | 'toolZoom'
  | 'toolPan'
  | 'toolScroll'
  | 'toolLength'
  | 'layout'
  | 'help'
  | `preset${number}`;

interface Shortcut {
  /** As the browser names the key, with the modifiers before it. */
  keys: string[];
  command: Command;
}

export const SHORTCUTS: Shortcut[] = [
  { keys: ['ArrowUp'], command: 'previousImage' },
  { keys: ['ArrowDown'], command: 'nextImage' },
  { keys: ['Home'], command: 'firstImage' },
  { keys: ['End'], command: 'lastImage' },
  { keys: ['PageUp'], command: 'previousSeries' },
  { keys: ['PageDown'], command: 'nextSeries' },
  { keys: ['ArrowLeft', 'ArrowRight'], command: 'otherViewport' },
  { keys: [' '], command: 'reset' },
  { keys: ['i'], command: 'invert' },
  { keys: ['h'], command: 'flipHorizontal' },
  { keys: ['v'], command: 'flipVertical' },
  { keys: ['r'], command: 'rotateRight' },
  { keys: ['l'], command: 'rotateLeft' },
  { keys: ['c'], command: 'cine' },
  { keys: ['+', '='], command: 'zoomIn' },
  { keys: ['-'], command: 'zoomOut' },
  { keys: ['Shift+ArrowRight'], command: 'wider' },
  { keys: ['Shift+ArrowLeft'], command: 'narrower' },
  { keys: ['Shift+ArrowUp'], command: 'brighter' },
  { keys: ['Shift+ArrowDown'], command: 'darker' },
  { keys: ['Ctrl+ArrowLeft'], command: 'panLeft' },
  { keys: ['Ctrl+ArrowRight'], command: 'panRight' },
  { keys: ['Ctrl+ArrowUp'], command: 'panUp' },
  { keys: ['Ctrl+ArrowDown'], command: 'panDown' },
  { keys: ['w'], command: 'toolWindow' },
  { keys: ['z'], command: 'toolZoom' },
  { keys: ['p'], command: 'toolPan' },
  { keys: ['s'], command: 'toolScroll' },
  { keys: ['m'], command: 'toolLength' },
  { keys: ['0'], command: 'layout' },
  { keys: ['?'], command: 'help' },
];

/** The lines of the help, each with the keys as they are printed. */
export const HELP: { keys: string[]; text: MessageKey }[] = [
  { keys: ['↑', '↓'], text: 'help.scroll' },
  { keys: ['Home', 'End'], text: 'help.ends' },
  { keys: ['PgUp', 'PgDn'], text: 'help.series' },
  { keys: ['1', '–', '9'], text: 'help.presets' },
  { keys: ['Shift', '↑ ↓ ← →'], text: 'help.window' },
  { keys: ['+', '−'], text: 'help.zoom' },
  { keys: ['Ctrl', '↑ ↓ ← →'], text: 'help.pan' },
  { keys: ['␣'], text: 'help.reset' },
  { keys: ['I'], text: 'help.invert' },
  { keys: ['H', 'V'], text: 'help.flip' },
  { keys: ['R', 'L'], text: 'help.rotate' },
  { keys: ['C'], text: 'help.cine' },
  { keys: ['W', 'Z', 'P', 'S'], text: 'help.tools' },
  { keys: ['M'], text: 'help.measure' },
  { keys: ['0'], text: 'help.layout' },
  { keys: ['←', '→'], text: 'help.viewport' },
  { keys: ['?'], text: 'help.help' },
];

interface KeyStroke {
  key: string;
  shiftKey: boolean;
  ctrlKey: boolean;
  altKey: boolean;
  metaKey: boolean;
}

/** The command of a key stroke; null when the key is not ours, so that the browser keeps it. */
export function commandOf(stroke: KeyStroke): Command | null {
  if (stroke.altKey || stroke.metaKey) return null;
  const named = stroke.key.length > 1;
  const key = named ? stroke.key : stroke.key.toLowerCase();
  if (!stroke.ctrlKey && /^[1-9]$/.test(key)) return `preset${Number(key)}`;
  const written = `${stroke.ctrlKey ? 'Ctrl+' : ''}${stroke.shiftKey && named ? 'Shift+' : ''}${key}`;
  return SHORTCUTS.find(({ keys }) => keys.includes(written))?.command ?? null;
}
