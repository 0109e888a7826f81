import { expect, test } from 'vitest';
import { commandOf, SHORTCUTS } from './shortcuts';

const plain = { shiftKey: false, ctrlKey: false, altKey: false, metaKey: false };

test('arrow keys scroll, and with Shift they change the window', () => {
  expect(commandOf({ ...plain, key: 'ArrowDown' })).toBe('nextImage');
  expect(commandOf({ ...plain, key: 'ArrowDown', shiftKey: true })).toBe('darker');
});

test('a letter means the same with Caps Lock on', () => {
  expect(commandOf({ ...plain, key: 'I' })).toBe('invert');
  expect(commandOf({ ...plain, key: '?', shiftKey: true })).toBe('help');
});

test('the digits choose presets', () => {
  expect(commandOf({ ...plain, key: '3' })).toBe('preset3');
  expect(commandOf({ ...plain, key: '0' })).toBe('layout');
});

test('the browser keeps its own keys, such as Ctrl+R and Alt+←', () => {
  expect(commandOf({ ...plain, key: 'r', ctrlKey: true })).toBeNull();
  expect(commandOf({ ...plain, key: '1', ctrlKey: true })).toBeNull();
  expect(commandOf({ ...plain, key: 'ArrowLeft', altKey: true })).toBeNull();
  expect(commandOf({ ...plain, key: 'Tab' })).toBeNull();
});

test('no key means two things', () => {
  const keys = SHORTCUTS.flatMap((shortcut) => shortcut.keys);
  expect(new Set(keys).size).toBe(keys.length);
});
