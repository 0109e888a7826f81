import { type CSSProperties, useState } from 'react';
import { DocumentIcon, ImageIcon } from './icons';
import classes from './thumbnail.module.css';

interface ThumbnailProps {
  /** Null when there is nothing to picture, such as a report. */
  address: string | null;
  size: number;
  eager?: boolean;
}

/** A small rendered picture on black. The text beside it says what it is, so it has no text of its own. */
export function Thumbnail({ address, size, eager = false }: ThumbnailProps) {
  const [failed, setFailed] = useState<string | null>(null);
  const [loaded, setLoaded] = useState<string | null>(null);
  return (
    <span className={classes.frame} style={{ '--size': `${size}px` } as CSSProperties}>
      {address && failed !== address ? (
        <img
          src={address}
          alt=""
          loading={eager ? 'eager' : 'lazy'}
          decoding="async"
          data-loaded={loaded === address}
          onLoad={() => setLoaded(address)}
          onError={() => setFailed(address)}
        />
      ) : address ? (
        <ImageIcon size={size * 0.36} />
      ) : (
        <DocumentIcon size={size * 0.36} />
      )}
    </span>
  );
}
