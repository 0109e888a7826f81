import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { describe, expect, test } from 'vitest';
import { type Catalogue, type Message, TranslationProvider, translation, useTranslation } from '.';
import { en } from './en';
import { sv } from './sv';

function forms(message: Message): string[] {
  return typeof message === 'string' ? [message] : [message.one, message.other];
}

function parametersOf(message: Message): string[] {
  return [...new Set(forms(message).flatMap((text) => text.match(/\{\w+\}/g) ?? []))].sort();
}

describe('the catalogues', () => {
  const swedish: Catalogue = sv;

  test('have the same keys', () => {
    expect(Object.keys(en).sort()).toEqual(Object.keys(sv).sort());
  });

  test('have a text for every key, with the same values and plurals in both languages', () => {
    for (const key of Object.keys(sv) as (keyof typeof sv)[]) {
      const texts = [...forms(swedish[key]), ...forms(en[key])];
      expect(
        texts.every((text) => text.trim() !== ''),
        key,
      ).toBe(true);
      expect(parametersOf(en[key]), key).toEqual(parametersOf(swedish[key]));
      expect(typeof en[key], key).toBe(typeof swedish[key]);
    }
  });
});

test('a count chooses its plural and is written with the separators of the language', () => {
  const swedish = translation('sv');
  expect(swedish.t('patient.studies', { count: 1 })).toBe('1 undersökning');
  expect(swedish.t('patient.studies', { count: 0 })).toBe('0 undersökningar');
  expect(swedish.t('patient.studies', { count: 1240 }).replace(/\s/g, ' ')).toBe(
    '1 240 undersökningar',
  );
  expect(translation('en').t('patient.studies', { count: 1240 })).toBe('1,240 studies');
});

function Greeting() {
  const { t, setLanguage } = useTranslation();
  return (
    <button type="button" onClick={() => setLanguage('en')}>
      {t('patients.search.submit')}
    </button>
  );
}

test('the language begins as Swedish, changes everywhere, tells the document and is kept', async () => {
  localStorage.clear();
  render(
    <TranslationProvider>
      <Greeting />
    </TranslationProvider>,
  );
  expect(document.documentElement.lang).toBe('sv');
  await userEvent.click(screen.getByRole('button', { name: 'Sök' }));
  expect(screen.getByRole('button', { name: 'Search' })).toBeVisible();
  expect(document.documentElement.lang).toBe('en');
  expect(localStorage.getItem('bfr-language')).toBe('en');
});
