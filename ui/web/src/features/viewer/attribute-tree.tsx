import { data } from 'dcmjs';
import { useState } from 'react';
import { useTranslation } from '../../i18n';
import type { DicomAttribute, DicomDataset } from '../../lib/dicomweb';
import classes from './attribute-tree.module.css';

const VALUES_SHOWN = 24;
const ITEMS_SHOWN = 50;
const TEXT_SHOWN = 4000;

/** "(0008,0060)" of "00080060". */
export function writtenTag(tag: string): string {
  return `(${tag.slice(0, 4)},${tag.slice(4)})`;
}

/** The keyword of a tag in words, such as "Patient Name"; null for private and unknown ones. */
export function nameOf(tag: string): string | null {
  const keyword = data.DicomMetaDictionary.dictionary[writtenTag(tag.toUpperCase())]?.name;
  if (!keyword || keyword.includes('PrivateTag')) return null;
  return keyword
    .replace(/^RETIRED_/, '')
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .replace(/([A-Z]+)([A-Z][a-z])/g, '$1 $2');
}

function written(value: unknown): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'object') {
    const groups = value as Record<string, unknown>;
    return [groups.Alphabetic, groups.Ideographic, groups.Phonetic].filter(Boolean).join(' = ');
  }
  const text = String(value);
  return text.length > TEXT_SHOWN ? `${text.slice(0, TEXT_SHOWN)} …` : text;
}

/** The values of an attribute that is no sequence, in one line. */
export function valueText(attribute: DicomAttribute, binary: string): string {
  if (attribute.BulkDataURI || attribute.InlineBinary) return binary;
  const values = attribute.Value ?? [];
  const shown = values.slice(0, VALUES_SHOWN).map(written).join(' \\ ');
  return values.length > VALUES_SHOWN ? `${shown} … (${values.length})` : shown;
}

/** All attributes of a data set, in the order of their tags; sequences open on demand. */
export function AttributeTree({ dataset }: { dataset: DicomDataset }) {
  const { t } = useTranslation();
  const tags = Object.keys(dataset).sort();
  return (
    <ul className={classes.tree}>
      {tags.map((tag) => {
        const attribute = dataset[tag] as DicomAttribute;
        return (
          <li key={tag}>
            {attribute.vr === 'SQ' ? (
              <Sequence tag={tag} attribute={attribute} />
            ) : (
              <div className={classes.attribute}>
                <span className={classes.tag}>{writtenTag(tag)}</span>
                <span className={classes.vr}>{attribute.vr}</span>
                <span className={classes.name}>{nameOf(tag) ?? t('document.private')}</span>
                <span className={classes.value}>
                  {valueText(attribute, t('document.binary')) || '–'}
                </span>
              </div>
            )}
          </li>
        );
      })}
    </ul>
  );
}

function Sequence({ tag, attribute }: { tag: string; attribute: DicomAttribute }) {
  const { t } = useTranslation();
  const [open, setOpen] = useState(false);
  const [limit, setLimit] = useState(ITEMS_SHOWN);
  const items = (attribute.Value ?? []) as DicomDataset[];
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary className={classes.sequence}>
        <span className={classes.tag}>{writtenTag(tag)}</span>
        <span className={classes.vr}>SQ</span>
        <span className={classes.name}>{nameOf(tag) ?? t('document.private')}</span>
        <span className={classes.count}>{t('document.items', { count: items.length })}</span>
      </summary>
      {open && (
        <ol className={classes.items}>
          {items.slice(0, limit).map((item, at) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: items have no identity but their place
            <li key={at}>
              <span className={classes.itemNumber}>{t('document.item', { item: at + 1 })}</span>
              <AttributeTree dataset={item ?? {}} />
            </li>
          ))}
          {items.length > limit && (
            <li>
              <button
                type="button"
                className={classes.more}
                onClick={() => setLimit(limit + ITEMS_SHOWN)}
              >
                {t('document.moreItems', { count: items.length - limit })}
              </button>
            </li>
          )}
        </ol>
      )}
    </details>
  );
}
