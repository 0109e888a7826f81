/** The two languages of the application: a typed catalogue, plurals and numbers by Intl, no library. */
import { createContext, type ReactNode, useContext, useEffect, useMemo, useState } from 'react';
import { readChoice, writeChoice } from '../lib/choices';
import { en } from './en';
import { sv } from './sv';

export type MessageKey = keyof typeof sv;
export type Message = string | { readonly one: string; readonly other: string };
export type Catalogue = Record<MessageKey, Message>;
export type Language = 'sv' | 'en';

type Parameters = Record<string, string | number>;

const catalogues: Record<Language, Catalogue> = { sv, en };
const locales: Record<Language, string> = { sv: 'sv-SE', en: 'en-GB' };
const KEY = 'bfr-language';

export interface Translation {
  language: Language;
  /** For Intl: "sv-SE" or "en-GB". */
  locale: string;
  /** The text of a key; `{name}` stands for a parameter, `count` chooses the plural. */
  t: (key: MessageKey, parameters?: Parameters) => string;
  /** A whole number with the separators of the language. */
  number: (value: number) => string;
  /** A number without separators between thousands, as measured values are written. */
  measure: (value: number) => string;
  setLanguage: (language: Language) => void;
}

export function translation(
  language: Language,
  setLanguage: (language: Language) => void = () => undefined,
): Translation {
  const locale = locales[language];
  const plurals = new Intl.PluralRules(locale);
  const numbers = new Intl.NumberFormat(locale);
  const measures = new Intl.NumberFormat(locale, { useGrouping: false, maximumFractionDigits: 2 });
  const number = (value: number) => numbers.format(value);
  const t = (key: MessageKey, parameters: Parameters = {}) => {
    const message = catalogues[language][key];
    const text =
      typeof message === 'string'
        ? message
        : message[plurals.select(Number(parameters.count)) === 'one' ? 'one' : 'other'];
    return text.replace(/\{(\w+)\}/g, (whole, name: string) => {
      const value = parameters[name];
      return value === undefined ? whole : typeof value === 'number' ? number(value) : value;
    });
  };
  return { language, locale, t, number, measure: measures.format, setLanguage };
}

const TranslationContext = createContext<Translation>(translation('sv'));

export function useTranslation(): Translation {
  return useContext(TranslationContext);
}

/** Gives the language of this browser to everything inside, and tells the document. */
export function TranslationProvider({ children }: { children: ReactNode }) {
  const [language, setLanguage] = useState<Language>(() =>
    readChoice(KEY) === 'en' ? 'en' : 'sv',
  );
  useEffect(() => {
    document.documentElement.lang = language;
    writeChoice(KEY, language);
  }, [language]);
  const value = useMemo(() => translation(language, setLanguage), [language]);
  return <TranslationContext value={value}>{children}</TranslationContext>;
}
