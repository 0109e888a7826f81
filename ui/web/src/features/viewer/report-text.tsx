import { type DicomDataset, itemsOf, textOf } from '../../lib/dicomweb';
import { dicomDate, personName } from '../../lib/format';
import classes from './document-view.module.css';

const CONCEPT_NAME = '0040A043';
const CONTENT_SEQUENCE = '0040A730';
const CODE_MEANING = '00080104';

function meaning(item: DicomDataset, tag: string): string {
  const code = itemsOf(item, tag)[0];
  return code ? textOf(code, CODE_MEANING) : '';
}

/** The value of a content item as text (PS3.3 §C.17.3.2); '' for a container and for references. */
export function contentText(item: DicomDataset): string {
  switch (textOf(item, '0040A040')) {
    case 'TEXT':
      return textOf(item, '0040A160');
    case 'CODE':
      return meaning(item, '0040A168');
    case 'NUM': {
      const measured = itemsOf(item, '0040A300')[0];
      return measured
        ? `${textOf(measured, '0040A30A')} ${meaning(measured, '004008EA')}`.trim()
        : '';
    }
    case 'PNAME': {
      const { family, given } = personName(textOf(item, '0040A123'));
      return [given, family].filter(Boolean).join(' ');
    }
    case 'DATE':
      return dicomDate(textOf(item, '0040A121'));
    case 'TIME':
      return textOf(item, '0040A122');
    case 'DATETIME':
      return textOf(item, '0040A120');
    case 'UIDREF':
      return textOf(item, '0040A124');
    case 'IMAGE':
    case 'COMPOSITE': {
      const reference = itemsOf(item, '00081199')[0];
      return reference ? textOf(reference, '00081155') : '';
    }
    default:
      return '';
  }
}

/** A structured report as running text: containers become headings, the rest "concept: value". */
export function ReportText({ document }: { document: DicomDataset }) {
  const title = meaning(document, CONCEPT_NAME);
  return (
    <section className={classes.report}>
      {title && <h2>{title}</h2>}
      <ContentItems items={itemsOf(document, CONTENT_SEQUENCE)} depth={3} />
    </section>
  );
}

function ContentItems({ items, depth }: { items: DicomDataset[]; depth: number }) {
  return items.map((item, at) => {
    const name = meaning(item, CONCEPT_NAME);
    const value = contentText(item);
    const children = itemsOf(item, CONTENT_SEQUENCE);
    const Heading = `h${Math.min(depth, 6)}` as 'h3';
    return (
      // biome-ignore lint/suspicious/noArrayIndexKey: content items have no identity but their place
      <div key={at} className={classes.item}>
        {value || children.length === 0 ? (
          <p>
            {name && <span className={classes.concept}>{name}: </span>}
            <span className={classes.value}>{value || '–'}</span>
          </p>
        ) : (
          name && <Heading>{name}</Heading>
        )}
        {children.length > 0 && (
          <div className={value ? classes.nested : undefined}>
            <ContentItems items={children} depth={value || !name ? depth : depth + 1} />
          </div>
        )}
      </div>
    );
  });
}
