import { useDocumentTitle } from '@mantine/hooks';
import type { ReactNode } from 'react';
import classes from './page.module.css';

interface PageProps {
  /** Also the title of the window: never a patient's name or number. */
  title: string;
  heading?: ReactNode;
  lead?: ReactNode;
  aside?: ReactNode;
  wide?: boolean;
  /** The last part takes the height that is left and scrolls by itself. */
  fill?: boolean;
  children: ReactNode;
}

/** The frame of every page but the viewer: heading, what it is for, and the content. */
export function Page({
  title,
  heading,
  lead,
  aside,
  wide = false,
  fill = false,
  children,
}: PageProps) {
  useDocumentTitle(`${title} – BFR`);
  return (
    <div className={classes.page} data-wide={wide} data-fill={fill}>
      {heading ?? (
        <div className={classes.heading}>
          <div>
            <h1>{title}</h1>
            {lead && <p className={classes.lead}>{lead}</p>}
          </div>
          {aside}
        </div>
      )}
      {children}
    </div>
  );
}
