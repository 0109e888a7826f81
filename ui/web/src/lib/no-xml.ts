/**
 * Stands in for `xmlbuilder2`, which vtk.js imports to read XML files. BFR shows no such files, and the
 * real package needs Node's `events` module, which no browser has.
 */
export function create(): never {
  throw new Error('XML files are not read in the browser');
}
