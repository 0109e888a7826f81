import { expect, test } from 'vitest';
import { SORTABLE, sortingFromText, textFromSorting } from './sorting';

test('a sorting survives the address, whichever column and direction', () => {
  for (const column of SORTABLE)
    for (const falling of [true, false])
      expect(sortingFromText(textFromSorting({ column, falling }))).toEqual({ column, falling });
});

test('an unknown column in the address means newest received first', () => {
  expect(sortingFromText('-shoe_size')).toEqual({ column: 'received_at', falling: true });
  expect(sortingFromText(undefined)).toEqual({ column: 'received_at', falling: true });
});
