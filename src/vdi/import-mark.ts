/**
 * The attribute of a VDI that an import is filling, or was when it was killed. It goes when the VDI is complete: so nobody
 * takes half of an image for the whole.
 */
export const IMPORT_MARK = 'collie.import'
