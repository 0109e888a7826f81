declare module 'dcmjs' {
  export const data: {
    DicomMetaDictionary: {
      dictionary: Record<string, { tag: string; vr: string; name: string } | undefined>;
    };
  };
}
