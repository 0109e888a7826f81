/** Side marks: which side of the patient lies at each edge of the screen (PS3.3 §C.7.6.1.1.1). */

export interface SideMarks {
  left: string;
  right: string;
  top: string;
  bottom: string;
}

type Vector = readonly [number, number, number];

/** How large a share of the direction a second letter must have, as in "AL". */
const SECOND_LETTER = 0.35;

const LETTERS = [
  ['L', 'R'],
  ['P', 'A'],
  ['H', 'F'],
] as const;

const OPPOSITE: Record<string, string> = { L: 'R', R: 'L', A: 'P', P: 'A', H: 'F', F: 'H' };

/** The letters of a direction in the patient's coordinates (x to the left, y to the back, z to the head). */
export function lettersOf(direction: Vector): string {
  const length = Math.hypot(...direction);
  if (length === 0) return '';
  return direction
    .map((part, axis) => ({ share: Math.abs(part) / length, axis, negative: part < 0 }))
    .filter(({ share }) => share > SECOND_LETTER)
    .sort((one, other) => other.share - one.share)
    .slice(0, 2)
    .map(({ axis, negative }) => LETTERS[axis]?.[negative ? 1 : 0] ?? '')
    .join('');
}

export function opposite(letters: string): string {
  return [...letters].map((letter) => OPPOSITE[letter] ?? '').join('');
}

/** The letters of a Patient Orientation value (0020,0020), such as "L" or "AF"; '' when it is not usable. */
function stated(value: unknown): string {
  const letters = String(value ?? '').toUpperCase();
  return /^[LRAPHF]{1,3}$/.test(letters) ? letters.slice(0, 2) : '';
}

/** Where the right edge and the bottom edge of the screen lie along the rows and columns of the image. */
export interface ScreenInImage {
  /** Steps along a row and down a column when going right on the screen. */
  right: readonly [number, number];
  /** The same when going down on the screen. */
  down: readonly [number, number];
}

export interface ImageDirections {
  /** Image Orientation (Patient), six numbers; empty when the image has none. */
  cosines: number[];
  /** Patient Orientation: the letters of the row and of the column; empty when the image has none. */
  patientOrientation: unknown[];
}

function fromCosines(step: readonly [number, number], cosines: number[]): string {
  const along = (axis: number) =>
    step[0] * (cosines[axis] ?? 0) + step[1] * (cosines[axis + 3] ?? 0);
  return lettersOf([along(0), along(1), along(2)]);
}

function fromLetters(step: readonly [number, number], row: string, column: string): string {
  const [across, down] = step;
  if (Math.abs(across) >= Math.abs(down)) return across >= 0 ? row : opposite(row);
  return down >= 0 ? column : opposite(column);
}

/** The marks of the four edges, with the screen's rotation and flips; null when the image does not say. */
export function sideMarks(screen: ScreenInImage, image: ImageDirections): SideMarks | null {
  let right: string;
  let bottom: string;
  if (image.cosines.length === 6) {
    right = fromCosines(screen.right, image.cosines);
    bottom = fromCosines(screen.down, image.cosines);
  } else {
    const row = stated(image.patientOrientation[0]);
    const column = stated(image.patientOrientation[1]);
    if (!row || !column) return null;
    right = fromLetters(screen.right, row, column);
    bottom = fromLetters(screen.down, row, column);
  }
  return { right, bottom, left: opposite(right), top: opposite(bottom) };
}
